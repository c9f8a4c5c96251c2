"""Scores divided by published ceilings, from numbers worked out by hand."""

import numpy as np
import pytest

from jaxalign.core.solver import cv
from jaxalign.data.presentations import SignalToNoise
from jaxalign.data.schema import Responses
from jaxalign.literature import protocols
from jaxalign.results import normalized

NAN = float("nan")
RESPONSES = Responses(
    values=np.arange(12.0).reshape(3, 4) ** 2 + [0, 1, 2, 3],
    run=["test"] * 3,
    subject=["s1"] * 4,
    roi=["V1", "V1", "V1", "V2"],
    target=["a", "b", "c", "a"],
    units="z",
    stimulus_id=["x", "y", "z"],
)
RATIOS = SignalToNoise(
    ratio=np.array([2.0, 1.0, 0.0]),
    repeats=np.array([1, 3, 3]),
    stimulus_id=["x", "y", "z"],
    is_test=np.array([False, True, True]),
    subject="s1",
    roi=["V2", "V1", "V1"],
    target=["a", "b", "a"],
)


def test_ceilings_are_joined_by_name_and_count_the_trials_of_what_is_tested():
    found = normalized.published_roots([RATIOS], RESPONSES, ["y", "z"])
    np.testing.assert_allclose(found, [0, np.sqrt(3 / 4), NAN, np.sqrt(12 / 13)])
    every = normalized.published_roots([RATIOS], RESPONSES, ["x", "y", "z"])
    assert every[1] == pytest.approx(np.sqrt(1 / (1 + 5 / 9)))
    np.testing.assert_array_equal(RATIOS.tested, [3, 3])


def test_ratios_are_averaged_over_targets_that_have_one():
    score, ceiling = np.array([0.3, 0.4, 0.1, NAN]), np.array([0.6, 0.04, NAN, 0.9])
    protocol = protocols.find("oota2025")
    [first, second] = normalized.by_subject_and_roi(score, ceiling, RESPONSES, protocol)
    assert (first["normalized"], first["score"], first["ceiling"]) == (0.5, 0.3, 0.6)
    assert (first["num_targets"], first["num_below_floor"], first["num_undefined"]) == (3, 1, 1)
    assert np.isnan(second["normalized"]) and second["num_undefined"] == 1


def nested(r, inner):
    r = np.array(r, float)
    nothing = np.zeros_like(r)
    return cv.Nested(r, r**2, nothing, np.array(inner, float), *[nothing] * 3, *[nothing[:, 0]] * 3)


def test_layers_are_averaged_or_chosen_inside_the_training_data():
    layers = {
        0: nested([[0.1, 0.2, 0.3, 0.4]], [[0.5, 0.5, 0.0, 0.0]]),
        3: nested([[0.3, NAN, 0.9, 0.0]], [[0.0, 0.0, 0.5, 0.9]]),
    }
    mean = normalized.choose(layers, RESPONSES, protocols.find("oota2025"))
    np.testing.assert_allclose(mean.r, [[0.2, 0.2, 0.6, 0.2]])
    assert (mean.layer == normalized.MEAN_OF_LAYERS).all()
    # Of V1 the first layer, whose mean inner score is higher; of V2 the second.
    chosen = normalized.choose(layers, RESPONSES, protocols.find("jaxalign"))
    np.testing.assert_allclose(chosen.r, [[0.1, 0.2, 0.3, 0.0]])
    assert chosen.layer.tolist() == [[0, 0, 0, 1]]
