"""Weights of tokens: against loops over parts, and each token of a text counted once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from parts import words
from refusals import refused

from jaxalign.data.text import contexts, joining, readouts
from jaxalign.data.text.passes import Counts, Passes, Predicted
from jaxalign.data.text.prompts import Frame

TEXT = (
    'Once upon a time , there lived "Boar" in 1865 ; he did n\'t eat caf\u00e9s . The end'.split()
)


@st.composite
def passes(draw):
    """Rows with parts anywhere in them."""
    lengths = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    rows = [np.arange(n, dtype=np.int32) for n in lengths]
    reads = []
    for _ in range(draw(st.integers(1, 12))):
        row = draw(st.integers(0, len(rows) - 1))
        start = draw(st.integers(0, lengths[row] - 1))
        stop = draw(st.integers(start + 1, lengths[row]))
        lead = draw(st.integers(0, stop))
        length = draw(st.integers(stop, lengths[row]))
        reads.append((row, start, stop, lead, 0 < lead < stop, length))
    row, start, stop, lead, defined, length = map(np.array, zip(*reads, strict=True))
    counts = Counts(passes=len(rows))
    complete = np.ones(len(row), bool)
    predicted = Predicted(row, lead, stop, defined)
    return Passes(rows, row, start, stop, predicted, length, complete, counts)


def dense(weights, plan):
    """Return [part, row, token]."""
    found = np.zeros((len(plan.row), len(plan.rows), max(map(len, plan.rows))))
    assert len(weights.indptr) == len(plan.rows) + 1 and weights.indptr[0] == 0
    for r in range(len(plan.rows)):
        for e in range(weights.indptr[r], weights.indptr[r + 1]):
            found[weights.part[e], r, weights.token[e]] += weights.weight[e]
    assert weights.indptr[-1] == len(weights.part) == len(weights.token) == len(weights.weight)
    return found


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(passes(), st.sampled_from(readouts.POOLINGS))
def test_poolings_are_what_they_say(plan, pooling):
    found = dense(readouts.pool(plan, pooling), plan)
    expected = np.zeros_like(found)
    for i in range(len(plan.row)):
        own = range(plan.start[i], plan.stop[i])
        if pooling == "mean_all":
            own = range(plan.length[i])
        own = {"first": own[:1], "last": own[-1:]}.get(pooling, own)
        for t in own:
            expected[i, plan.row[i], t] = 1 if pooling == "sum" else 1 / len(own)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(passes())
def test_surprisal_counts_from_the_lead(plan):
    weights, defined = readouts.surprisal(plan)
    found = dense(weights, plan)
    row, start, stop, expected_defined = plan.predicted
    np.testing.assert_array_equal(defined, expected_defined)
    for i in range(len(plan.row)):
        expected = np.zeros_like(found[i])
        if defined[i]:
            expected[row[i], start[i] : stop[i]] = 1
        np.testing.assert_array_equal(found[i], expected)
    assert (weights.token > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "llama2c"])
def test_every_token_of_a_story_counts_once(request, natural_stories, name):
    tokenizer = request.getfixturevalue(name)
    plan = contexts.plan(tokenizer, natural_stories, "accumulate", max_length=8000, causal=True)
    weights, defined = readouts.surprisal(plan)
    # GPT-2 has nothing before the first word; llama2.c's <s> is before every text.
    assert (~defined).sum() == (10 if name == "gpt2" else 0)
    for r, row in enumerate(plan.rows):
        entries = slice(weights.indptr[r], weights.indptr[r + 1])
        (members,) = np.nonzero(plan.row == r)
        begins = 1 if name == "llama2c" else plan.stop[members[0]]
        np.testing.assert_array_equal(weights.token[entries], np.arange(begins, len(row)))


SHARED = [
    (["do", "n't", "stop", "really", "?", "!"], 2, 1),
    (["wait", ".", ".", ".", "now"], 1, 2),
    (["he", "said", '"', "no", '"', "."], 1, 1),
    (["so", *["we", "do", "n't", "know", ",", "do", "n't", "we", "?", "!"] * 4], 12, 4),
]


@pytest.mark.parametrize("parts, num_shared, num_lost", SHARED)
@pytest.mark.parametrize("rule", ["accumulate", "accumulate:slide", "accumulate:restart"])
def test_tokens_of_several_parts_count_once(gpt2, rule, parts, num_shared, num_lost):
    """Over the parts all tokens of the text are predicted, each once and behind its own text."""
    stimuli = words(*parts)
    text = joining.join(parts, before=joining.english(parts)).text
    own = gpt2.encode(text).ids
    frame = Frame(bos="<|endoftext|>")
    room = 99 if rule == "accumulate" else len(own) // 2 + 4
    plan = contexts.plan(gpt2, stimuli, rule, max_length=room, causal=True, frame=frame)
    assert plan.counts.shared_tokens == num_shared
    weights, defined = readouts.surprisal(plan)
    seen = []
    for r, row in enumerate(plan.rows):
        for e in range(weights.indptr[r], weights.indptr[r + 1]):
            seen.append((weights.part[e], row[weights.token[e]], row[: weights.token[e]].tolist()))
    seen.sort(key=lambda x: (x[0], len(x[2])))
    assert [token for _, token, _ in seen] == own
    for t, (_, _, before) in enumerate(seen):
        assert before[0] == 50256 and before[1:] == own[t + 1 - len(before) : t]
    assert {part for part, _, _ in seen} == set(np.flatnonzero(defined))
    assert (~defined).sum() == num_lost


def test_a_space_that_is_a_token_counts_for_the_word_after_it(llama2c):
    """llama2.c's tokenizer has no token for a space and a digit."""
    plan = contexts.plan(
        llama2c, words("in", "1865", "we"), "accumulate", max_length=50, causal=True
    )
    row = [llama2c.id_to_token(i) for i in plan.rows[0]]
    _, start, stop, _ = plan.predicted
    assert row[start[1] : stop[1]] == [" ", "1", "8", "6", "5"]
    assert plan.start[1] == start[1] + 1


def test_a_word_alone_needs_something_before_it(gpt2, llama2c):
    plan = lambda tokenizer, **kwargs: contexts.plan(
        tokenizer, words(*TEXT), "none", max_length=50, causal=True, **kwargs
    )
    assert not readouts.surprisal(plan(gpt2)).defined.any()
    assert len(readouts.surprisal(plan(gpt2)).weights.token) == 0
    assert readouts.surprisal(plan(gpt2, frame=Frame(bos="<|endoftext|>"))).defined.all()
    assert readouts.surprisal(plan(gpt2, frame=Frame("Say: "))).defined.all()
    assert readouts.surprisal(plan(llama2c)).defined.all()


def test_mean_all_of_rows_that_lack_their_end_is_refused(gpt2, minilm):
    frame = Frame("", " Right?")
    for tokenizer, kwargs in ((gpt2, {"frame": frame}), (minilm, {})):
        plan = contexts.plan(
            tokenizer, words(*TEXT), "accumulate", max_length=90, causal=True, **kwargs
        )
        with refused("pooling mean_all must see whole rows"):
            readouts.pool(plan, "mean_all")
        readouts.pool(plan, "mean")
        alone = contexts.plan(
            tokenizer, words(*TEXT), "accumulate", max_length=90, causal=False, **kwargs
        )
        assert len(readouts.pool(alone, "mean_all").part) == alone.counts.tokens


def test_mean_all_of_a_shared_row_sees_what_the_part_sees(gpt2):
    plan = contexts.plan(gpt2, words(*TEXT), "accumulate", max_length=90, causal=True)
    assert plan.counts.passes < len(TEXT)
    found = dense(readouts.pool(plan, "mean_all"), plan)
    for i in range(len(TEXT)):
        np.testing.assert_allclose(found[i, plan.row[i], : plan.length[i]], 1 / plan.length[i])
    np.testing.assert_allclose(found.sum(axis=(1, 2)), 1, rtol=1e-5)
