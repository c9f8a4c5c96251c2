"""Prefixes that one pass may share: the proof against tokenising every prefix."""

import json

import hypothesis
import numpy as np
import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from parts import words
from tokenizers import models, normalizers, pre_tokenizers

from jaxalign.data.text import contexts, joining, spans, tokenizer_files
from jaxalign.data.text.tokenizer_files import CL100K_PATTERN, QWEN_PATTERN

settings = hypothesis.settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    # The tokenizer is drawn once for all examples.
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)

BLOOM_PATTERN = next(x for x in spans._SPACE_PATTERNS if x.startswith(" ?[^("))


def with_step(tokenizer, **steps):
    """Return a copy with other steps; `None` takes a step out."""
    content = json.loads(tokenizer.to_str())
    for name, step in steps.items():
        content[name] = None if step is None else json.loads(step.__getstate__())
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def with_split(tokenizer, pattern, behavior="isolated"):
    split = pre_tokenizers.Split(tokenizers.Regex(pattern), behavior=behavior)
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return with_step(tokenizer, pre_tokenizer=pre_tokenizers.Sequence([split, bytes_only]))


def marked(llama2c):
    """Write spaces as SentencePiece does."""
    content = json.loads(llama2c.to_str())
    model, mark = content["model"], lambda piece: piece.replace(" ", "\u2581")
    model["vocab"] = {mark(piece): i for piece, i in model["vocab"].items()}
    model["merges"] = [[mark(a), mark(b)] for a, b in model["merges"]]
    content["normalizer"] = None
    return tokenizers.Tokenizer.from_str(json.dumps(content))


@pytest.fixture(
    params=["gpt2", "prefixed", "cl100k", "qwen", "bloom", "digits", "nfc"]
    + ["llama2c", "legacy", "metaspace", "split", "gemma", "minilm", "whitespace"]
)
def tokenizer(request):
    """Every kind of tokenizer whose work is known to be cut at spaces."""
    kind = request.param
    get = request.getfixturevalue
    if kind in ("gpt2", "llama2c", "minilm"):
        return get(kind)
    if kind == "whitespace":
        return with_step(get("minilm"), pre_tokenizer=pre_tokenizers.Whitespace())
    if kind in ("legacy", "metaspace", "split", "gemma"):
        replace = normalizers.Replace(" ", "\u2581")
        legacy = normalizers.Sequence([normalizers.Prepend("\u2581"), replace])
        steps = {
            "legacy": {"normalizer": legacy},
            "metaspace": {
                "pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
            },
            "split": {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="always")},
            "gemma": {
                "normalizer": replace,
                "pre_tokenizer": pre_tokenizers.Split(" ", "merged_with_previous"),
            },
        }
        return with_step(marked(get("llama2c")), **steps[kind])
    gpt2 = get("gpt2")
    patterns = {"cl100k": CL100K_PATTERN, "qwen": QWEN_PATTERN, "bloom": BLOOM_PATTERN}
    if kind in patterns:
        return with_split(gpt2, patterns[kind])
    if kind == "nfc":
        steps = [normalizers.NFKC(), normalizers.StripAccents(), normalizers.Lowercase()]
        return with_step(gpt2, normalizer=normalizers.Sequence(steps))
    if kind == "digits":
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation()]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False))
        return with_step(gpt2, pre_tokenizer=pre_tokenizers.Sequence(steps))
    return with_step(gpt2, pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True))


WORDS = st.one_of(
    st.sampled_from(
        ["the", "a", "n't", "'s", "do", ".", ",", "1865", "12", "3.14", "I", "x_", "tail's", '"So']
        + ["\u00e9t\u00e9", "e\u0301", "\u0301", "\u65e5\u672c", "\U0001f600", "\ufb01n", "\u0130"]
        + [
            " ",
            "  a",
            "a  ",
            "\n",
            "a\n",
            "\nb",
            "\u00a0",
            "two words",
            "\u3000",
            "we\u2019ll",
            "_",
        ]
    ),
    st.text(min_size=1, max_size=5),
)


def test_every_kind_is_known_to_be_cut(tokenizer):
    assert spans.cuts_at_spaces(tokenizer)


@pytest.mark.slow
@settings
@given(
    parts=st.lists(WORDS, min_size=1, max_size=14),
    english=st.booleans(),
    frame=st.sampled_from(
        [("", ""), ("Read: ", ""), ("", " !"), ("Say", "ing so"), ("a b ", " c")]
    ),
)
@example(parts=["do", "n't", "stop"], english=True, frame=("", ""))
@example(parts=["a", "b", " ", "c"], english=False, frame=("", ""))
def test_cutting_at_spaces_changes_nothing(tokenizer, parts, english, frame):
    """The quick proof gives for every prefix what tokenising it from its beginning gives."""
    joined = joining.join(parts, before=joining.english(parts) if english else ())
    quick, slow = (
        spans.find_prefixes(tokenizer, frame[0], joined, frame[1], cuttable=c)
        for c in (True, False)
    )
    np.testing.assert_array_equal(quick.count, slow.count)
    for a, b in zip(quick.tail, slow.tail, strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_proven_is_so(tokenizer):
    """Each prefix by itself begins the whole; those that do not are found."""
    text = "He said : \" I do n't know , Alice 's 1865 caf\u00e9 was n\u2019t there . \"".split()
    joined = joining.join(text, before=joining.english(text))
    found = spans.find_prefixes(tokenizer, "", joined, "", cuttable=True)
    whole = tokenizer.encode(joined.text, add_special_tokens=False)
    for i, count in enumerate(found.count):
        prefix = tokenizer.encode(joined.text[: joined.stop[i]], add_special_tokens=False)
        assert (count == len(prefix.ids)) == (whole.ids[: len(prefix.ids)] == prefix.ids)
        assert count in (-1, len(prefix.ids))
    assert (found.count >= 0).sum() >= len(text) - 3


def test_pieces_that_stand_in_for_tokens_are_cut_too():
    tokenizer = tokenizer_files.stand_in()
    assert spans.cuts_at_spaces(tokenizer)
    text = (
        'An extraordinary cat , do n\'t ( 1865 ) ! a  b \n c "unbelievably 3.14" \u00a0 e\u0301t .'
    )
    parts = 3 * text.split(" ")
    joined = joining.join(parts, before=joining.english(parts))
    quick, slow = (
        spans.find_prefixes(tokenizer, "Read: ", joined, " !", cuttable=c) for c in (True, False)
    )
    np.testing.assert_array_equal(quick.count, slow.count)
    assert {-1} < set(quick.count)
    for a, b in zip(quick.tail, slow.tail, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "llama2c", "minilm"])
def test_all_stories_are_proven_by_cuts(request, natural_stories, name):
    tokenizer = request.getfixturevalue(name)
    for story in sorted(set(natural_stories.passage)):
        text = [
            w
            for w, s in zip(natural_stories.text, natural_stories.passage, strict=True)
            if s == story
        ]
        joined = joining.join(text, before=joining.english(text))
        found = spans.find_prefixes(tokenizer, "", joined, "", cuttable=True)
        assert not found.searched
        assert (found.count > 0).all()
        some = range(0, len(text), 60)
        prefixes = tokenizer.encode_batch(
            [joined.text[: joined.stop[i]] for i in some], add_special_tokens=False
        )
        for i, prefix in zip(some, prefixes, strict=True):
            assert found.whole.ids[: found.count[i]].tolist() == prefix.ids


# Tokenizers made to break what a shared pass needs.


def character_bpe(*merges, **kwargs):
    alphabet = [*"abcdefghijklmnopqrstuvwxyz ", *(a + b for a, b in merges)]
    return tokenizers.Tokenizer(
        models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=list(merges), **kwargs)
    )


def across_words():
    return character_bpe(("e", " "), ("e ", "c"))


def by_what_follows():
    tokenizer = character_bpe()
    tokenizer.normalizer = normalizers.Replace(tokenizers.Regex("the(?= cat)"), "a")
    return tokenizer


def split_by_what_follows():
    tokenizer = character_bpe(("t", "h"), ("th", "e"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        tokenizers.Regex(r"the?(?! cat)|."), behavior="isolated"
    )
    return tokenizer


def with_a_token_of_two_words():
    tokenizer = character_bpe()
    tokenizer.add_tokens(["the cat"])
    return tokenizer


def marked_at_the_end():
    tokenizer = character_bpe()
    model = json.loads(tokenizer.to_str())
    model["model"]["end_of_word_suffix"] = "."
    model["model"]["vocab"] |= {c + ".": 27 + i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz")}
    return tokenizers.Tokenizer.from_str(json.dumps(model))


BREAKERS = [across_words, by_what_follows, split_by_what_follows, with_a_token_of_two_words]
BREAKERS.append(marked_at_the_end)


@pytest.mark.parametrize("make", BREAKERS, ids=lambda make: make.__name__)
@pytest.mark.parametrize("rule", ["accumulate", "window:4", "chunk:2-4", "accumulate:slide"])
def test_a_tokenizer_that_looks_ahead_is_caught(make, rule):
    tokenizer = make()
    stimuli = words("so", "the", "cat", "ran")
    passes = contexts.plan(tokenizer, stimuli, rule, max_length=100, causal=True)
    assert passes.counts.searched_texts == 1
    assert passes.counts.fallbacks >= 1
    for i, text in enumerate(["so", "so the", "so the cat", "so the cat ran"]):
        row, length = passes.rows[passes.row[i]], passes.length[i]
        assert row[:length].tolist() == tokenizer.encode(text).ids
    the, cat = passes.row[1:3]
    assert the != cat


@pytest.mark.slow
def test_known_tokenizers_alone_are_cut(gpt2, llama2c):
    digits = pre_tokenizers.Digits()
    for changed in (
        with_split(gpt2, r"\w+|."),
        with_split(gpt2, CL100K_PATTERN, behavior="merged_with_next"),
        with_step(gpt2, pre_tokenizer=digits),
        with_step(gpt2, normalizer=normalizers.Strip()),
        with_step(gpt2, normalizer=normalizers.Replace("a", "b")),
        with_step(gpt2, normalizer=normalizers.Replace(" ", "__")),
        with_step(marked(llama2c), normalizer=normalizers.NFC()),
    ):
        assert not spans.cuts_at_spaces(changed)
    dropping = tokenizers.Tokenizer.from_str(gpt2.to_str())
    dropping.model.dropout = 0.1
    assert not spans.cuts_at_spaces(dropping)
    whole = tokenizers.Tokenizer.from_str(llama2c.to_str())
    whole.model.ignore_merges = True
    assert not spans.cuts_at_spaces(whole)


def test_a_step_written_in_python_is_not_known():
    class Splitter:
        def pre_tokenize(self, text):
            """Leave the text whole."""

    tokenizer = character_bpe(("e", "c"))
    tokenizer.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Splitter())
    assert not spans.cuts_at_spaces(tokenizer)
    passes = contexts.plan(tokenizer, words("the", "cat"), "accumulate", max_length=99, causal=True)
    assert passes.counts.searched_texts == 1
    assert passes.counts.passes == 1


def test_an_added_token_in_the_text_is_searched(gpt2):
    text = "we stop <|endoftext|> here now".split()
    joined = joining.join(text, before=joining.english(text))
    found = spans.find_prefixes(gpt2, "", joined, "", cuttable=True)
    assert found.searched
    assert not spans.find_prefixes(gpt2, "", joining.join(["we"]), "", cuttable=True).searched


# Spans


@settings
@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.data())
def test_own_tokens_are_those_that_overlap(sizes, data):
    edges = np.concatenate([[0], np.cumsum(sizes)])
    encoded = spans.Encoded(np.zeros(len(sizes), np.int32), edges[:-1], edges[1:])
    cuts = sorted(data.draw(st.lists(st.integers(0, int(edges[-1])), min_size=2, max_size=8)))
    start, stop = np.array(cuts[:-1]), np.array(cuts[1:])
    first, last = spans.own_tokens(encoded, start, stop)
    for i in range(len(start)):
        own = [
            t
            for t in range(len(sizes))
            if sizes[t] and edges[t] < stop[i] and edges[t + 1] > start[i] and stop[i] > start[i]
        ]
        if own:
            assert (first[i], last[i]) == (own[0], own[-1] + 1)
        elif stop[i] > start[i]:
            assert first[i] == last[i]


def test_special_tokens(gpt2, llama2c, minilm):
    for tokenizer, left, right in ((gpt2, [], []), (llama2c, [1], []), (minilm, [101], [102])):
        found = spans.special_tokens(tokenizer, "a word")
        assert [x.tolist() for x in found] == [left, right]


def test_characters_of_many_tokens_and_tokens_without_space(gpt2, minilm):
    """Bytes of one character all belong to its word, whether or not offsets hold the space."""
    parts = ["a", "\u65e5\u672c", "\U0001f600", "na\u00efve", "\ufb01sh", "\u00c9T\u00c9"]
    joined = joining.join(parts)
    for trim in (False, True):
        changed = tokenizers.Tokenizer.from_str(gpt2.to_str())
        changed.post_processor = tokenizers.processors.ByteLevel(trim_offsets=trim)
        (encoded,) = spans.encode(changed, [joined.text])
        first, last = spans.own_tokens(encoded, joined.start, joined.stop)
        assert last[-1] == len(encoded.ids)
        np.testing.assert_array_equal(first[1:], last[:-1])
        own = [
            gpt2.decode(encoded.ids[a:b].tolist()).strip() for a, b in zip(first, last, strict=True)
        ]
        assert own == parts
    (encoded,) = spans.encode(minilm, [joined.text])
    first, last = spans.own_tokens(encoded, joined.start, joined.stop)
    own = [minilm.decode(encoded.ids[a:b].tolist()) for a, b in zip(first, last, strict=True)]
    assert own[0] == "a" and own[3::2] == ["naive", "ete"]
