"""Scores of single targets in finished runs: one labelled table, differences of models, images."""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxalign.data.formats import grids, npz
from jaxalign.data.formats.grids import Grid
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.place import Place
from jaxalign.results import finished

TARGETS, GRIDS = "targets.parquet", "grids.npz"  # of an artefact of the stage encode
TESTED = ("p", "p_fdr", "p_max", "orders", "num_orders")
# What scores must share to be compared.
SAME = ["dataset", "instruction", "protocol", "folds_hash"]
# How a model was scored: what tests must share with scores.
WAY = ["dataset", "context", "pooling", "instruction", *rows_lib.READING, "protocol", "folds_hash"]
PLACE = ["subject", "roi", "target"]


class Tables(NamedTuple):
    """What runs hold of targets.

    Attributes:
      targets: a row for each network or control and target, in the columns of `io.rows.TARGETS`
        and those of `TESTED`, NaN and "" where nothing was tested. `name` is the model, with what
        tells it apart where it was scored in several ways on a data set; of a control "KIND of
        MODEL".
      grids: images of the subjects of each data set; () where its responses come from none.
      layer_names: what each layer is called, by the fingerprint of scores.
    """

    targets: pd.DataFrame
    grids: Mapping[str, Sequence[Grid]]
    layer_names: Mapping[str, Mapping[int, str]]


def read(workdirs: Sequence[Place]) -> Tables:
    """Read what finished runs hold of targets.

    Of a work directory with a report these are the scores that it shows, else all that are
    finished.

    Raises:
      InputError: if a directory holds none, a file is damaged or of another version, or the same
        scores come twice.
    """
    scores, tests, names = [], [], {}
    images: dict[str, Sequence[Grid]] = {}
    for workdir in workdirs:
        kinds = folders(workdir)
        if "scores" not in kinds.values():
            raise InputError(
                f"workdir {workdir} must hold finished scores of the stage encode: found none."
            )
        for folder, kind in kinds.items():
            if kind == "significance":
                tests.append(_table(folder / TARGETS))
            if kind != "scores":
                continue
            scores.append(_table(folder / TARGETS))
            rows = rows_lib.read(folder / finished.ROWS)
            named = rows[["layer", "layer_name"]].drop_duplicates()
            names[folder.name] = dict(zip(named.layer.tolist(), named.layer_name, strict=True))
            if (folder / GRIDS).exists():
                run_dir.check_whole(folder / GRIDS)
                stored = npz.read(folder / GRIDS, lambda file: {x: file[x] for x in file.files})
                images[str(scores[-1].dataset.iloc[0])] = grids.from_arrays(stored)
    targets = pd.concat(scores, ignore_index=True)
    models_first = np.argsort(targets.control_of != "", kind="stable")
    targets = targets.iloc[models_first].reset_index(drop=True)
    if targets.duplicated(["dataset", "model", "control_of", "fingerprint", *PLACE]).any():
        raise InputError("runs must differ: the same scores of targets come twice.")
    return Tables(_with_tests(_named(targets), tests), images, names)


def folders(workdir: Place) -> dict[Place, str]:
    """Return the kind of each finished artefact of the stage encode, of a report its inputs.

    They come in the order of the report, or by the names of models: hashes say nothing to readers.
    """
    is_done = lambda folder: run_dir.marker(folder).get("fingerprint") == folder.name
    every = [x for x in (workdir / "encode").glob("*") if is_done(x)]
    settings = {x: _settings(x) for x in every}
    report = workdir / finished.REPORT
    if run_dir.marker(report):
        shown = [x["fingerprint"] for x in _settings(report)["inputs"]]
        every = sorted((x for x in every if x.name in shown), key=lambda x: shown.index(x.name))
    else:
        every.sort(key=lambda x: (str(settings[x].get("model", "")), x.name))
    return {x: settings[x]["kind"] for x in every}


def _settings(folder: Place) -> dict:
    return json.loads((folder / "settings.json").read_text(encoding="utf-8"))


def _named(targets: pd.DataFrame) -> pd.DataFrame:
    """Tell apart what was scored in several ways, by the first digits of its fingerprint."""
    of = np.where(targets.control_of == "", "", " of " + targets.control_of)
    name = targets.model + of
    ways = targets.fingerprint.groupby([targets.dataset, name]).transform("nunique")
    return targets.assign(name=name + np.where(ways > 1, " " + targets.fingerprint.str[:6], ""))


def _table(path: Place) -> pd.DataFrame:
    if not path.exists():
        raise InputError(
            f"{path} is missing: scores of this run are of an earlier version of jaxalign, which "
            "kept none of targets; run it again."
        )
    run_dir.check_whole(path)
    return rows_lib.read(path)


def _with_tests(targets: pd.DataFrame, tests: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put p beside the scores that were tested in the same way, on the same folds."""
    if not tests:
        nothing = {x: "" if x == "orders" else 0 if x == "num_orders" else np.nan for x in TESTED}
        return targets.assign(**nothing)
    key = [*WAY, "model", "control_of", *PLACE]
    # Of several tests of the same scores that of the most orders counts.
    tested = pd.concat(tests, ignore_index=True).sort_values("num_orders", kind="stable")
    tested = tested.drop_duplicates(key, keep="last")[[*key, *TESTED]]
    found = targets.merge(tested, on=key, how="left", validate="many_to_one")
    return found.assign(
        orders=found.orders.fillna(""), num_orders=found.num_orders.fillna(0).astype(int)
    )


def differences(targets: pd.DataFrame, minus: str = "") -> pd.DataFrame:
    """Return differences of the scores of models, target by target.

    Models are compared on one data set, asked the same, under one protocol and on the same folds;
    what differs in this is in no row.

    Args:
      targets: see `Tables`.
      minus: name of a model, or kind of control, that is taken from every model; "": every pair of
        models, the first of them first.

    Returns:
      Columns of `SAME` and `PLACE`, `name`, `minus` and `difference` of scores, NaN where one of
      them is.

    Raises:
      InputError: if nothing is called so, or can be taken from a model.
    """
    if minus and minus not in {*targets.model, *targets.name}:
        known = ", ".join(dict.fromkeys(targets.model))
        raise InputError(f"minus must be among {known}, got {minus!r}.")
    parts = []
    every: Any
    for _, every in targets.groupby(SAME, sort=False):
        part = every[every.control_of == ""]
        model = dict(zip(part.name, part.model, strict=True))
        pairs, others = list(itertools.combinations(model, 2)), part
        if minus:
            others = every[(every.model == minus) | (every.name == minus)]
            of = dict(zip(others.name, others.control_of, strict=True))
            # A control stands beside its own model.
            pairs = [(a, b) for a in model for b in of if a != b and of[b] in ("", model[a])]
        for first, second in pairs:
            both = part[part.name == first][[*SAME, *PLACE, "name", "score"]].merge(
                others[others.name == second][[*PLACE, "score"]],
                on=PLACE,
                suffixes=("", "_other"),
                validate="one_to_one",
            )
            both = both.assign(minus=second, difference=both.score - both.score_other)
            parts.append(both.drop(columns=["score", "score_other"]))
    if minus and not parts:
        raise InputError(
            f"minus must be scored on the same data set and folds as another model, under the same "
            f"protocol: {minus!r} is not."
        )
    if not parts:
        return pd.DataFrame(columns=[*SAME, *PLACE, "name", "minus", "difference"])
    return pd.concat(parts, ignore_index=True)
