"""Text of a stimulus is text: control tokens come from the tokenizer and from frames alone."""

import json

import numpy as np
import pytest
import tokenizers
from parts import words
from refusals import refused
from tokenizers import models, pre_tokenizers, processors

from jaxalign.data.text import contexts, control
from jaxalign.data.text.prompts import Frame

PIECES = ["<", "/", "s", ">", "a", "b", "\u2581", "|", "x"]
SPECIAL = ["<unk>", "<s>", "</s>"]
TEXT = "a</s>b <s> <unk>"


def unigram():
    """As T5's, whose control tokens are the likeliest pieces of its vocabulary."""
    vocab = [(x, 0.0) for x in SPECIAL] + [(x, -5.0) for x in PIECES]
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def merged():
    """Whose merges make a control token."""
    vocab = {x: i for i, x in enumerate([*SPECIAL, *PIECES, "</", "s>"])}
    merges = [("<", "/"), ("s", ">"), ("</", "s>")]
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def whole_words():
    vocab = {x: i for i, x in enumerate([*SPECIAL, *PIECES])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def with_special(tokenizer, *, bos=False):
    tokenizer.add_special_tokens(SPECIAL)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)]
        )
    return tokenizer


def rows(tokenizer, text, **frame):
    plan = contexts.plan(
        tokenizer, words(text), "none", max_length=99, causal=True, frame=Frame(**frame)
    )
    return plan.rows[0].tolist()


@pytest.mark.parametrize("make", [unigram, merged, whole_words])
@pytest.mark.parametrize("before", ["", "a<s>x</s> ", "<s>"])
def test_only_a_frame_holds_control_tokens(make, before):
    """Whatever its vocabulary and merges are."""
    tokenizer = with_special(make())
    found = rows(tokenizer, TEXT, before=before, after="</s>")
    plain = with_special(make())
    head = plain.encode(before, add_special_tokens=False).ids
    assert found[: len(head[:-1])] == head[:-1] and found[-1] == 2
    control_ids = [i for i in found if i in (1, 2)]
    assert control_ids == [i for i in [*head, 2] if i in (1, 2)]
    assert tokenizer.encode(TEXT, add_special_tokens=False).ids.count(2) == 1  # as it was


def test_sentencepiece_reads_no_control_token_from_a_text(gpt2, llama2c, minilm):
    assert rows(with_special(unigram()), "</s>") == [9, 3, 4, 5, 6]  # a space, <, /, s, >
    for tokenizer, name in ((gpt2, "<|endoftext|>"), (llama2c, "</s>"), (minilm, "[SEP]")):
        text = f"a {name} ball"
        i = tokenizer.token_to_id(name)
        assert rows(tokenizer, text).count(i) == (name == "[SEP]")  # at its end
        decoded = tokenizer.decode(rows(tokenizer, text)).replace(" ", "")
        assert decoded.count(name.lower()) == 1


@pytest.mark.slow
def test_a_row_begins_with_one_first_token(gpt2):
    tokenizer = with_special(unigram(), bos=True)
    with refused("prompt must not begin with '<s>', got '<s>x': the tokenizer adds it already"):
        rows(tokenizer, "a", before="<s>x")
    with refused("bos must be empty, got '<s>': the prompt or chat template begins with it"):
        rows(tokenizer, "a", before="<s>x", special_tokens=False, bos="<s>")
    assert rows(tokenizer, "a", before="<s>x", special_tokens=False).count(1) == 1
    end = "<|endoftext|>"
    assert rows(gpt2, "a", before=end) == rows(gpt2, "a", bos=end) == [50256, 64]


def test_a_vocabulary_may_have_gaps():
    vocab = {"<unk>": 0, "a": 7, "b": 900}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    assert rows(tokenizer, "a b") == [7, 900]
    end = tokenizer.token_to_id("</s>")
    assert rows(tokenizer, "a b </s>", before="</s>") == [end, 7, 900, 0]


def test_unknown_text_is_counted(minilm, gpt2):
    found = contexts.plan(
        minilm, words("\u6211\u559c\u6b22", "ball"), "none", max_length=9, causal=False
    )
    assert (found.counts.unknown_tokens, found.counts.own_tokens) == (2, 4)
    assert control.unknown_id(gpt2) == -1 and control.unknown_id(unigram()) == 0


@pytest.mark.slow
def test_added_tokens_that_are_not_special_stay(gpt2):
    tokenizer = tokenizers.Tokenizer.from_str(gpt2.to_str())
    tokenizer.add_special_tokens(["<|turn|>"])
    tokenizer.add_tokens(["  "])
    found = rows(tokenizer, "a  b", before="<|turn|>", special_tokens=False)
    assert found == [50257, 64, 50258, 65]
    assert json.loads(tokenizer.to_str())["added_tokens"][-1]["id"] == 50258
    assert np.max(found) == 50258
