"""Missing labels are refused with their number and place, wherever labels are given."""

import numpy as np
import pandas as pd
import pytest
from refusals import refused
from sklearn.model_selection import GroupKFold

import jaxalign
from jaxalign.data import labels
from jaxalign.data.schema import Responses, Stimuli
from jaxalign.estimators import NestedRidgeCV

LOST = "must name every", "but 2 of 6 are missing", "the first at 1"


@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA, pd.NaT, "", " ", "nan"])
def test_what_is_missing(nothing):
    given = ["a", nothing, "NA", nothing, "None", 3]
    assert labels.missing(given).tolist() == [False, True, False, True, False, False]
    with refused("runs " + LOST[0] + " sample", *LOST[1:]):
        labels.refuse_missing("runs", given, "sample")


def test_ids_may_be_words():
    assert not labels.missing(["nan", "NaN"], may_be_nan=True).any()
    assert not labels.missing(np.arange(3)).any()
    assert labels.missing(np.array([1.0, np.nan])).tolist() == [False, True]


@pytest.mark.parametrize("name", ["groups", "runs", "subjects", "targets"])
def test_of_arrays(rng, name):
    given = [1.0, np.nan, 2.0, np.nan, 3.0, 3.0]
    with refused(name, *LOST):
        jaxalign.score_arrays(rng.normal(size=(6, 2)), rng.normal(size=(6, 6)), **{name: given})


@pytest.mark.parametrize("name", ["groups", "alpha_per_target"])
def test_of_estimators(rng, name):
    given = ["a", None, "b", None, "c", "c"]
    settings = {"alpha_per_target": given} if name == "alpha_per_target" else {}
    with refused(name, *LOST):
        NestedRidgeCV([1.0], outer_cv=GroupKFold(3), **settings).fit(
            rng.normal(size=(6, 2)),
            rng.normal(size=(6, 6)),
            groups=given if name == "groups" else np.arange(6),
        )


@pytest.mark.parametrize("name", ["run", "subject", "roi", "target"])
def test_of_files(rng, tmp_path, name):
    """A float NaN would become a run called "nan"."""
    arrays = {x: [f"{x}{i}" for i in range(6)] for x in ("subject", "roi", "target", "stimulus_id")}
    arrays |= {"run": ["r"] * 6, "units": "z", "values": rng.normal(size=(6, 6))}
    np.savez(tmp_path / "r.npz", **arrays | {name: np.array([1, np.nan, 2, np.nan, 3, 3])})
    with refused(tmp_path / "r.npz", name, *LOST):
        Responses.load(tmp_path / "r.npz")
    with refused(f"responses: {name}", *LOST):
        Responses(**arrays | {name: ["1", "", "2", "nan", "3", "3"]})


@pytest.mark.parametrize("name", ["passage", "run"])
def test_of_stimuli(name):
    columns = {x: [f"{x}{i}" for i in range(6)] for x in ("stimulus_id", "text", "passage", "run")}
    with refused(f"stimuli: {name}", *LOST):
        Stimuli(unit="sentence", **columns | {name: ["a", "", "a", "", "b", "b"]})
