"""Memory of programs on TPUs, as planned and as libtpu's compiler finds it; no TPU is needed."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def compiled(script, *arguments):
    """Return what a script of `tests/support` found; skips the test where libtpu is not there."""
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        pytest.skip("libtpu is not installed, nor named by TPU_LIBRARY_PATH")
    found = subprocess.run(
        [sys.executable, str(REPOSITORY / "tests/support" / script), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name,data,model,rows", [("gpt2-xl", 8, 1, 64), ("llama-7b", 1, 8, 8)])
def test_memory_is_what_the_compiler_of_the_tpu_finds(name, data, model, rows):
    bytes_of = compiled("compile_for_tpu.py", name, data, model, rows, 512, 32)
    assert bytes_of["planned"] == pytest.approx(bytes_of["compiled"], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,rows,micro_batches,rank",
    [("llama-7b", 16, 1, 0), ("llama-7b", 32, 1, 16), ("pythia-1b", 16, 4, 0)],
)
def test_memory_of_training_too(name, rows, micro_batches, rank):
    """All parameters, and adapters, over eight chips along the rows; minutes each."""
    bytes_of = compiled("compile_tuning_for_tpu.py", name, 8, 1, rows, 512, micro_batches, rank)
    assert bytes_of["planned"] == pytest.approx(bytes_of["compiled"], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("width", [1600, 4096])  # units of GPT-2 XL, and of LLaMA 7B
def test_memory_of_the_sweep_is_what_the_compiler_of_the_tpu_finds(width):
    """Of 8000 samples, as of some hours of stories, and about as many targets as Pereira has."""
    found = compiled("solver_for_tpu.py", 8000, width, 12288)
    assert found.keys() == {"search", "score"}
    for program in found.values():
        assert program["planned"] == pytest.approx(program["compiled"], rel=0.1)
        assert program["told"] == 0  # devices divide targets, and tell each other nothing
