"""Models that are fetched from a hub, which here is a server on this machine."""

import json
import shutil

import hub as hubs
import pytest
import safetensors.numpy
from huggingface_hub import constants
from refusals import refused

from jaxalign.errors import PlaceError
from jaxalign.models import fetch, zoo

NAME = "somebody/tiny-llama"
OTHERS = {  # of the same network, or of no use here
    "README.md": b"# Tiny",
    "pytorch_model.bin": b"bin",
    "pytorch_model.bin.index.json": b"{}",
    "tf_model.h5": b"h5",
    "flax_model.msgpack": b"flax",
    "onnx/model.onnx": b"onnx",
    "original/params.json": b"{}",
    "adapter_config.json": b"{}",
}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub, and an empty cache."""
    found = hubs.Hub()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with hubs.served(found) as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants,
            "HUGGINGFACE_CO_URL_TEMPLATE",
            address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield found


@pytest.fixture
def llama(golden):
    """The files of a small model."""
    files = ("config.json", "tokenizer.json", "model.safetensors")
    return {name: (golden / "llama" / name).read_bytes() for name in files}


def parts(content):
    """Return one file of weights as two that an index names."""
    tensors = safetensors.numpy.load(content)
    names = sorted(tensors)
    shards = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    where = {name: file for file, of in shards.items() for name in of}
    return {
        **{
            file: safetensors.numpy.save({x: tensors[x] for x in of}) for file, of in shards.items()
        },
        fetch.INDEX: json.dumps({"weight_map": where}).encode(),
    }


def run(name, revision=""):
    lines = []
    folder = fetch.fetch(fetch.source(name, revision), tell=lines.append)
    assert lines[-1] == str(folder)
    return folder, lines


def test_what_is_needed_comes_once(hub, llama):
    """Safetensors and no other weights, under the commit that is said, once."""
    hub.repositories[NAME] = llama | OTHERS
    folder, lines = run(NAME)
    assert {x.name: x.read_bytes() for x in folder.iterdir()} == llama
    assert sorted(hub.fetched()) == sorted(llama)
    assert lines[0] == f"{NAME}: {NAME} at {'1' * 40} (main)"
    assert lines[2].startswith("llama, ") and f"read as {NAME}" in lines[2]
    assert zoo.find(NAME, None).weights_hash
    hub.asked.clear()
    assert run(NAME)[0] == folder and hub.fetched() == []


def test_a_row_of_the_table_is_fetched_under_any_of_its_names(hub, llama):
    hub.repositories["openai-community/gpt2"] = llama | OTHERS
    folder, lines = run("gpt2")
    assert lines[0].startswith("gpt2-small: openai-community/gpt2 at 1111")
    assert zoo.find("openai-community/gpt2", None).name == "gpt2-small"
    assert fetch.source("meta-llama/Meta-Llama-3.1-8B").repository == "meta-llama/Llama-3.1-8B"
    assert folder.is_dir()


def test_parts_named_by_an_index_and_a_connection_that_breaks(hub, llama, monkeypatch):
    """The file goes on where it was, and the network is the same."""
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 250)  # bytes; 10 MB
    shards = parts(llama.pop("model.safetensors"))
    hub.repositories[NAME] = llama | shards | {"model-3-of-3.safetensors": b"of another index"}
    hub.cut = {"model-2-of-2.safetensors": 1000}
    folder, _ = run(NAME)
    asked = [x for x in hub.asked if x[:2] == ("GET", "model-2-of-2.safetensors")]
    assert [x[2] for x in asked] == ["", "bytes=1000-"]
    assert {x.name: x.read_bytes() for x in folder.iterdir()} == llama | shards


def test_a_fetch_that_was_stopped_keeps_what_is_whole(hub, llama):
    """Until all is there the cache does not name it."""
    shards = parts(llama.pop("model.safetensors"))
    hub.repositories[NAME] = llama | shards
    hub.damaged = {"model-2-of-2.safetensors"}
    with refused(NAME, "model-2-of-2.safetensors arrived damaged", "run the same command again"):
        run(NAME)
    with refused("model must be a name in the table", "jaxalign.models.fetch", NAME):
        zoo.find(NAME, None)
    hub.damaged = set()
    hub.asked.clear()
    run(NAME)
    assert hub.fetched() == ["model-2-of-2.safetensors"]
    assert zoo.find(NAME, None).name == NAME


def test_another_revision_is_read_by_its_folder(hub, llama):
    hub.repositories[NAME] = llama
    hub.commits["step1000"] = "2" * 40
    folder, lines = run(NAME, "step1000")
    assert folder.name == "2" * 40 and "read as LABEL=FOLDER" in lines[2]
    assert zoo.find(f"early={folder}", None).name == "early"
    assert run(NAME, "2" * 40)[0] == folder
    with refused("model must be a name in the table", NAME):
        zoo.find(NAME, None)


def test_bin_files_are_fetched_where_there_is_nothing_else(hub, llama):
    del llama["model.safetensors"]
    hub.repositories[NAME] = llama | {"pytorch_model.bin": b"bin", "tf_model.h5": b"h5"}
    folder, lines = run(NAME)
    assert sorted(hub.fetched()) == ["config.json", "pytorch_model.bin", "tokenizer.json"]
    assert f"python -m jaxalign.models.convert {folder} TARGET" in lines[2]


@pytest.mark.parametrize(
    "change,words",
    [
        ({"config.json": b'{"model_type": "xlnet"}'}, ["model_type must be one of", "'xlnet'"]),
        ({"config.json": None}, ["has no config.json"]),
        ({"model.safetensors": None, "m.gguf": b""}, ["must hold model.safetensors", "m.gguf"]),
    ],
)
def test_what_is_not_read_is_refused_before_its_weights_come(hub, llama, change, words):
    files = llama | change
    hub.repositories[NAME] = {name: x for name, x in files.items() if x is not None}
    with refused(*words):
        run(NAME)
    assert set(hub.fetched()) <= {"config.json"}


def test_what_the_hub_refuses_is_one_line(hub, llama, monkeypatch):
    with refused(f"model {NAME} ({NAME}, revision main) is not at http", "or is private"):
        run(NAME)
    hub.repositories[NAME] = llama
    with refused(NAME, "no such branch, tag or commit"):
        run(NAME, "nowhere")
    hub.gated = {NAME}
    with refused(NAME, "is gated: accept its terms at http", NAME, "HF_TOKEN"):
        run(NAME)
    hub.gated, hub.status = set(), 503
    with pytest.raises(PlaceError, match="answers 503.*the same command goes on") as lost:
        run(NAME)
    assert lost.value.is_lost
    hub.status = 0
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with refused("cannot be fetched: HF_HUB_OFFLINE"):
        run(NAME)


def test_a_hub_that_is_not_there(hub, monkeypatch):
    for name in ("ENDPOINT", "HUGGINGFACE_CO_URL_TEMPLATE"):
        monkeypatch.setattr(
            constants,
            name,
            getattr(constants, name).replace(constants.ENDPOINT, "http://127.0.0.1:9"),
        )
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PlaceError, match="http://127.0.0.1:9 does not answer"):
        run(NAME)


@pytest.mark.filterwarnings("ignore:Not enough free disk space")  # of the library, later
def test_a_disk_that_is_too_small(hub, llama, monkeypatch):
    """Before a file is fetched, and only for those that are missing."""
    hub.repositories[NAME] = llama
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 5, 5))
    with refused(NAME, "takes", "0.00 MB are free", "HF_HOME"):
        run(NAME)
    assert hub.fetched() == ["config.json"]


@pytest.mark.parametrize(
    "name,words",
    [
        ("gpt2smal", ["NAME must be a model of", "close to it: gpt2-small"]),
        ("stories260K", ["cannot be fetched", "in the data folder"]),
        ("llama-7b", ["cannot be fetched", "github.com/facebookresearch/llama"]),
        ("all-MiniLM-L6-v2", ["cannot be fetched", "Python package"]),
    ],
)
def test_what_no_hub_has(name, words):
    with refused(*words):
        fetch.source(name)
