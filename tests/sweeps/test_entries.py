"""Configuration files with sweep(): what they may yield, and what is said of what they may not."""

import pathlib

import pytest
from refusals import refused

from jaxalign import config
from jaxalign.sweeps import entries

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
HEAD = """
from jaxalign import config
from jaxalign.stages import encode, extract, report

def get_config():
    return config.pack(
        config.Common(dataset="demo"),
        extract=extract.Config(models=("gpt2",)),
        encode=encode.Config(),
        report=report.Config(title="Own"),
    )
"""


@pytest.fixture
def write(tmp_path):
    def write(body, head=HEAD):
        path = tmp_path / "swept.py"
        path.write_text(head + body)
        return str(path)

    return write


def test_values_of_every_type_are_the_same_as_flags(write):
    changes = {
        "dataset": "with, comma and 'quotes'",
        "extract.models": ("a, b", "label=path/to/it's"),
        "extract.untrained_seed": -1,
        "extract.chat": True,
        "encode.alphas": (0.5, 1e-07, 100.0),
        "encode.layers": (),
        "encode.delays": [1, 2],
        "report.title": "",
    }
    found = entries.read(write(f"def sweep():\n    yield {changes!r}\n"))
    (entry,) = found.entries
    settings = config.flatten(entry.settings)
    expected = changes | {"encode.delays": (1, 2)}
    assert {name: settings[name] for name in changes} == expected
    assert {name: type(settings[name]) for name in changes} == {
        name: type(value) for name, value in expected.items()
    }


def test_overrides_of_the_command_line_hold_for_all(write):
    path = write("def sweep():\n    for i in (0, 1):\n        yield {'seed': i}\n")
    found = entries.read(path, ["--config.encode.num_folds=4"])
    assert [x.settings.seed for x in found.entries] == [0, 1]
    assert [x.settings.encode.num_folds for x in found.entries] == [4, 4]
    assert found.entries[1].flags == (
        f"--config={path}",
        "--config.encode.num_folds=4",
        "--config.seed=1",
    )
    assert [x.name for x in found.entries] == ["seed=0", "seed=1"]
    with refused("--config.encode.nm_folds=4"):
        entries.read(path, ["--config.encode.nm_folds=4"])


def test_names_are_made_of_values_and_differ(write):
    path = write(
        "def sweep():\n"
        "    for m in ('a/gpt2', 'b/gpt2', 'own=c/gpt2'):\n"
        "        yield {'extract.models': (m,), 'encode.pca': 3}\n"
    )
    names = [x.name for x in entries.read(path).entries]
    assert names == ["gpt2-pca=3", "gpt2-pca=3-2", "own-pca=3"]


def test_an_argument_of_get_config_makes_jobs_with_other_stages(write):
    head = HEAD.replace("get_config():", "get_config(dataset='demo'):")
    head = head.replace('dataset="demo"', "dataset=dataset")
    found = entries.read(write("def sweep():\n    yield {'argument': 'alice'}\n", head))
    assert found.entries[0].settings.dataset == "alice"
    assert found.entries[0].flags[0].endswith("swept.py:alice")
    with refused("argument must be left out, as get_config takes none, got 'alice'"):
        entries.read(write("def sweep():\n    yield {'argument': 'alice'}\n"))


GOOD = "def sweep():\n    yield {'seed': 0}\n    yield {'seed': 1}\n    yield "


@pytest.mark.parametrize(
    "body,words",
    [
        ("import absent_package\n", "cannot be loaded: ModuleNotFoundError: No module named"),
        ("def sweep(:\n", "cannot be loaded: SyntaxError"),
        ("", "must have the functions get_config() and sweep()"),
        ("def sweep():\n    return []\n", "must yield at least one dictionary, got none"),
        (
            GOOD + "{'encode.nm_folds': 4}\n",
            "the third of 3 dictionaries of sweep(), {'encode.nm_folds': 4}: settings must be of "
            "this run, got 'encode.nm_folds': did you mean 'encode.num_folds'?",
        ),
        (GOOD + "{'encode.num_folds': 2}\n", "encode.num_folds must be >= 3, got 2"),
        (GOOD + "{'encode.num_folds': 'four'}\n", "the third of 3 dictionaries"),
        (GOOD + "('seed', 2)\n", "the third of 3 dictionaries of sweep(), ('seed', 2): must be a"),
        (GOOD + "{'seed': 1}\n", "must differ from the second, which is the same"),
    ],
)
def test_what_is_wrong_is_named(write, body, words):
    with refused(words):
        entries.read(write(body))


def test_no_file():
    with refused("there is no file 'none.py'"):
        entries.read("none.py")


def test_ordinals():
    assert [entries.ordinal(i) for i in (0, 8, 9, 10, 20, 21, 110)] == [
        *("first", "ninth", "10th", "11th", "21st", "22nd", "111th")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs/sweeps").glob("*.py")))
def test_every_sweep_of_the_repository_is_read(path):
    found = entries.read(str(path))
    names = [x.name for x in found.entries]
    assert len(set(names)) == len(names) >= 6
    for entry in found.entries:
        assert config.unpack(entry.settings)[0].dataset
