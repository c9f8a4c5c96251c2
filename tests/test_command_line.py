"""How programs end: one line and an exit code, whichever of them it is."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

from jaxalign import command_line, stopping
from jaxalign.errors import InputError

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
BERT = REPOSITORY / "tests" / "golden" / "bert"


@pytest.mark.parametrize(
    "error, code, line",
    [
        (InputError("a must be b,\n  got c."), 2, "error: a must be b, got c.\n"),
        (OSError(28, "No space left on device"), 2, "error: [Errno 28] No space left on device\n"),
        (
            MemoryError("Unable to allocate 9 GiB."),
            2,
            "error: there is not enough memory: Unable to allocate 9 GiB; a smaller batch, or a "
            "larger limit (ulimit -v) helps; all is kept.\n",
        ),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory"),
            2,
            "error: there is not enough memory: RESOURCE_EXHAUSTED: Out of memory; a smaller "
            "batch, or a larger limit (ulimit -v) helps; all is kept.\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted: all is kept.\n"),
        (stopping.Stopped(), 143, "stopped: all is kept.\n"),
    ],
)
def test_what_is_no_bug_is_one_line(error, code, line, capsys):
    with pytest.raises(SystemExit) as ended:
        with command_line.ends_in_one_line(kept="all is kept", smaller="a smaller batch"):
            raise error
    assert ended.value.code == code
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("error", [RuntimeError("INTERNAL: a bug"), ValueError("a bug")])
def test_a_bug_keeps_its_traceback(error, capsys):
    with pytest.raises(type(error), match="a bug"):
        with command_line.ends_in_one_line():
            raise error
    assert capsys.readouterr().err == ""


def _interrupted(module, arguments, folder):
    """Run a module that hears Ctrl-C when it first opens the configuration of a model."""
    program = (
        "import runpy, signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def hook(event, given):\n"
        "    if event == 'open' and str(given[0]).endswith('bert/config.json'):\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "sys.addaudithook(hook)\n"
        f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_ctrl_c_ends_a_conversion_in_one_line(tmp_path):
    said = _interrupted("jaxalign.models.convert", [str(BERT), "converted"], tmp_path)
    kept = "what is finished is kept; the same command goes on where it was."
    assert said == f"interrupted: {kept}"


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")
def test_ctrl_c_ends_the_harness_in_one_line(tmp_path):
    arguments = ["--model=jaxalign", f"--model_args=pretrained={BERT}", "--tasks=arc_easy"]
    assert _interrupted("jaxalign.harness", arguments, tmp_path) == "interrupted."
