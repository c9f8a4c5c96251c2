"""Runs of the entry point in a process of its own, as users have them."""

import pathlib
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def call(config, workdir, *flags, timeout=300):
    """Run a configuration; `config` is a file of configs/, with an argument or without."""
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "jaxalign.main",
            f"--config={REPOSITORY / 'configs' / config}",
            f"--workdir={workdir}",
            *flags,
        ],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
