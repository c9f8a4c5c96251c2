"""Trainings that are killed and started again, until they end as an undisturbed one does.

    PYTHONPATH=. JAX_PLATFORMS=cpu python tests/support/tuning_kills.py --kills=20 --folder=FOLDER

A training of the small decoder, with a state after every step, is ended at random moments by
SIGKILL, SIGTERM and SIGUSR2, and the same command is given again. The curve of losses and the
weights of all models must be those of a training that nothing disturbed, bit for bit.
"""

import argparse
import csv
import json
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import kills
import small

# Imported before processes are made, which then begin at once; none of it starts JAX's backend.
from transformers import PreTrainedTokenizerFast  # noqa: F401

from jaxalign.io import states  # noqa: F401
from jaxalign.stages import tune  # noqa: F401

CONFIG = """from jaxalign import config
from jaxalign.stages import tune


def get_config():
    return config.pack(
        config.Common(),
        tune=tune.Config(
            model={model!r},
            data={data!r},
            arms=("instruction",),
            seeds=(0,),
            checkpoints=(0, 3, 6),
            template="plain",
            max_length=32,
            batch=4,
            epochs={epochs},
            micro_batches=1,
            learning_rate=1e-2,
            save_every=1,
        ),
    )
"""
MEASURED = 6  # columns of the log; the others are times


class Trial(kills.Trial):
    """One folder, in which one training is made."""

    def rows(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for log in self.folder.glob("tune/*/log.csv"):
            with open(log) as file:
                found["log"] = [line[:MEASURED] for line in csv.reader(file)]
        for file in self.folder.glob("tune/*/step-*/orbax/state/**/c/**/*"):
            if file.is_file():
                found[str(file.relative_to(self.folder))] = file.read_bytes()
        return found


def run(folder: pathlib.Path, num_kills: int, seed: int) -> dict:
    """Kill trainings until there were so many kills; return what happened."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    words = "the dog sat on a mat and saw red birds fly over old stone walls at dawn".split()
    text = lambda n: " ".join(rng.choices(words, k=n))
    rows = [{"instruction": text(3), "output": text(5)} for _ in range(16)]
    data = folder / "tasks.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    settings = {"model": str(small.LLAMA), "data": str(data), "epochs": 2.5}
    (folder / "config.py").write_text(CONFIG.format(**settings))
    undisturbed = Trial(folder / "undisturbed", data, rng)
    undisturbed.whole()  # compiles
    expected = undisturbed.rows()
    assert len(expected["log"]) == 11 and len(expected) > 20
    undisturbed.folder.rename(folder / "first")
    duration_s = undisturbed.whole()
    assert undisturbed.rows() == expected
    number, done = 0, dict.fromkeys(("KILL", "TERM", "USR2"), 0)
    while (left := num_kills - sum(done.values())) > 0:
        trial = Trial(folder / f"trial{number}", data, rng)
        for _ in range(min(rng.randint(2, 4), left)):
            trial.kill(trial.start(), rng.uniform(0.3, 1.0) * duration_s)
        trial.whole()
        assert trial.rows() == expected, trial.folder
        number += 1
        done = {name: count + trial.counts[name] for name, count in done.items()}
        sys.stderr.write(f"{sum(done.values())} kills, {number} trials\n")
    return done | {"kills": sum(done.values()), "trials": number, "seconds": round(duration_s, 2)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    options = parser.parse_args()
    chosen = time.time_ns() % 2**31 if options.seed is None else options.seed
    sys.stderr.write(f"seed {chosen}\n")
    sys.stdout.write(json.dumps({"seed": chosen} | run(options.folder, options.kills, chosen)))
