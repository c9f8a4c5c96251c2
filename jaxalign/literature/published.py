"""Figures that papers printed, from `third_party/`, as score rows and as properties of models."""

import json
import pathlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "third_party"
BRAIN = ("pereira2018", "blank2014", "wehbe2014")
BEHAVIOR = "futrell2018"
ROI = "language"
NORMALISED = "normalised pearson r"
ABSOLUTE = "abs pearson r"

# Columns of published rows that are not known, or do not apply.
_UNKNOWN = {
    "schema_version": rows_lib.SCHEMA_VERSION,
    "control_of": "",
    "layer": -1,  # the best one, which is not named
    "num_layers": 0,
    "subject": rows_lib.ALL,
    "folds_hash": "",
    "context": "",
    "pooling": "",
    "instruction": "",
    **rows_lib.UNKNOWN_READING,
    "num_units": 0,
    "ceiling_kind": "published",
    **{name: np.nan for name in ("ceiling", "ceiling_low", "ceiling_high", "signal_ceiling")},
    **{name: np.nan for name in ("r2", "alpha_median", "alpha_low_share", "alpha_high_share")},
    **{name: 0 for name in ("num_targets", "num_samples", "num_nan", "num_constant_features")},
}


def table(name: str) -> pd.DataFrame:
    """Return a published table as it is.

    Args:
      name: folder and file without suffix, such as "aw2024/models". Columns and units are in
        `third_party/README.md`.

    Returns:
      Its rows in their order. Columns of numbers are numbers, with NaN where none was published;
      others are text, with "".

    Raises:
      InputError: if the package was installed without `third_party/`, or there is no such table.
    """
    frame = pd.read_csv(_path(name), dtype=str, keep_default_na=False)
    for column in frame:
        numbers = pd.Series(pd.to_numeric(frame[column], errors="coerce"))
        if numbers.notna().any() and (numbers.notna() | (frame[column] == "")).all():
            frame[column] = numbers
    return frame


def _path(name: str) -> pathlib.Path:
    known = [x.relative_to(FOLDER).with_suffix("").as_posix() for x in FOLDER.glob("*/*.csv")]
    if not known:
        raise InputError(
            f"published figures must lie in {FOLDER}, beside the package, but are not there: they "
            "come with a checkout of jaxalign, not with an installed package; install it with "
            "pip install -e."
        )
    if name not in known:
        raise InputError(f"a published table must be one of {', '.join(sorted(known))}: {name!r}.")
    return FOLDER / f"{name}.csv"


def papers_behind(scored: Iterable[str]) -> list[str]:
    """Return the papers whose scores are among some rows, in the order of the alphabet.

    Args:
      scored: protocols of the rows; those that are not published do not count.
    """
    names = [x.removeprefix(rows_lib.PUBLISHED) for x in scored if x.startswith(rows_lib.PUBLISHED)]
    # "oota2025-fig2" and "oota2025-roi" are of one paper, and in one folder.
    return sorted({name.partition("-")[0] for name in names})


def tables_behind(scored: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Return all tables of the papers whose scores are among some rows, by name.

    Args:
      scored: protocols of the rows; those that are not published do not count.

    Raises:
      InputError: as `table`.
    """
    files = [x for paper in papers_behind(scored) for x in sorted((FOLDER / paper).glob("*.csv"))]
    found = [x.relative_to(FOLDER).with_suffix("").as_posix() for x in files]
    return {name: table(name) for name in found}


def score_rows(name: str) -> pd.DataFrame:
    """Return published scores in the schema of `io.rows`.

    There is one row for each model, data set, region and metric: `protocol` is "published:NAME",
    `layer` -1 (the best, which is not named), `subject` `io.rows.ALL`. `score` and `ceiling` are as
    published; of scores that were printed already divided by a ceiling that is 1. Lists over folds
    are empty, what is not known is NaN, and a number of something that is not known is 0.

    Args:
      name: one of `NAMES`.

    Raises:
      InputError: if the name is not known, or the figures are not there.
    """
    publication = _find(name)
    provenance = {
        "protocol": f"{rows_lib.PUBLISHED}{name}",
        "fingerprint": fingerprint(name),
        "git_commit": run_dir.git_commit(),
        "versions": json.dumps(run_dir.versions()),
    }
    lists = {column: [] for column in rows_lib.LISTS}
    return rows_lib.frame([_UNKNOWN | lists | provenance | row for row in publication.scores()])


def properties(name: str) -> pd.DataFrame:
    """Return published properties of models.

    Args:
      name: one of `NAMES`.

    Returns:
      Rows with the columns model, property, value (NaN of text), text ("" of numbers) and source;
      one for each property that was published. `num_parameters` is the size that the paper printed.

    Raises:
      InputError: if the name is not known, or the figures are not there.
    """
    models = _find(name).models()
    source = f"{rows_lib.PUBLISHED}{name}"
    found = []
    for row in models.to_dict("records"):
        for column in models.columns.drop("model"):
            value = row[column]
            text = value if isinstance(value, str) else ""
            if text or not isinstance(value, str) and not np.isnan(value):
                found.append(
                    {
                        "model": row["model"],
                        "property": column,
                        "value": np.nan if text else float(value),
                        "text": text,
                        "source": source,
                    }
                )
    return pd.DataFrame(found, columns=["model", "property", "value", "text", "source"])


def fingerprint(name: str) -> str:
    """Return what changes if any table of these figures does, 16 hexadecimal digits.

    Raises:
      InputError: if the name is not known, or the figures are not there.
    """
    return run_dir.hash_text("".join(run_dir.hash_file(_path(x)) for x in _find(name).tables))


def paper_hash(paper: str) -> str:
    """Return what changes if any table of a paper does, 16 hexadecimal digits."""
    files = sorted((FOLDER / paper).glob("*.csv"))
    return run_dir.hash_text("".join(x.name + run_dir.hash_file(x) for x in files))


def _find(name: str) -> "_Publication":
    if name not in _PUBLICATIONS:
        raise InputError(f"published figures must be one of {', '.join(NAMES)}, got {name!r}.")
    return _PUBLICATIONS[name]


class _Publication(NamedTuple):
    """Which tables there are, and how rows are made of them."""

    tables: tuple[str, ...]
    scores: Callable[[], list[dict]]
    models: Callable[[], pd.DataFrame]  # a column for each property


def _aw2024_scores() -> list[dict]:
    models = table("aw2024/models")
    ceilings = table("aw2024/noise_ceilings").set_index("dataset").ceiling
    return [
        {
            "dataset": dataset,
            "model": row["model"],
            "num_layers": row["num_layers"],
            "roi": ROI if dataset in BRAIN else "",
            "metric": "pearson_r" if dataset in BRAIN else ABSOLUTE,
            "score": row[dataset],
            "ceiling": ceilings[dataset],
        }
        for dataset in (*BRAIN, BEHAVIOR)
        for row in models.to_dict("records")
    ]


def _aw2024_models() -> pd.DataFrame:
    same = ["model", "family", "tuned", "base", "num_parameters", "num_layers", "nwp_loss"]
    found = table("aw2024/models").rename(columns={BEHAVIOR: "behavior"})
    return found.filter(items=[*same, "mmlu", "bbh", "behavior"])


def _later_scores() -> list[dict]:
    models = table("aw2024/later_models")
    return [
        {
            "dataset": "aw2024-later",  # which data it is of is not recorded
            "model": row["model"],
            "roi": ROI,
            "metric": metric,
            "score": row[column],
            "ceiling": ceiling,
        }
        for column, metric, ceiling in (
            ("linear_normalised", NORMALISED, 1.0),
            ("cka", "cka", np.nan),
            ("rsa", "rsa", np.nan),
        )
        for row in models.to_dict("records")
    ]


def _later_models() -> pd.DataFrame:
    columns = ["model", "family", "tuned", "base", "num_parameters"]
    return table("aw2024/later_models").filter(items=columns)


def _fig2_scores() -> list[dict]:
    return [
        {
            "dataset": "nsd",
            "model": row["model"],
            "roi": row["roi"],
            "metric": NORMALISED,
            "score": row["normalised_alignment"],
            "ceiling": 1.0,
        }
        for row in table("oota2025/fig2_digitised").to_dict("records")
    ]


def _roi_table() -> pd.DataFrame:
    """Name each feature set by its repository, and by its features where there are several."""
    found = table("oota2025/roi_scores")
    several = found.groupby("repository").features.transform("nunique") > 1
    kind = " " + found.features.str.removesuffix("_hidden_states")
    return found.assign(model=found.repository + kind.where(several, ""))


def _roi_scores() -> list[dict]:
    return [
        {
            "dataset": "nsd",
            "model": row["model"],
            "roi": row["roi"],
            "metric": row["metric"],
            "score": row["mean"],
            "r2": row["mean"] if row["metric"] == "r2" else np.nan,
        }
        for row in _roi_table().to_dict("records")
    ]


def _tuned(models: pd.DataFrame) -> pd.DataFrame:
    """Return which networks are tuned; of random weights, and where nobody says, nothing."""
    tuned = models.kind.map({"instruction-tuned": 1.0, "vision": 0.0, "image-text": 0.0})
    return models.assign(tuned=tuned).filter(items=["model", "tuned"]).drop_duplicates()


_PUBLICATIONS = {
    "aw2024": _Publication(
        ("aw2024/models", "aw2024/noise_ceilings"), _aw2024_scores, _aw2024_models
    ),
    "aw2024-later": _Publication(("aw2024/later_models",), _later_scores, _later_models),
    "oota2025-fig2": _Publication(
        ("oota2025/fig2_digitised",),
        _fig2_scores,
        lambda: _tuned(table("oota2025/fig2_digitised")),
    ),
    "oota2025-roi": _Publication(
        ("oota2025/roi_scores",), _roi_scores, lambda: _tuned(_roi_table())
    ),
}
NAMES = tuple(_PUBLICATIONS)
