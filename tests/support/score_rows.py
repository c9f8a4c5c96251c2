"""Score rows as the encode stage writes them, from a few numbers."""

import numpy as np
import pandas as pd

from jaxalign.io import rows as rows_lib

NAN = float("nan")


def row(model, subject, roi, layer, scores, inner_r2=None, **changes) -> dict:
    """Return a row whose score is the mean of its fold scores.

    Args:
      model: network or, with `control_of`, a control.
      subject: or "group".
      roi: region.
      layer: layer; 0 where the features have none.
      scores: held-out score of each fold.
      inner_r2: R2 on the inner splits of each fold; as the scores if not given.
      changes: other columns; `num_layers` is 2 if not given.
    """
    inner_r2 = scores if inner_r2 is None else inner_r2
    columns = {
        "schema_version": rows_lib.SCHEMA_VERSION,
        "dataset": "toy",
        "model": model,
        "control_of": "",
        "layer": layer,
        "num_layers": 2,
        "subject": subject,
        "roi": roi,
        "protocol": "nested-ridge",
        "folds_hash": "0123456789ab",
        "context": "window:10",
        "pooling": "mean",
        "instruction": "",
        **rows_lib.UNKNOWN_READING,
        "num_units": 64,
        "metric": "pearson_r",
        "score": float(np.mean(scores)),
        "ceiling": NAN,
        "ceiling_low": NAN,
        "ceiling_high": NAN,
        "fold_ceilings": [changes.get("ceiling", NAN)] * len(scores),
        "ceiling_kind": "split_half" if subject == "group" else "leave_one_subject_out",
        "signal_ceiling": NAN,
        "fold_scores": list(scores),
        "r2": float(np.mean(inner_r2)),
        "fold_r2": list(inner_r2),
        "fold_inner_r2": list(inner_r2),
        "alpha_median": 10.0,
        "fold_alphas": [10.0] * len(scores),
        "alpha_low_share": 0.0,
        "alpha_high_share": 0.0,
        "num_targets": 1,
        "num_samples": 30,
        "num_nan": int(np.isnan(scores).sum()),
        "num_constant_features": 0,
        "fingerprint": "0123456789abcdef",
        "git_commit": "",
        "versions": "{}",
    }
    assert set(changes) <= set(columns)
    return columns | changes


def frame(rows) -> pd.DataFrame:
    """Return the frame that `io.rows.read` gives of these rows."""
    return rows_lib.frame(list(rows))


def layers(model, subject, roi, scores, **changes) -> list[dict]:
    """Return a row per layer; each layer has one score, the same in both folds."""
    num_layers = len(scores) - 1
    return [
        row(model, subject, roi, layer, [x, x], **{"num_layers": num_layers} | changes)
        for layer, x in enumerate(scores)
    ]


# Scores of a network of three layers and of its controls; r of subjects s1, s2, s3 and the group.
TABLE = {
    ("net", "", "LATL"): [(0.10, 0.30, 0.20), (0.12, 0.35, 0.21), (0.08, 0.28, 0.25)],
    ("net", "", "LIFG"): [(0.05, 0.10, 0.15), (0.02, 0.08, 0.20), (0.06, 0.11, 0.10)],
    ("untrained", "net", "LATL"): [(0.10, 0.11, 0.12), (0.10, 0.09, 0.08), (0.05, 0.07, 0.06)],
    ("untrained", "net", "LIFG"): [(0.01, 0.02, 0.03), (0.04, 0.05, 0.06), (0.07, 0.08, 0.09)],
    ("word_rate", "net", "LATL"): [(0.15,), (0.25,), (0.20,)],
    ("word_rate", "net", "LIFG"): [(0.10,), (0.14,), (0.18,)],
}
GROUP = {
    ("net", "", "LATL"): (0.30, 0.60, 0.50),
    ("net", "", "LIFG"): (0.20, 0.25, 0.35),
    ("untrained", "net", "LATL"): (0.31, 0.29, 0.33),
    ("untrained", "net", "LIFG"): (0.05, 0.15, 0.10),
    ("word_rate", "net", "LATL"): (0.29,),
    ("word_rate", "net", "LIFG"): (0.40,),
}


def study(*, group: bool = True, rename=lambda name: name, **changes) -> pd.DataFrame:
    """Return the rows of `TABLE` and, unless left out, of `GROUP`.

    Args:
      group: whether the group's rows are there.
      rename: what models and ROIs are called.
      changes: columns of all rows; ceilings are .5 for subjects, .8 for the group if not given.
    """
    rows = []
    for (model, control_of, roi), subjects in TABLE.items():
        names = rename(model), rename(roi), rename(control_of)
        levels = [(f"s{i}", scores, 0.5) for i, scores in enumerate(subjects, start=1)]
        if group:
            levels.append(("group", GROUP[model, control_of, roi], 0.8))
        for subject, scores, ceiling in levels:
            columns = {"control_of": names[2], "ceiling": ceiling} | changes
            rows += layers(names[0], subject, names[1], scores, **columns)
    return frame(rows)
