"""Items that come twice."""

import itertools

import pytest

from jaxalign.data.formats import tables


@pytest.mark.parametrize(
    "items, repeated",
    [([], None), (["a"], None), (list("abc"), None), (list("abcba"), "b"), ([(1, 2)] * 2, (1, 2))],
)
def test_the_first_repeated_item(items, repeated):
    assert tables.first_repeated(items) == repeated


def test_first_repeated_agrees_with_counting():
    for items in itertools.product("ab", repeat=3):
        twice = [x for i, x in enumerate(items) if x in items[:i]]
        assert tables.first_repeated(items) == (twice[0] if twice else None)
