"""Runs of the entry point in a process of its own, as users have them."""

import os
import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def call(config, workdir, *flags, timeout=300, is_long=False):
    """Run a configuration; `config` is a file of configs/, with an argument or without.

    What computes for long is compiled as for users: see conftest.py.
    """
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "jaxalign.main",
            f"--config={REPOSITORY / 'configs' / config}",
            f"--workdir={workdir}",
            *flags,
        ],
        env=os.environ | ({"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"} if is_long else {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def call_harness(folder, *arguments, timeout=400):
    """Run lm-evaluation-harness with our models in a folder of tasks, offline, without torch."""
    without_torch = REPOSITORY / "tests" / "harness" / "without_torch"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(without_torch), str(REPOSITORY)]),
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
    }
    return subprocess.run(
        [sys.executable, "-m", "jaxalign.harness", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
