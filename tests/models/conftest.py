"""The golden checkpoints, and copies of them to spoil."""

import json
import pathlib
import shutil

import pytest

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture(scope="session")
def golden():
    """Folder of the golden checkpoints."""
    return GOLDEN


@pytest.fixture
def copy_golden(tmp_path):
    """Copy a golden checkpoint, with `config.json` changed; a value `...` removes its key."""

    def copy(name, **changes):
        folder = tmp_path / pathlib.Path(name).name
        shutil.copytree(GOLDEN / name, folder)
        config = json.loads((folder / "config.json").read_text()) | changes
        config = {key: value for key, value in config.items() if value is not ...}
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return copy
