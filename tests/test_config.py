import ast
import dataclasses
import importlib.util
import pathlib

import pytest

from jaxalign import config
from jaxalign.errors import InputError
from jaxalign.stages import encode, extract

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
FILES = sorted(REPOSITORY.glob("configs/*.py"))
# Configurations that take an argument; tests/stages/test_own.py and others build them.
WITH_ARGUMENT = ("answers", "images92", "oota2025", "own", "reading_times", "score")


def load(path, *argument):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*argument)


def demo():
    return load(REPOSITORY / "configs/demo.py")


@pytest.mark.parametrize(
    "path", [x for x in FILES if x.stem not in WITH_ARGUMENT], ids=lambda path: path.stem
)
def test_every_configuration_is_built(path):
    common, stages = config.unpack(load(path))
    # A report of collected scores reads no data set.
    free = {"report"} if "collect" in stages else set()
    assert common.dataset or not any(config.STAGES[x].reads_dataset for x in set(stages) - free)
    assert list(stages) == [name for name in config.STAGES if name in stages]


def test_alice_takes_a_model_and_reads_it_in_its_chat_template():
    given = ("", "gpt2-small", "gpt2-small,chat")
    plain, beside, chat = (load(REPOSITORY / "configs/alice.py", x).extract for x in given)
    assert beside.models == (*plain.models, "gpt2-small") and not beside.chat
    assert beside.pooling == plain.pooling == "mean_all"
    assert chat.models == ("gpt2-small",) and chat.chat and chat.pooling == "mean"


def attributes(tree, name):
    """Return the attributes that are read below a node of a variable, or of a field, of a name."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and name in (getattr(node.value, "id", None), getattr(node.value, "attr", None))
    }


@pytest.mark.parametrize("name", config.STAGES)
def test_no_setting_is_dead(name):
    """Every field of a stage's Config is read as `config.<field>` in its module or package.

    Or as `self.<field>` in a method of Config that is itself read so; `__post_init__` is not.
    """
    module = config.STAGES[name].load()
    path = pathlib.Path(module.__file__)
    files = path.parent.glob("*.py") if path.stem == "__init__" else [path]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    read = set().union(*(attributes(tree, "config") for tree in trees))
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for node in (x for own in classes if own.name == "Config" for x in own.body):
        if isinstance(node, ast.FunctionDef) and node.name in read:
            read |= attributes(node, "self")
    fields = {field.name for field in dataclasses.fields(module.Config)}
    assert fields <= read


def test_round_trip():
    packed = demo()
    common, stages = config.unpack(packed)
    assert config.pack(common, **stages).to_dict() == packed.to_dict()


def test_overrides_reach_the_dataclass():
    packed = demo()
    packed.encode.num_folds = 4
    packed.seed = 7
    common, stages = config.unpack(packed)
    assert (common.seed, stages["encode"].num_folds) == (7, 4)
    assert config.flatten(packed)["encode.num_folds"] == 4


def test_values_are_checked_when_unpacked():
    packed = demo()
    packed.encode.num_folds = 1
    with pytest.raises(InputError, match="encode.num_folds must be >= 3, got 1"):
        config.unpack(packed)


def test_types_are_kept():
    packed = demo()
    with pytest.raises(TypeError):
        packed.encode.num_folds = "many"
    with pytest.raises((AttributeError, KeyError)):
        packed.encode.number_of_folds = 3


def test_unknown_stage():
    with pytest.raises(InputError, match="stages must be among tune, extract, .*got 'encod'"):
        config.pack(
            config.Common(dataset="demo"),
            extract=extract.Config(models=("all-MiniLM-L6-v2",)),
            encod=encode.Config(),
        )


@pytest.mark.parametrize(
    "settings,message",
    [({"seed": -1}, "seed must be >= 0"), ({"mesh": (1,)}, r"mesh must be \(data, model\)")],
)
def test_common_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        config.Common(dataset="demo", **settings)
