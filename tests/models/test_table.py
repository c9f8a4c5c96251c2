"""The table of named models: sizes, what it promises about papers, and how names are found."""

import csv
import functools
import json
import os
import shutil
import subprocess
import sys

import pytest
from huggingface_hub import constants

from jaxalign.errors import InputError
from jaxalign.models import formats, readers, table, weights, zoo

NAMED = {name: row for name, row in table.MODELS.items() if row.config}


def is_built(name):
    try:
        zoo.describe(name)
    except InputError:
        return False
    return True


BUILT = [name for name in NAMED if is_built(name)]


@functools.cache
def count(design, config):
    """Count parameters; a model and what was tuned from it are of one shape."""
    return weights.count(zoo.abstract(design, config))


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT)
def test_full_size_has_the_published_number_of_parameters(name):
    """Shapes alone; the counts are derived by torch in tests/golden/count_parameters.py."""
    row = NAMED[name]
    assert count(*zoo.describe(name)) == row.num_parameters - row.num_unused


@pytest.mark.parametrize(
    "name", [x for x in BUILT if readers.family(NAMED[x].config["model_type"]).two_towers]
)
def test_both_towers_have_all_parameters_of_a_file_of_both(name):
    """But the scale, and SigLIP's bias, of what compares images with texts."""
    row = NAMED[name]
    scales = 2 if row.config["model_type"] == "siglip" else 1
    assert count(*zoo.describe(name, tower="text")) == row.num_unused - scales


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [x for x in BUILT if NAMED[x].config["model_type"] in readers.WHOLES]
)
def test_what_texts_do_not_pass_is_there_for_images(name):
    assert count(*zoo.describe(name, whole=True)) == NAMED[name].num_parameters


def test_every_row_has_a_design():
    assert len(BUILT) == len(NAMED)


def test_rows_say_where_they_are_from_and_how_large_they_are():
    for name, row in table.MODELS.items():
        assert row.repository and row.revision, name
        assert row.config or row.data or row.package, name
        assert (row.num_parameters > 0) == bool(row.config), name
        assert row.delta_of == "" or row.delta_of in table.MODELS, name


def test_every_model_of_the_paper_is_a_row(data_root):
    """Name, repository and size of Aw et al. (2023); their labels are rounded to two digits."""
    file = data_root / "papers" / "aw2024_models.csv"
    if not file.is_file():
        pytest.skip("the data folder holds no papers/aw2024_models.csv")
    with open(file, encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 33
    for paper in rows:
        row = table.MODELS[paper["model"]]
        published = paper["hf_or_url"]
        # Alpaca's weights lie on the hub, as a difference; its code is what the paper links.
        if paper["model"] != "alpaca-7b":
            assert row.repository == published
        assert row.num_parameters == pytest.approx(float(paper["params"]), rel=0.06), paper
        if paper["model"] in BUILT:
            assert zoo.describe(paper["model"])[1].num_layers == int(paper["n_layers"])


# Names.


def put_in_cache(home, repository, folder, commit="0123abcd", ref="main"):
    """Lay a folder out as Hugging Face's cache does."""
    root = home / "hub" / ("models--" + repository.replace("/", "--"))
    shutil.copytree(folder, root / "snapshots" / commit)
    if ref:
        (root / "refs").mkdir()
        (root / "refs" / ref).write_text(commit)
    return root / "snapshots" / commit


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return tmp_path / "home"


@pytest.mark.slow
def test_name_is_found_in_the_local_cache(golden, home):
    put_in_cache(home, "google/flan-t5-small", golden / "t5_v1_1")
    model = zoo.find("flan-t5-small", None, t5_text="encoder")
    assert model.name == "flan-t5-small" and model.config.text == "encoder"
    assert model.weights_hash == zoo.find(str(golden / "t5_v1_1"), None).weights_hash


def test_repository_without_a_row_is_found_there_too(golden, home):
    put_in_cache(home, "somebody/tiny-roberta", golden / "roberta")
    assert zoo.find("somebody/tiny-roberta", None).name == "somebody/tiny-roberta"


@pytest.mark.slow
def test_what_tells_a_folder_from_others_is_its_name(golden, home, tmp_path):
    snapshot = put_in_cache(home, "somebody/tiny-roberta", golden / "roberta")
    steps = [tmp_path / run / "checkpoint-500" for run in ("first", "second")]
    for step in steps:
        shutil.copytree(golden / "roberta", step)
    given = [snapshot, *steps, f"mine={steps[0]}", f"run/a=b={steps[0]}", "r=somebody/tiny-roberta"]
    assert [zoo.find(str(place), None).name for place in given] == [
        "somebody/tiny-roberta",
        "first/checkpoint-500",
        "second/checkpoint-500",
        "mine",
        "run/a",
        "r",
    ]
    steps[0].rename(tmp_path / "lr=3e-4")
    assert zoo.find(str(tmp_path / "lr=3e-4"), None).name == "lr=3e-4"


@pytest.mark.parametrize("name", ["openai-community/gpt2", "gpt2", "v=gpt2"])
def test_names_of_the_hub_are_rows(golden, home, name):
    with pytest.raises(InputError, match="model gpt2-small is not on this machine"):
        zoo.find(name, None)
    put_in_cache(home, "openai-community/gpt2", golden / "llama")
    assert zoo.find(name, None).name == ("v" if "=" in name else "gpt2-small")


def test_a_repository_of_a_row_is_read_where_it_was_asked_for(golden, home):
    """As older versions of transformers filled the cache: without an organisation."""
    put_in_cache(home, "gpt2", golden / "llama")
    assert zoo.find("gpt2", None).name == "gpt2-small"
    put_in_cache(home, "tatsu-lab/alpaca-7b-wdiff", golden / "llama")
    with pytest.raises(InputError, match="model alpaca-7b was published as a difference"):
        zoo.find("tatsu-lab/alpaca-7b-wdiff", None)


@pytest.mark.parametrize(
    "asked,name",
    [
        ("EleutherAI/gpt-neo-1.3B", "gpt-neo-1.3b"),
        ("distilbert/distilgpt2", "distilgpt2"),
        ("openai-community/openai-gpt", "openai-gpt"),
        ("albert/albert-xxlarge-v2", "albert-xxlarge-v2"),
        ("distilbert-base-uncased", "distilbert-base-uncased"),
        ("FacebookAI/xlm-roberta-base", "xlm-roberta-base"),
        ("tiiuae/falcon-7b", "falcon-7b"),
        ("phi-1_5", "phi-1.5"),
    ],
)
def test_rows_of_later_families_are_found_by_their_repository(golden, home, asked, name):
    """Also in caches that were filled when these repositories had no organisation."""
    with pytest.raises(InputError, match=f"model {name} is not on this machine"):
        zoo.find(asked, None)
    put_in_cache(home, table.MODELS[name].repository.rpartition("/")[2], golden / "llama")
    assert zoo.find(name, None).name == name and not zoo.is_absent(name)


@pytest.mark.parametrize(
    "name,close",
    [
        ("gpt2smal", "gpt2-small"),
        ("meta-llama/llama2-7b", "llama-2-7b"),
        ("FacebookAI/RoBERTa-base", "roberta-base"),
        ("gemma-3-1b-it", "gemma-3-1b"),
    ],
)
def test_close_names_are_suggested(home, name, close):
    with pytest.raises(InputError, match=f"found {name!r}; close to it: .*{close}"):
        zoo.find(name, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variable,value,home",
    [
        ("HF_HUB_CACHE", "~/cache/hub", "cache"),
        ("HF_HOME", "~/cache", "cache"),
        ("XDG_CACHE_HOME", "{home}/cache", "cache/huggingface"),
        ("HOME", "{home}", ".cache/huggingface"),
    ],
)
def test_cache_lies_where_hugging_face_puts_it(golden, tmp_path, variable, value, home):
    """In a process of its own: the library reads the environment when it is imported."""
    path = put_in_cache(tmp_path / home, "a/b", golden / "roberta")
    known = ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HUGGINGFACE_HUB_CACHE")
    environment = {k: v for k, v in os.environ.items() if k not in known}
    environment |= {"HOME": str(tmp_path), variable: value.format(home=tmp_path)}
    code = "from jaxalign.models import formats; print(formats.cached('a/b'))"
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(path)


@pytest.mark.parametrize("name", ["no/such/name", "../..", "a--b", ""])
def test_what_no_repository_is_called_is_not_in_the_cache(home, name):
    assert formats.cached(name) is None


def test_commit_is_found_without_a_branch(golden, home, monkeypatch):
    row = table.Row(repository="a/b", revision="feed", config=NAMED["roberta-base"].config)
    monkeypatch.setitem(table.MODELS, "pinned", row)
    put_in_cache(home, "a/b", golden / "roberta", commit="feed", ref="")
    assert zoo.find("pinned", None).name == "pinned"


def test_name_without_local_weights(home):
    with pytest.raises(InputError) as info:
        zoo.find("flan-t5-xl", None)
    text = str(info.value)
    assert "published as google/flan-t5-xl (revision main)" in text
    assert "HF_HOME" in text and "local directory" in text and "\n" not in text


def test_difference_is_not_taken_for_a_model(golden, home):
    put_in_cache(home, "CarperAI/stable-vicuna-13b-delta", golden / "llama")
    with pytest.raises(InputError, match="a difference from llama-13b.*models.convert .*--delta"):
        zoo.find("stable-vicuna-13b", None)


def test_describe_refuses_what_has_no_hyperparameters():
    with pytest.raises(InputError, match="in the table with its hyperparameters: found 'gpt-17'"):
        zoo.describe("gpt-17")
    with pytest.raises(InputError, match="found 'stories260K'"):
        zoo.describe("stories260K")


def test_rows_of_one_config_can_be_written_as_json():
    for name, row in NAMED.items():
        assert json.loads(json.dumps(dict(row.config))) == dict(row.config), name
