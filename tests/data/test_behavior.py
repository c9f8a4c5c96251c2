"""Reading times: what is refused when they are built, and when they do not fit the stimuli."""

import numpy as np
import pytest
from refusals import refused

from jaxalign.data.schema import Behavior

TIMES = np.array([[300.0, 250.0], [310.0, np.nan], [np.nan, np.nan]])


def times(**changes):
    columns = {
        "stimulus_id": ["a", "b", "c"],
        "reading_time_ms": TIMES,
        "participant": ["p1", "p2"],
        "word_in_sentence": [1, 2, 3],
        "alignment": "published",
    }
    return Behavior(**columns | changes)


def means(**changes):
    return times(
        **{"reading_time_ms": TIMES[:, :1], "participant": ["mean"]}
        | {"num_participants": np.array([9, 8, 0])}
        | changes
    )


def test_its_length_is_the_number_of_words():
    assert len(times()) == len(means()) == 3


@pytest.mark.parametrize(
    "changes,parts",
    [
        ({"stimulus_id": ["a", "b"]}, ["stimulus_id must have 3 entries", "3 x 2, found 2"]),
        ({"word_in_sentence": [1]}, ["word_in_sentence must have 3 entries", "found 1"]),
        ({"participant": ["p1"]}, ["participant must have 2 entries", "found 1"]),
        ({"stimulus_id": ["a", "b", "a"]}, ["stimulus_id must be unique, found 'a' twice"]),
        ({"participant": ["p", "p"]}, ["participant must be unique, found 'p' twice"]),
        ({"participant": ["p", "mean"]}, ["'mean'", "must be the only column, found 2"]),
        ({"alignment": ""}, ["alignment must be named"]),
        ({"word_in_sentence": [1, 0, 1]}, ["word_in_sentence must be >= 1, found 0 for 'b'"]),
        ({"reading_time_ms": np.where(TIMES == 310, 0, TIMES)}, ["found 0.0 for 'b'", "'p1'"]),
        ({"reading_time_ms": np.where(TIMES == 310, np.inf, TIMES)}, ["found inf for 'b'"]),
        ({"reading_time_ms": np.where(TIMES == 250, np.nan, TIMES)}, ["'p2'", "only NaN"]),
        ({"reading_time_ms": TIMES[:, [0, 0]]}, ["two participants", "'p1' and 'p2'"]),
        ({"num_participants": np.array([1, 1, 1])}, ["num_participants", "found 3 beside 'p1'"]),
    ],
    ids=lambda x: str(x)[:40],
)
def test_what_is_refused(changes, parts):
    with refused("behavior:", *parts):
        times(**changes)


def test_counts_must_fit():
    with refused("num_participants must have 3 entries", "found 2 beside 'mean'"):
        means(num_participants=np.array([9, 8]))


def test_nothing_is_refused():
    empty = {"stimulus_id": [], "word_in_sentence": [], "reading_time_ms": np.empty((0, 2))}
    with refused("reading_time_ms must not be empty, found 0 x 2"):
        times(**empty)


def test_participants_with_one_time_each_may_agree():
    same = np.array([[300.0, 300.0], [np.nan, np.nan], [np.nan, np.nan]])
    assert times(reading_time_ms=same).reading_time_ms.shape == (3, 2)
