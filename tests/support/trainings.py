"""Score rows along trainings, and the table of their models, with planted gains."""

import numpy as np
import pandas as pd
from score_rows import frame, row

ARMS, SEEDS, STEPS, FOLDS = ("instruction", "shuffled", "frozen"), (0, 1, 2), (0, 1, 4), 6
GAIN = {"instruction": 0.05, "shuffled": 0.05, "frozen": 0.0}  # for each doubling of steps


def planted(gain=GAIN, seeds=SEEDS):
    """Return score rows of two people and two regions, the table of models, and scores by model."""
    rng = np.random.default_rng(0)
    shared = {(p, r): 0.2 + 0.1 * rng.normal(size=FOLDS) for p in "ab" for r in ("A", "B")}
    rows, tuned, scores = [], [], {}
    for arm in ARMS:
        for seed in seeds:
            for step in STEPS:
                name = f"net+{arm}-s{seed}-step{step}"
                moved = gain[arm] * np.log2(1 + step)
                noise = (arm != "frozen") * (step > 0) * 0.002 * rng.normal(size=FOLDS)
                folds = {key: x + moved + noise for key, x in shared.items()}
                scores[arm, seed, step] = np.mean(list(folds.values()), axis=0)
                rows += [row(name, *key, 1, x.tolist()) for key, x in folds.items()]
                tuned.append(
                    {
                        "model": name,
                        "base": "net",
                        "arm": arm,
                        "training_seed": seed,
                        "step": step,
                        "tokens": 100 * step,
                        "target_tokens": 40 * step + seed,
                        "loss": np.nan if not step else 3.0 - 0.1 * step,
                        "fingerprint": "",
                    }
                )
    return frame(rows), pd.DataFrame(tuned), scores
