"""Runs that are killed, damaged and started again, until they end as an undisturbed one does.

    PYTHONPATH=. JAX_PLATFORMS=cpu python tests/support/kills.py --kills=200 --folder=FOLDER

A small run (extraction and encoding) is disturbed at random moments: SIGKILL, SIGTERM and SIGUSR2,
two runs at once in one folder, files that are cut off or of which a bit is flipped, and a disk that
is full, where one can be mounted. Nothing is repaired by hand: the same command is given again.
What happened is written as JSON.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time
import traceback

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import small

# Imported before processes are made, which then begin at once; none of it starts JAX's backend.
from jaxalign import (
    main,
    runner,  # noqa: F401
)
from jaxalign.stages import encode, extract  # noqa: F401

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2)
# What an end may be: a signal (it may come when all is done), or no space.
ENDS = {
    signal.SIGKILL: (-signal.SIGKILL, 0),
    # Before the program listens they end it as they end any other.
    signal.SIGTERM: (143, -signal.SIGTERM, 0),
    signal.SIGUSR2: (143, -signal.SIGUSR2, 0),
}
WHAT_BREAKS = (
    "extract/*/activations.zarr/c/*/*/*",
    "extract/*/stimulus_ids.json",
    "encode/*/*.npz",
    "encode/*/rows.parquet",
    "*/*/done.json",
)
FULL, ROOM = 64, 8192  # KiB of a disk that is full before the end, and of one that is not


CONFIG = """from jaxalign import config
from jaxalign.stages import encode, extract


def get_config():
    return config.pack(
        config.Common(dataset={data!r}),
        extract=extract.Config(
            models=({model!r},), untrained_seed=-1, shard_stimuli=4, batch_tokens=32
        ),
        encode=encode.Config(groups="passage", controls=("word_length",), num_folds=3),
    )
"""


class Trial:
    """One folder, and what has happened to it."""

    def __init__(self, folder: pathlib.Path, data: pathlib.Path, rng: random.Random):
        self.folder, self.rng = folder, rng
        self.arguments = [
            "main",
            f"--config={folder.parent / 'config.py'}",
            f"--workdir={folder}",
            f"--compilation_cache={folder.parent / 'compiled'}",
        ]
        self.counts = dict.fromkeys(("KILL", "TERM", "USR2", "pairs", "damaged", "full"), 0)

    def start(self) -> int:
        """Begin the command in a process of its own."""
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            log = os.open(self.log(os.getpid()), os.O_WRONLY | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            sys.argv = self.arguments
            main.cli()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def log(self, pid: int) -> pathlib.Path:
        return self.folder.parent / f"{self.folder.name}-{pid}.log"

    def end(self, pid: int, allowed: tuple[int, ...]) -> int:
        """Wait for a process, and check how it ended."""
        _, status = os.waitpid(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        log = self.log(pid)
        text = log.read_text(errors="replace") if log.exists() else ""
        assert code in allowed, (code, allowed, text[-3000:])
        assert "Traceback" not in text, text[-3000:]
        if code == 143:
            assert text.splitlines()[-1].startswith("stopped: what is finished is kept"), text
        log.unlink(missing_ok=True)
        return code

    def whole(self) -> float:
        """Run to the end; return the seconds it took."""
        start = time.monotonic()
        self.end(self.start(), (0,))
        return time.monotonic() - start

    def kill(self, pid: int, after_s: float) -> None:
        """Send one of the signals, and wait."""
        number = self.rng.choice(SIGNALS)
        time.sleep(after_s)
        os.kill(pid, number)
        self.end(pid, ENDS[number])
        self.counts[number.name[3:]] += 1

    def disturb(self, duration_s: float) -> None:
        """Begin, end at a random moment, and perhaps damage a file."""
        moment = lambda: self.rng.uniform(0.1, 1.0) * duration_s
        if self.rng.random() < 0.2:
            pair = self.start(), self.start()
            self.counts["pairs"] += 1
            for pid, after_s in zip(pair, sorted((moment(), moment())), strict=True):
                self.kill(pid, after_s / 2)
        else:
            self.kill(self.start(), moment())
        if self.rng.random() < 0.4:
            self.damage()

    def damage(self) -> None:
        """Cut off a file, or flip a bit of it."""
        files = [x for pattern in WHAT_BREAKS for x in self.folder.glob(pattern) if x.is_file()]
        files = [x for x in files if x.stat().st_size]
        if not files:
            return
        path = self.rng.choice(files)
        content = bytearray(path.read_bytes())
        place = self.rng.randrange(len(content))
        if self.rng.random() < 0.5:
            del content[place:]
        else:
            content[place] ^= 1 << self.rng.randrange(8)
        path.write_bytes(content)
        self.counts["damaged"] += 1

    def rows(self) -> dict[str, bytes]:
        found = self.folder.glob("encode/*/rows.parquet")
        return {str(x.relative_to(self.folder)): x.read_bytes() for x in found}


def mount(folder: pathlib.Path, size_kib: int, *options: str) -> bool:
    """Put a small disk at a folder, or change its size; False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    what = ",".join((f"size={size_kib}k", *options))
    command = ["mount", "-t", "tmpfs", "-o", what, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def fill(trial: Trial) -> None:
    """Run on a disk that is full before the end, which is one line; then give it room."""
    if not mount(trial.folder, FULL):
        return
    try:
        pid = trial.start()
        _, status = os.waitpid(pid, 0)
        text = trial.log(pid).read_text()
        assert os.waitstatus_to_exitcode(status) == 2, text[-3000:]
        assert text.splitlines()[-1].startswith("error: ") and "Traceback" not in text, text
        assert "space" in text.splitlines()[-1], text
        trial.counts["full"] += 1
        assert mount(trial.folder, ROOM, "remount")
        trial.whole()
        trial.kept = trial.rows()
    finally:
        subprocess.run(["umount", str(trial.folder)], check=True)


def run(folder: pathlib.Path, num_kills: int, seed: int, seconds: float) -> dict:
    """Disturb runs until there were so many kills or the time is over; return what happened."""
    rng, start = random.Random(seed), time.monotonic()
    data = small.write(folder / "data", num_passages=12)
    config = CONFIG.format(data=str(data), model=str(small.BERT))
    (folder / "config.py").write_text(config)
    undisturbed = Trial(folder / "undisturbed", data, rng)
    undisturbed.whole()  # compiles
    undisturbed.folder.rename(folder / "first")
    duration_s = undisturbed.whole()
    expected = undisturbed.rows()
    assert len(expected) == 2
    totals, number, kills = dict.fromkeys(undisturbed.counts, 0), 0, 0
    while kills < num_kills and time.monotonic() - start < seconds:
        trial = Trial(folder / f"trial{number}", data, rng)
        if number == 0:
            fill(trial)
            if trial.counts["full"]:
                assert trial.kept == expected
        for _ in range(rng.randint(2, 8)):
            trial.disturb(duration_s)
        trial.whole()
        assert trial.rows() == expected, trial.folder
        number += 1
        for name, count in trial.counts.items():
            totals[name] += count
        kills = sum(totals[x.name[3:]] for x in SIGNALS)
        sys.stderr.write(f"{kills} kills, {number} trials\n")
    return totals | {"kills": kills, "trials": number, "seconds_of_one": round(duration_s, 2)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    options = parser.parse_args()
    chosen = time.time_ns() % 2**31 if options.seed is None else options.seed
    sys.stderr.write(f"seed {chosen}\n")
    found = {"seed": chosen} | run(options.folder, options.kills, chosen, options.seconds)
    sys.stdout.write(f"{json.dumps(found)}\n")
