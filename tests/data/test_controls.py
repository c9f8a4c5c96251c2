"""Controls by hand."""

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxalign.data import controls
from jaxalign.data.schema import Stimuli

settings = hypothesis.settings(max_examples=80, deadline=None, derandomize=True, database=None)


def parts(*text):
    names = [str(i) for i in range(len(text))]
    return Stimuli(stimulus_id=names, text=text, passage=names, run=names, unit="sentence")


def test_word_rate_counts_words():
    stimuli = parts("Alice", "was beginning to get very tired.", "don't", " a\tb \n c  ", "- 3")
    assert controls.word_rate(stimuli).tolist() == [[1.0], [6.0], [1.0], [3.0], [2.0]]


def test_word_length_is_the_mean_number_of_letters_and_digits():
    stimuli = parts("Alice", "was tired.", "don't", "(a) 42,", "-- yes", "...", "\u00e9t\u00e9!")
    expected = [[5.0], [(3 + 5) / 2], [4.0], [(1 + 2) / 2], [(0 + 3) / 2], [0.0], [3.0]]
    assert controls.word_length(stimuli).tolist() == expected


def test_position_by_hand():
    found = controls.position(["a", "b", "a", "c", "b", "a", "a", "a"])
    place = [-1.0, -1.0, -0.5, 0.0, 1.0, 0.0, 0.5, 1.0]
    np.testing.assert_array_equal(found, [[x, x * x] for x in place])


@settings
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30))
def test_position_runs_from_minus_one_to_one_in_each_group(groups):
    place, square = controls.position(groups).T
    assert (np.abs(place) <= 1).all()
    np.testing.assert_array_equal(square, place**2)
    for name in set(groups):
        own = place[[x == name for x in groups]]
        # Centred, in even steps, from end to end.
        assert own.sum() == pytest.approx(0.0, abs=1e-12)
        np.testing.assert_allclose(np.diff(own), 2 / (len(own) - 1) if len(own) > 1 else [])
        assert (own[0], own[-1]) == ((-1.0, 1.0) if len(own) > 1 else (0.0, 0.0))


def test_every_control_is_of_stimuli_or_of_a_network():
    assert set(controls.STIMULUS_CONTROLS) < set(controls.DEFAULT) < set(controls.CONTROLS)
    assert set(controls.UNTRAINED_CONTROLS) < set(controls.CONTROLS)
    assert len(set(controls.CONTROLS)) == len(controls.CONTROLS)
    assert all(callable(getattr(controls, name)) for name in controls.STIMULUS_CONTROLS)
