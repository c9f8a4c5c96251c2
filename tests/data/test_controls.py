"""Controls by hand."""

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

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


@pytest.mark.slow
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


def passages(**texts):
    """Sentences of several passages."""
    flat = [(name, text) for name, own in texts.items() for text in own]
    return Stimuli(
        stimulus_id=[f"{name}.{i}" for i, (name, _) in enumerate(flat)],
        text=[text for _, text in flat],
        passage=[name for name, _ in flat],
        run=["r"] * len(flat),
        unit="sentence",
    )


def test_length_counts_words_and_letters():
    stimuli = parts("Alice", "was tired, so 2 of us left.", "...", "don't")
    expected = [[1, 5], [7, 3 + 5 + 2 + 1 + 2 + 2 + 4], [1, 0], [1, 4]]
    assert controls.length(stimuli).tolist() == expected


def test_sentence_length_and_position_by_hand():
    stimuli = passages(a=["one two.", "three.", "four five six."], b=["seven.", "eight nine."])
    assert controls.sentence_length(stimuli).tolist() == [[2], [1], [3], [1], [2]]
    first, second, third = np.eye(3).tolist()
    assert controls.sentence_position(stimuli).tolist() == [first, second, third, first, second]


@pytest.mark.parametrize("name", controls.OF_SENTENCES)
def test_words_have_no_place_in_a_sentence(name):
    stimuli = Stimuli(stimulus_id=["a"], text=["x"], passage=["p"], run=["r"], unit="word")
    with refused("control", name, "needs stimuli that are sentences; these are words"):
        controls.of_parts(name, stimuli, controls.Lexicon())


def gaussian(size, sigma):
    """Smoothing by hand: a truncated, normalised Gaussian, the sequence reflected at its ends."""
    reach = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    kernel /= kernel.sum()
    found = np.zeros((size, size))
    for row in range(size):
        for offset, weight in zip(range(-reach, reach + 1), kernel, strict=True):
            column = (row + offset) % (2 * size)
            found[row, min(column, 2 * size - 1 - column)] += weight
    return found


@pytest.mark.parametrize("sigma", [0.1, 1.0, 4.8])
def test_oasm_is_a_smoothed_identity_within_each_block(sigma):
    blocks = ["a"] * 7 + ["b"] * 12 + ["c"]
    found = controls.oasm(blocks, sigma)
    expected = np.zeros((20, 20))
    expected[:7, :7], expected[7:19, 7:19], expected[19, 19] = (
        gaussian(7, sigma),
        gaussian(12, sigma),
        1,
    )
    assert found.var(axis=0).mean() == pytest.approx(1.0)
    np.testing.assert_allclose(found / found[19, 19], expected, atol=1e-12)


def test_oasm_of_a_single_sample():
    assert controls.oasm(["a"], 1.0).tolist() == [[1.0]]


def test_every_control_is_of_stimuli_or_of_a_network():
    assert controls.DEFAULT == ("word_rate", "word_length", "position", "shifted", "untrained")
    for some in (
        controls.STIMULUS_CONTROLS,
        controls.DEFAULT,
        controls.UNTRAINED_CONTROLS,
        controls.WITHOUT_LAYERS,
        controls.PARTITION,
    ):
        assert set(some) < set(controls.CONTROLS)
    assert set(controls.OF_SENTENCES) < set(controls.STIMULUS_CONTROLS)
    assert set(controls.COUNTS) < set(controls.STIMULUS_CONTROLS)
    assert set(controls.Lexicon._fields) < set(controls.STIMULUS_CONTROLS)
    assert len(set(controls.CONTROLS)) == len(controls.CONTROLS)
    others = {*controls.Lexicon._fields, *controls.OF_IMAGES, *controls.OF_ANSWERS}
    own = set(controls.STIMULUS_CONTROLS) - others
    assert all(callable(getattr(controls, name)) for name in own)


def test_every_control_of_parts_has_a_finite_row_for_each(tmp_path):
    stimuli = passages(a=["The wug sat.", "It slept."], b=["A wug."])
    (tmp_path / "freq.csv").write_text("word,count\nwug,3\nit,10\n")
    (tmp_path / "glove.txt").write_text("wug 1 2\nsat 3 4\n")
    paths = {"frequency": tmp_path / "freq.csv", "word_vectors": tmp_path / "glove.txt"}
    lexicon = controls.read_lexicon(paths, stimuli)
    for name in set(controls.OF_TEXT):
        found = controls.of_parts(name, stimuli, lexicon)
        assert len(found) == 3 and np.isfinite(found).all(), name


def test_unknown_words_are_counted_and_named(tmp_path):
    stimuli = parts("a b c a", "d a - e f g, h")
    (tmp_path / "glove.txt").write_text("b 1 2\n")
    table = controls.read_lexicon({"word_vectors": tmp_path / "glove.txt"}, stimuli).word_vectors
    assert table is not None
    number, clause = controls.report_unknown(table, stimuli)
    assert number == 9
    assert clause == "9 of 10 words are not listed (7 different ones: a, c, d, e, f ...)"
    assert controls.report_unknown(table, parts("b b")) == (0, "0 of 2 words are not listed")
