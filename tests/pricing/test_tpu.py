"""Memory of passes on TPUs, as planned and as libtpu's compiler finds it; no TPU is needed."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("name,data,model,rows", [("gpt2-xl", 8, 1, 64), ("llama-7b", 1, 8, 8)])
def test_memory_is_what_the_compiler_of_the_tpu_finds(name, data, model, rows):
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        pytest.skip("libtpu is not installed, nor named by TPU_LIBRARY_PATH")
    script = REPOSITORY / "tests/support/compile_for_tpu.py"
    arguments = [name, *map(str, (data, model, rows, 512, 32))]
    found = subprocess.run(
        [sys.executable, str(script), *arguments],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    bytes_of = json.loads(found.stdout.splitlines()[-1])
    assert bytes_of["planned"] == pytest.approx(bytes_of["compiled"], rel=0.1)
