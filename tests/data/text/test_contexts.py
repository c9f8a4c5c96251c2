"""Every context rule against a slow reference, part by part, and shared passes against separate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from parts import NUMBERS, words
from refusals import refused

from jaxalign.data.schema import Stimuli
from jaxalign.data.text import contexts, joining, readouts
from jaxalign.data.text.prompts import Frame

settings = hypothesis_settings(max_examples=40, deadline=None, derandomize=True, database=None)

RULES = ["none", "window:1", "window:7", "window:40", "window:30tokens", "accumulate:slide"]
RULES += ["chunk:5-12", "chunk:0-3"]


def some(stimuli, start, stop):
    pick = lambda x: list(x[start:stop])
    return Stimuli(
        stimulus_id=pick(stimuli.stimulus_id),
        text=pick(stimuli.text),
        passage=pick(stimuli.passage),
        run=pick(stimuli.run),
        unit="word",
    )


def reference(tokenizer, stimuli, i, rule, max_length):
    """Return the row of one part and the places of its own tokens, by the rule's own words."""
    first = i
    while first and stimuli.passage[first - 1] == stimuli.passage[i]:
        first -= 1
    name, _, size = rule.partition(":")
    if rule == "none":
        first = i
    elif name == "window" and not size.endswith("tokens"):
        first = max(first, i - int(size) + 1)
    parts = stimuli.text[first : i + 1]
    joined = joining.join(parts, before=joining.english(parts))
    if rule == "accumulate:slide":  # by the library's own truncation
        tokenizer.enable_truncation(max_length, direction="left")
        encoding = tokenizer.encode(joined.text)
        tokenizer.no_truncation()
    else:
        encoding = tokenizer.encode(joined.text)
    ids, offsets, mask = encoding.ids, encoding.offsets, encoding.special_tokens_mask
    special = [t for t in range(len(ids)) if mask[t]]
    content = [t for t in range(len(ids)) if not mask[t]]
    if size.endswith("tokens"):
        content = content[-int(size.removesuffix("tokens")) :]
    if name == "chunk":
        least, most = map(int, size.split("-"))
        lookback = 0
        for _ in range(i - first):  # as Huth's loop counts
            lookback = least if lookback == most else lookback
            lookback += 1
        if lookback < i - first:
            border = joined.stop[i - first - lookback - 1]
            content = [t for t in content if offsets[t][1] > border]
    kept = sorted(special + content)
    begins = joined.start[-1]
    own = [
        k for k, t in enumerate(kept) if not mask[t] and offsets[t][1] > max(begins, offsets[t][0])
    ]
    return [ids[t] for t in kept], own


def check(tokenizer, stimuli, rule, max_length, which):
    alone = contexts.plan(tokenizer, stimuli, rule, max_length=max_length, causal=False)
    assert alone.counts.passes == len(stimuli) and alone.complete.all()
    assert alone.counts.tokens == alone.counts.separate_tokens == alone.length.sum()
    shared = contexts.plan(tokenizer, stimuli, rule, max_length=max_length, causal=True)
    assert shared.counts.tokens <= alone.counts.tokens
    assert shared.counts.separate_tokens == alone.counts.tokens
    assert shared.counts.fallbacks == 0
    for i in which:
        ids, own = reference(tokenizer, stimuli, i, rule, max_length)
        row = alone.rows[alone.row[i]]
        assert row.tolist() == ids and row.dtype == np.int32
        assert own == list(range(alone.start[i], alone.stop[i]))
    for i in range(len(stimuli)):
        length = shared.length[i]
        separate = alone.rows[alone.row[i]]
        if shared.complete[i]:
            assert length == alone.length[i]
        np.testing.assert_array_equal(shared.rows[shared.row[i]][:length], separate[:length])
        for name in ("start", "stop"):
            assert getattr(shared, name)[i] == getattr(alone, name)[i]
        assert [x[i] for x in shared.predicted[1:]] == [x[i] for x in alone.predicted[1:]]
        assert shared.predicted.row[i] == shared.row[i]
        assert shared.stop[i] <= length <= max_length
    return shared


# Each rule with one of the tokenizers, in turn; a beginning is tried with all of them below.
PAIRS = [(rule, ("gpt2", "llama2c", "minilm")[i % 3]) for i, rule in enumerate(RULES)]


@pytest.mark.slow
@pytest.mark.parametrize("rule,name", PAIRS)
def test_rules_on_all_stories(request, natural_stories, name, rule):
    tokenizer = request.getfixturevalue(name)
    shared = check(tokenizer, natural_stories, rule, 300, range(0, len(natural_stories), 101))
    assert shared.counts.texts == 10 and shared.counts.searched_texts == 0


@pytest.mark.parametrize("name", ["gpt2", "llama2c", "minilm"])
@pytest.mark.parametrize("rule", RULES)
def test_rules_on_every_part_of_a_beginning(request, natural_stories, name, rule):
    """Over the border of two stories, with a model so short that contexts are cut soon."""
    first = natural_stories.passage.index("2")
    stimuli = some(natural_stories, first - 60, first + 60)
    tokenizer = request.getfixturevalue(name)
    check(tokenizer, stimuli, rule, 300 if "window" in rule else 90, range(0, 120, 3))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "llama2c"])
def test_accumulate_is_one_pass_for_a_story(request, natural_stories, name):
    tokenizer = request.getfixturevalue(name)
    three = some(natural_stories, 0, natural_stories.passage.index("4"))
    plan = lambda causal: contexts.plan(
        tokenizer, three, "accumulate", max_length=8000, causal=causal
    )
    shared, alone = plan(True), plan(False)
    assert shared.counts.passes == 3 and alone.counts.passes == len(three)
    for i in range(0, len(three), 97):
        ids, own = reference(tokenizer, three, i, "accumulate", 0)
        row = shared.rows[shared.row[i]]
        assert row[: shared.length[i]].tolist() == ids
        assert own == list(range(shared.start[i], shared.stop[i]))
        assert alone.rows[alone.row[i]].tolist() == ids


@pytest.mark.slow
@settings
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    rule=st.sampled_from(["chunk:2-5", "chunk:0-1", "chunk:7-8", "window:3", "window:4tokens"]),
    causal=st.booleans(),
)
def test_index_bookkeeping_on_words_of_one_token(minilm, sizes, rule, causal):
    """By numbers alone: which words each part sees."""
    passage = [f"p{i}" for i, n in enumerate(sizes) for _ in range(n)]
    text = [NUMBERS[i % len(NUMBERS)] for i in range(len(passage))]
    stimuli = words(*text, passage=passage)
    found = contexts.plan(minilm, stimuli, rule, max_length=40, causal=causal)
    for i in range(len(text)):
        ids, own = reference(minilm, stimuli, i, rule, 40)
        assert own == [len(ids) - 2]
        seen = found.rows[found.row[i]][: found.stop[i]]
        assert seen.tolist() == ids[:-1]
        assert found.stop[i] == found.start[i] + 1


# Restart


@pytest.mark.slow
@settings
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=40),
    max_length=st.integers(1, 30),
    bos=st.booleans(),
)
def test_restart_by_what_it_promises(gpt2, sizes, max_length, bos):
    """Each pass fits and no token is in three; a part sees at least half a length or the start."""
    stimuli = words(*(" ".join(["a"] * n) for n in sizes))
    room = max_length - bos
    if room < 1:
        return
    found = contexts.plan(
        gpt2,
        stimuli,
        "accumulate:restart",
        max_length=max_length,
        causal=True,
        frame=Frame(bos="<|endoftext|>" if bos else ""),
    )
    end = np.cumsum(sizes)
    begin = end - (found.stop - bos)  # first token of the text in the row of each part
    assert (begin >= 0).all() and (np.diff(begin) >= 0).all()
    times = np.zeros(end[-1], int)
    for r, row in enumerate(found.rows):
        assert len(row) <= max_length
        (members,) = np.nonzero(found.row == r)
        assert len(set(begin[members])) == 1
        assert len(row) - bos == end[members[-1]] - begin[members[0]]
        times[begin[members[0]] : end[members[-1]]] += 1
    assert times.max() <= 2
    fits = end <= room
    assert (found.row[fits] == 0).all() and (begin[fits] == 0).all()
    own = found.stop - found.start
    np.testing.assert_array_equal(own, np.minimum(sizes, room))
    assert found.counts.truncated_parts == (np.array(sizes) > room).sum()
    if max(sizes) <= room // 4:
        seen = end - sizes - begin
        assert (seen >= np.minimum(end - sizes, room // 2 - max(sizes))).all()


def test_restart_by_hand(gpt2):
    found = contexts.plan(
        gpt2, words(*"abcdefghijkl"), "accumulate:restart", max_length=6, causal=True
    )
    text = [gpt2.decode(row.tolist()).replace(" ", "") for row in found.rows]
    assert text == ["abcdef", "defghi", "ghijkl"]
    assert found.row.tolist() == [0] * 6 + [1] * 3 + [2] * 3
    assert found.start.tolist() == [0, 1, 2, 3, 4, 5, 3, 4, 5, 3, 4, 5]
    assert found.counts.cut_contexts == 6


@pytest.mark.slow
def test_restart_on_all_stories(gpt2, natural_stories):
    found = contexts.plan(gpt2, natural_stories, "accumulate:restart", max_length=1024, causal=True)
    whole = contexts.plan(gpt2, natural_stories, "accumulate", max_length=8000, causal=True)
    assert found.counts.tokens <= 2 * whole.counts.tokens
    for i in range(0, len(natural_stories), 53):
        own = found.rows[found.row[i]][: found.stop[i]]
        np.testing.assert_array_equal(
            own, whole.rows[whole.row[i]][whole.stop[i] - len(own) : whole.stop[i]]
        )
        assert whole.stop[i] < 1024 or len(own) >= 512 - 20


# Parts that change with what follows


def test_a_part_whose_last_token_goes_on_has_its_own_row(gpt2):
    stimuli = words("I", "do", "n't", "know", ",", "do", "n't", "I", "?")
    found = contexts.plan(gpt2, stimuli, "accumulate", max_length=50, causal=True)
    assert found.counts.fallbacks == 2 and found.counts.passes == 3
    tokens = lambda i: gpt2.decode(
        found.rows[found.row[i]][found.start[i] : found.stop[i]].tolist()
    )
    assert [tokens(i) for i in range(9)] == [
        *("I", " do", " don't", " know", ",", " do", " don't", " I", "?")
    ]
    for i in range(9):
        ids, own = reference(gpt2, stimuli, i, "accumulate", 50)
        assert found.rows[found.row[i]][: found.length[i]].tolist() == ids
        assert own == list(range(found.start[i], found.stop[i]))


@pytest.mark.parametrize("rule", ["accumulate:slide", "accumulate:restart", "chunk:2-4"])
def test_such_parts_under_the_other_rules(gpt2, rule):
    text = ["so", "we", "do", "n't", "know"] * 6
    found = contexts.plan(gpt2, words(*text), rule, max_length=12, causal=True)
    assert found.counts.fallbacks == 6
    for i in range(len(text)):
        row = found.rows[found.row[i]]
        own = gpt2.decode(row[found.start[i] : found.stop[i]].tolist()).strip()
        assert own == ("don't" if text[i] == "n't" else text[i])
        assert len(row) <= 12


# Frames and begin-of-text


@pytest.mark.parametrize("name", ["gpt2", "llama2c"])
@pytest.mark.parametrize(
    "rule", ["none", "window:3", "accumulate", "accumulate:slide", "chunk:3-6"]
)
def test_a_frame_is_around_every_row_and_pooled_by_none(request, name, rule):
    tokenizer = request.getfixturevalue(name)
    frame = Frame("Read this: ", " What is it?")
    text = "Once there was a little girl , who had a red ball . She ran".split()
    stimuli = words(*text)
    long = 500 if rule != "accumulate:slide" else 60
    plan = lambda causal, frame: contexts.plan(
        tokenizer, stimuli, rule, max_length=long, causal=causal, frame=frame
    )
    alone, shared = plan(False, frame), plan(True, frame)
    encode = lambda x: tokenizer.encode(x, add_special_tokens=False).ids
    head, tail = encode("Read this:"), encode(frame.before + "x" + frame.after)
    tail = tail[len(encode(frame.before + "x")) :]
    for i in range(len(text)):
        row = alone.rows[alone.row[i]].tolist()
        special = int(name == "llama2c")
        assert row[special : special + len(head)] == head
        assert row[-len(tail) :] == tail
        assert tokenizer.decode(row[alone.start[i] : alone.stop[i]]).strip() == text[i]
        assert alone.predicted.defined[i]
        np.testing.assert_array_equal(
            shared.rows[shared.row[i]][: shared.stop[i]], row[: alone.stop[i]]
        )
        assert (shared.start[i], shared.stop[i]) == (alone.start[i], alone.stop[i])


def test_bos_begins_every_row(gpt2, llama2c):
    stimuli = words("we", "saw", "it")
    for rule in ("none", "accumulate"):
        found = contexts.plan(
            gpt2, stimuli, rule, max_length=9, causal=True, frame=Frame(bos="<|endoftext|>")
        )
        assert all(row[0] == 50256 for row in found.rows)
        assert found.predicted.defined.all()
    with refused("bos must be a token of the tokenizer", "'<s>'"):
        contexts.plan(gpt2, stimuli, "none", max_length=9, causal=True, frame=Frame(bos="<s>"))
    with refused("bos must be empty", "adds it already"):
        contexts.plan(llama2c, stimuli, "none", max_length=9, causal=True, frame=Frame(bos="<s>"))


# Names and refusals


@pytest.mark.parametrize(
    "name, rule",
    [
        ("none", ("parts", 1, 0)),
        ("window:10", ("parts", 10, 0)),
        ("window:256tokens", ("tokens", 256, 0)),
        ("accumulate", ("accumulate", 0, 0)),
        ("accumulate:slide", ("slide", 0, 0)),
        ("accumulate:restart", ("restart", 0, 0)),
        ("chunk", ("chunk", 512, 256)),
        ("chunk:0-64", ("chunk", 64, 0)),
    ],
)
def test_names_of_rules(name, rule):
    assert contexts.parse(name) == rule


@pytest.mark.parametrize(
    "rule",
    ["", "None", "none ", "window", "window:", "window:0", "window:-1", "window:03", "window:1.5"]
    + ["window: 3", "window:3 ", "window:3\n", "Window:3", "window:ten", "10", "passage"]
    + ["window:0tokens", "window:tokens", "window:5 tokens", "accumulate:", "accumulate:cut"]
    + ["chunk:", "chunk:5", "chunk:5-5", "chunk:6-5", "chunk:-5", "chunk:05-7", "restart"],
)
def test_another_context_rule_is_refused(rule):
    with refused("extract.context must be none, window:N", "chunk:A-B", repr(rule)):
        contexts.parse(rule)


def test_another_joining_is_refused(gpt2):
    with refused("joining must be one of text, brainscore, space, got 'lines'"):
        contexts.plan(
            gpt2, words("a"), "none", max_length=9, causal=True, frame=Frame(joining="lines")
        )


@pytest.mark.parametrize(
    "rule, advice",
    [
        ("accumulate", "choose accumulate:slide, accumulate:restart or a shorter context"),
        ("window:5", "choose a shorter context"),
        ("window:5tokens", "choose a shorter context"),
        ("chunk:2-4", "choose a shorter context"),
    ],
)
@pytest.mark.parametrize("causal", [False, True])
def test_what_does_not_fit_is_refused_by_name(gpt2, rule, advice, causal):
    stimuli = words(*NUMBERS)
    contexts.plan(gpt2, stimuli, rule.replace("accumulate", "none"), max_length=5, causal=causal)
    with refused("must fit the model's 4 tokens: stimulus 'w4' ('five') has 5", advice):
        contexts.plan(gpt2, stimuli, rule, max_length=4, causal=causal)


def test_a_long_part_is_named_briefly(gpt2):
    with refused("stimulus 'w0' ('" + "a" * 57 + "...') has"):
        contexts.plan(gpt2, words("a" * 999), "none", max_length=9, causal=True)


@pytest.mark.parametrize("rule", ["accumulate:slide", "accumulate:restart"])
def test_a_prompt_must_leave_room(gpt2, rule):
    frame = Frame("one two three four five ")
    with refused("the prompt must leave room", "take 5 of the 5"):
        contexts.plan(gpt2, words("a"), rule, max_length=5, causal=True, frame=frame)


@pytest.mark.parametrize("rule", ["none", "window:2", "accumulate", "chunk:1-2"])
@pytest.mark.parametrize("text", ["\x07", "\u200b", "\u0301"])
def test_a_part_without_a_token_is_named(minilm, rule, text):
    for causal in (False, True):
        with refused("every part must have a token", "stimulus 'w1'"):
            contexts.plan(minilm, words("one", text, "two"), rule, max_length=9, causal=causal)


@pytest.mark.slow
def test_slide_cuts_a_part_that_is_longer_than_the_model(gpt2):
    stimuli = words("one", "a b c d e f", "two")
    found = contexts.plan(gpt2, stimuli, "accumulate:slide", max_length=4, causal=True)
    assert gpt2.decode(found.rows[found.row[1]].tolist()) == " c d e f"
    assert (found.start[1], found.stop[1]) == (0, 4)
    assert found.counts.truncated_parts == 1 and found.counts.cut_contexts == 2
    assert readouts.surprisal(found).defined.tolist() == [False, False, True]
