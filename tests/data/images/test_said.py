"""Controls that are made of answers."""

import numpy as np
import pandas as pd
import pytest
from refusals import refused

from jaxalign.data.images import said

ANSWERS = pd.DataFrame(
    {
        "stimulus_id": ["b", "a", "c"],
        "answer": ["A dog.", "a Dog, a cat", "two cats"],
        "num_tokens": [3, 6, 2],
    }
)


def test_words_are_counted_in_the_order_of_the_stimuli():
    found = said.features("answer_words", ANSWERS, ["a", "b", "c"])
    # `a` and `dog` are in two answers each; the others in one.
    np.testing.assert_array_equal(found[:, :2], [[2, 1], [1, 1], [0, 0]])
    assert found.shape == (3, said.NUM_WORDS) and not found[:, 2:].any()


def test_most_frequent_words_are_kept():
    words = [f"w{i:04d}" for i in range(said.NUM_WORDS + 5)]
    found = said.bag([" ".join(words), " ".join(words), words[-1]])
    np.testing.assert_array_equal(found[2].nonzero()[0], [0])
    assert (found[0] == 1).all()


def test_length_is_of_tokens_words_and_letters():
    found = said.features("answer_length", ANSWERS, ["a", "b"])
    np.testing.assert_array_equal(found, [[6, 4, 12], [3, 2, 6]])


def test_an_instruction_alone_is_the_same_for_all():
    assert said.features("instruction_alone", None, ["a", "b"]).tolist() == [[1], [1]]


@pytest.mark.parametrize("name", ["answer_length", "answer_words"])
def test_without_an_answer_there_is_none(name):
    with refused(f"control {name} is made of answers, and nothing was answered"):
        said.features(name, None, ["a"])
    with refused("answers must be there for every image: 'd' has none"):
        said.features(name, ANSWERS, ["a", "d"])
