"""Whatever happens to a run, the same command ends as if nothing had."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_rows_are_those_of_an_undisturbed_run(tmp_path):
    """Bit for bit, after kills at random moments, damage, two runs at once, and a full disk."""
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "tests/support/kills.py", "--kills=8", f"--folder={tmp_path / 'runs'}"],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found["kills"] >= 8 and found["trials"] >= 1
