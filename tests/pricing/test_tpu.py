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
    compare("compile_for_tpu.py", name, data, model, rows, 512, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,rows,micro_batches,rank",
    [("llama-7b", 16, 1, 0), ("llama-7b", 32, 1, 16), ("pythia-1b", 16, 4, 0)],
)
def test_memory_of_training_too(name, rows, micro_batches, rank):
    """All parameters, and adapters, over eight chips along the rows; minutes each."""
    compare("compile_tuning_for_tpu.py", name, 8, 1, rows, 512, micro_batches, rank)


def compare(script, *arguments):
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        pytest.skip("libtpu is not installed, nor named by TPU_LIBRARY_PATH")
    found = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests/support" / script), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    bytes_of = json.loads(found.stdout.splitlines()[-1])
    assert bytes_of["planned"] == pytest.approx(bytes_of["compiled"], rel=0.1)
