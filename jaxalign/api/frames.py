"""Scores of finished runs as one table."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxalign.core.scores.alignment import AlignmentScore
from jaxalign.errors import InputError
from jaxalign.io import place
from jaxalign.io import rows as rows_lib
from jaxalign.io.place import Place
from jaxalign.literature import published
from jaxalign.results import finished

Path = str | os.PathLike[str]

STAGES = ("collect", "encode")
# What tells rows of one artefact apart.
KEY = ["fingerprint", "model", "control_of", "layer", "subject", "roi", "dataset", "metric"]
KEY += ["instruction", "protocol"]


def load_scores(workdirs: Path | Sequence[Path]) -> pd.DataFrame:
    """Read the score rows of finished runs.

    Of a work directory with a report, these are the rows that the report shows; of one without,
    those of every finished artefact, whatever the settings were: `fingerprint` tells them apart.

    Args:
      workdirs: a work directory or several. A Parquet file of score rows may stand for one, and so
        may "published:aw2024" or another name of `jaxalign/literature/published.py`.

    Returns:
      One row per model, layer, subject and ROI, with the columns of `jaxalign/io/rows.py`; a
      control's `control_of` names the model it stands beside. NaN is undefined. Reading times and
      losses are not among them: `behavior/scores.parquet` and `next_word/scores.parquet` have
      tables of their own.

    Raises:
      InputError: if a directory is not there or holds no score rows, a file is damaged or of
        another version, or rows come twice.

    Example:
      >>> import jaxalign
      >>> _ = jaxalign.score("path/to/model", "path/to/data", "jaxalign", controls=["position"])
      >>> scores = jaxalign.load_scores("runs/python")
      >>> best = scores[scores.control_of == ""].groupby(["model", "roi"]).score.max()
      >>> best.index.tolist()
      [('bert', 'A'), ('bert', 'B')]
    """
    given = [workdirs] if isinstance(workdirs, (str, os.PathLike)) else list(workdirs)
    if not given:
        raise InputError("workdirs must name at least one work directory, got none.")
    if len({place.at(x).resolve() for x in given}) < len(given):
        raise InputError(f"workdirs must differ, got {', '.join(map(str, given))}.")
    return once(pd.concat([_read(x) for x in given], ignore_index=True))


def per_target(found: Any) -> pd.DataFrame:
    """Return what a score has for each target, with the labels of targets.

    Args:
      found: what `score_arrays` or `score` returns.

    Returns:
      A row for each target: `subject`, `roi`, `target` ("" where none was given), `score` (raw,
      over folds), `r2`, `ceiling`, `layer` (that of most folds, of equals the first; -1: the mean
      of all) and `alpha` (median over folds). NaN is undefined. Of a mean over data sets, and of
      what fits nothing, layer is 0, and what there is not is NaN.

    Raises:
      InputError: if it is no score.

    Example:
      >>> import jaxalign
      >>> found = jaxalign.score("path/to/model", "path/to/data", "jaxalign", controls=["position"])
      >>> jaxalign.per_target(found).columns[:4].tolist()
      ['subject', 'roi', 'target', 'score']
    """
    whole = getattr(found, "alignment", found)
    if not isinstance(whole, AlignmentScore):
        raise InputError(
            f"per_target needs what score or score_arrays returns, got {type(found).__name__}."
        )
    num = len(whole.per_target)
    labels = (whole.target_subjects, whole.target_rois, whole.target_names)
    texts = [list(map(str, x)) if len(x) else [""] * num for x in labels]
    wide = lambda x, fill: x if x.shape[-1] == num else np.full((*x.shape[:-1], num), fill)
    chosen = wide(whole.layers, 0)
    votes = np.stack([(chosen == x).sum(axis=0) for x in np.unique(chosen)])
    alphas = wide(whole.alphas, np.nan)
    return pd.DataFrame(
        dict(zip(("subject", "roi", "target"), texts, strict=True))
        | {
            "score": whole.per_target,
            "r2": wide(whole.r2_per_target, np.nan),
            "ceiling": wide(whole.ceiling_per_target, np.nan),
            "layer": np.unique(chosen)[votes.argmax(axis=0)],
            "alpha": np.median(alphas.reshape(-1, num), axis=0),
        }
    )


def once(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of which none is there twice.

    Raises:
      InputError: if one is.
    """
    twice = rows.duplicated(KEY)
    if twice.any():
        row = rows[twice].iloc[0]
        raise InputError(
            f"scores must be there once, but those of {row.model} on {row.dataset} with "
            f"fingerprint {row.fingerprint} come again."
        )
    return rows


def _read(path: Path) -> pd.DataFrame:
    if str(path).startswith(rows_lib.PUBLISHED):
        return published.score_rows(str(path).removeprefix(rows_lib.PUBLISHED))
    return pd.concat([rows_lib.read(x) for x in _files(place.at(path))], ignore_index=True)


def _files(path: Place) -> list[Place]:
    """Return the files of score rows of a work directory, or the file itself."""
    if path.is_file():
        return [path]
    found = finished.files(path, STAGES)
    if not found:
        if not path.is_dir():
            raise InputError(f"workdir must be a directory: there is none at {str(path)!r}.")
        inside = ", ".join(sorted(x.name for x in path.iterdir() if x.is_dir())) or "nothing"
        raise InputError(
            f"workdir {path} must hold score rows, in {finished.REPORT}/{finished.TABLE} or in "
            f"finished artefacts of {' or '.join(STAGES)}: found {inside}."
        )
    return found
