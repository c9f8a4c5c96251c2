"""Windows of parts, and which tokens are the part's, with two real tokenizers."""

from typing import NamedTuple

import hypothesis
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from parts import NUMBERS, words
from refusals import refused

from jaxalign.data.text import contexts, joining

settings = hypothesis.settings(max_examples=80, deadline=None, derandomize=True, database=None)


class Row(NamedTuple):
    """A part with its context, as tokens."""

    tokens: np.ndarray
    start: int
    stop: int


def rows_of(tokenizer, stimuli, context="none", max_length=512):
    passes = contexts.plan(tokenizer, stimuli, context, max_length=max_length, causal=False)
    reads = zip(passes.row, passes.start, passes.stop, strict=True)
    return [Row(passes.rows[row], int(start), int(stop)) for row, start, stop in reads]


def join(parts):
    joined = joining.join(parts, before=joining.english(parts))
    return joined.text, joined.start[-1]


def pieces(tokenizer, row):
    return [tokenizer.id_to_token(i) for i in row.tokens]


def written(ids, tokenizer):
    """Return the characters that WordPiece tokens stand for, lower case and without spaces."""
    return "".join(tokenizer.id_to_token(i).removeprefix("##") for i in ids)


def test_a_row_without_context_is_the_part_alone(minilm):
    rows = rows_of(minilm, words(*NUMBERS))
    for row, word in zip(rows, NUMBERS, strict=True):
        assert pieces(minilm, row) == ["[CLS]", word, "[SEP]"]
        assert (row.start, row.stop) == (1, 2)
        assert row.tokens.dtype == np.int32


def test_windows_by_hand(minilm):
    passage = ["p"] * 4 + ["q"] * 2
    rows = rows_of(minilm, words(*NUMBERS[:6], passage=passage), "window:3")
    found = [" ".join(pieces(minilm, row)[1:-1]) for row in rows]
    assert found == [
        "one",
        "one two",
        "one two three",
        "two three four",
        "five",
        "five six",
    ]
    assert [(row.start, row.stop) for row in rows] == [(n, n + 1) for n in (1, 2, 3, 3, 1, 2)]


@pytest.mark.slow
@settings
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 7))
def test_a_window_holds_the_parts_before_and_never_crosses_passages(minilm, sizes, size):
    passage = [f"p{i}" for i, n in enumerate(sizes) for _ in range(n)]
    text = [NUMBERS[i % len(NUMBERS)] for i in range(len(passage))]
    rows = rows_of(minilm, words(*text, passage=passage), f"window:{size}")
    for i, row in enumerate(rows):
        own = [j for j in range(i + 1) if passage[j] == passage[i] and j > i - size]
        assert pieces(minilm, row) == ["[CLS]", *(text[j] for j in own), "[SEP]"]
        assert (row.start, row.stop) == (len(own), len(own) + 1)


def test_a_passage_that_comes_back_begins_anew(minilm):
    rows = rows_of(minilm, words("one", "two", "three", passage=["p", "q", "p"]), "window:3")
    assert pieces(minilm, rows[2]) == ["[CLS]", "three", "[SEP]"]


def test_a_window_of_sentences(minilm):
    text = ("The girl ran.", "Why? No one knew.", "It rained.")
    row = rows_of(minilm, words(*text), "window:2")[2]
    assert minilm.decode(row.tokens.tolist()) == "why? no one knew. it rained."
    assert minilm.decode(row.tokens[row.start : row.stop].tolist()) == "it rained."


# Which tokens are the part's


def test_clitics_and_punctuation_are_attached():
    text = "I do n't know , Alice 's cat said : `` we 'll see ; wo n\u2019t we ? '' Yes ! I\u2019m"
    joined, start = join(text.split())
    assert joined == ("I don't know, Alice's cat said: ``we'll see; won\u2019t we?'' Yes! I\u2019m")
    assert joined[start:] == "I\u2019m"


@pytest.mark.parametrize(
    "parts, joined",
    [
        (["girl"], "girl"),
        (["'s"], "'s"),
        (["Alice", "'s"], "Alice's"),
        (["do", "n't"], "don't"),
        (["do", "not"], "do not"),
        (["the", "n'th"], "the n'th"),
        (["in", "1865", "."], "in 1865."),
        (["rock", "'", "roll"], "rock ' roll"),
        (["a", "-", "b"], "a - b"),
        (["Yes.", "No."], "Yes. No."),
    ],
)
def test_the_last_part_ends_the_text(parts, joined):
    text, start = join(parts)
    assert text == joined
    assert text[start:] == parts[-1]


@pytest.mark.parametrize(
    "text, own",
    [
        (["she", "is", "tired"], ["tired"]),
        (["she", "is", "unbelievably"], ["un", "##bel", "##ie", "##va", "##bly"]),
        (["tired", "."], ["."]),
        (["Alice", "'s"], ["'", "s"]),
        # No token begins where this part does: the one that it shares is its own too.
        (["do", "n't"], ["don", "'", "t"]),
        (["she", "said", '"Wait!"'], ['"', "wait", "!", '"']),
    ],
)
def test_the_tokens_of_a_part_by_hand(minilm, text, own):
    row = rows_of(minilm, words(*text), "window:5")[-1]
    assert pieces(minilm, row)[row.start : row.stop] == own
    assert row.stop == len(row.tokens) - 1


ASCII = "".join(map(chr, range(33, 127)))
PARTS = st.lists(
    st.one_of(
        st.text(ASCII, min_size=1, max_size=12),
        st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=9),
        st.sampled_from(["'s", "n't", "'ll", ".", ",", "?!", "don't", "1865", "3.14", "o'clock"]),
    ).filter(lambda x: "<s>" not in x and "</s>" not in x),
    min_size=1,
    max_size=6,
)


@pytest.mark.slow
@settings
@given(PARTS)
@example(["do", "n't", "stop"])
@example(["a", "'b", "'"])
def test_wordpiece_tokens_of_a_part_decode_to_it(minilm, text):
    joined, _ = join(text)
    row = rows_of(minilm, words(*text), f"window:{len(text)}")[-1]
    part = text[-1].lower()
    assert written(row.tokens[1:-1], minilm) == joined.lower().replace(" ", "")
    # All of the part, and no token that could be missed.
    assert written(row.tokens[row.start : row.stop], minilm).endswith(part)
    assert len(written(row.tokens[row.start + 1 : row.stop], minilm)) < len(part)
    if joined.endswith(" " + text[-1]) or len(text) == 1:
        assert written(row.tokens[row.start : row.stop], minilm) == part


@pytest.mark.slow
@settings
@given(PARTS)
@example(["do", "n't", "stop"])
@example(["x"])
def test_llama2c_tokens_of_a_part_decode_to_it(llama2c, text):
    joined, _ = join(text)
    row = rows_of(llama2c, words(*text), f"window:{len(text)}")[-1]
    own = row.tokens[row.start : row.stop].tolist()
    assert row.tokens[0] == llama2c.token_to_id("<s>")
    assert llama2c.decode(row.tokens.tolist()) == joined
    assert llama2c.decode(own).endswith(text[-1])
    if joined.endswith(" " + text[-1]) or len(text) == 1:
        assert llama2c.decode(own) == text[-1]
    elif len(own) > 1:
        # One more would be missed.
        assert not llama2c.decode(own[1:]).endswith(text[-1])


@pytest.mark.parametrize(
    "text", ["na\u00efve", "\u65e5\u672c", "\u2018\u2019", "e\u0301", "\U0001f600"]
)
def test_llama2c_bytes_of_a_part_decode_to_it(llama2c, text):
    rows = rows_of(llama2c, words(text, "or", text, text), "window:4")
    for row, part in zip(rows, (text, "or", text, text), strict=True):
        assert llama2c.decode(row.tokens[row.start : row.stop].tolist()) == part


@pytest.mark.parametrize("text", ["\x07", "\u200b", "\u0301"])
def test_a_part_without_a_token_is_named(minilm, text):
    stimuli = words("one", text, "two")
    for context in ("none", "window:2"):
        with refused("every part must have a token", "stimulus 'w1'"):
            rows_of(minilm, stimuli, context)


def test_a_row_that_is_too_long_is_named(minilm):
    stimuli = words(*NUMBERS)
    # Four words, [CLS] and [SEP].
    assert len(rows_of(minilm, stimuli, "window:4", max_length=6)) == len(NUMBERS)
    with refused("model's 5 tokens", "stimulus 'w3' ('four') has 6", "shorter context"):
        rows_of(minilm, stimuli, "window:4", max_length=5)
