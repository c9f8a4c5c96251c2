"""Parts are joined as the corpus says; guesses are for English alone."""

import re

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from parts import words

from jaxalign.data.sets import plain
from jaxalign.data.text import contexts, joining
from jaxalign.errors import InputError

settings = hypothesis_settings(max_examples=60, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize(
    "rule, joined",
    [
        ("text", "I don't know , really. So?"),
        ("space", "I do n't know , really . So ?"),
        ("brainscore", "I do n't know, really. So?"),
    ],
)
def test_joinings_by_hand(rule, joined):
    parts = ["I", "do", "n't", "know , really", ".", "So ?"]
    if rule == "text":
        parts[-1:] = ["So", "?"]
    found = joining.join(parts, rule, before=joining.english(parts))
    assert found.text == joined
    if rule != "brainscore":
        assert [found.text[a:b] for a, b in zip(found.start, found.stop, strict=True)] == parts


@pytest.mark.slow
@settings
@given(st.lists(st.text("ab .,\t", min_size=1).filter(str.strip), min_size=1, max_size=8))
def test_brainscore_joins_as_its_rule_says(parts):
    rule = lambda x: re.sub(r"\s+([.,!?;:])", r"\1", " ".join(part.strip() for part in x))
    found = joining.join(parts, "brainscore")
    assert found.text == rule(parts)
    for i, stop in enumerate(found.stop):
        assert found.text[:stop] == rule(parts[: i + 1])


@pytest.mark.parametrize(
    "text, english",
    [
        ("in 't huis", "in 't huis"),
        ("costs .5 dollars", "costs .5 dollars"),
        ("use .NET now", "use .NET now"),
        ("fine :) thanks", "fine :) thanks"),
        ("he said :-(", "he said :-("),
        ("a ...and b", "a ...and b"),
        ("( b )", "(b)"),
        ("10 % of $ 5", "10% of $5"),
        ("I 'm sure John 's dog did n't .", "I'm sure John's dog didn't."),
        (
            "he can \u2019t say \u201c no \u201d , ca n\u2019t he ?!",
            "he can\u2019t say \u201cno\u201d, can\u2019t he?!",
        ),
        ('say " no " ...', 'say " no "...'),
    ],
)
def test_what_english_attaches(text, english):
    parts = text.split(" ")
    assert joining.join(parts).text == text
    assert joining.join(parts, before=joining.english(parts)).text == english


HEADER = "stimulus_id,text,passage"
ROWS = ["a,in,1", "b,'t,1", "c,huis,1", "d,.,1", "e,'t,2", "f,is,2"]
SAID = {
    "space_before": ["0", "1", "TRUE", "no", "0", "yes"],
    "start_char,end_char": ["0,2", "3,5", "6,10", "10,11", "0,2", "3,5"],
}


def write(folder, columns, cells, passages=()):
    lines = [f"{HEADER}{columns}", *(a + b for a, b in zip(ROWS, cells, strict=True))]
    (folder / "stimuli.csv").write_text("\n".join(lines))
    if passages:
        (folder / "passages.csv").write_text("\n".join(["passage,text", *passages]))
    return plain.read_stimuli(folder / "stimuli.csv")


@pytest.mark.parametrize("how", [*SAID, "passages"])
def test_the_corpus_says_where_spaces_are(tmp_path, how):
    if how == "passages":
        stimuli = write(tmp_path, "", [""] * 6, ["1,  in 't\thuis.", "2,'t is"])
    else:
        stimuli = write(tmp_path, f",{how}", [f",{x}" for x in SAID[how]])
    assert list(stimuli.space_before) == [True, True, True, False, True, True]
    spaces = joining.spaces(stimuli)
    assert joining.join(stimuli.text[:4], before=spaces.before[:4]).text == "in 't huis."


@pytest.mark.slow
def test_where_nothing_is_said_only_english_is_guessed(tmp_path, gpt2):
    for language, text, num in (
        ("", "in 't huis .", 1),
        ("nl", "in 't huis .", 1),
        ("en-GB", "in 't huis.", 0),
    ):
        stimuli = write(tmp_path, ",language", [f",{language}"] * 6)
        found = contexts.plan(gpt2, stimuli, "accumulate", max_length=99, causal=True)
        assert gpt2.decode(found.rows[0].tolist()) == text
        assert found.counts.guessed_joints == num
    found = contexts.plan(gpt2, words("so", "."), "window:2", max_length=9, causal=False)
    assert gpt2.decode(found.rows[1].tolist()) == "so."


@pytest.mark.parametrize(
    "columns, cells, passages, message",
    [
        (",space_before", [",2"] * 6, (), "space_before must be 0 or 1, found '2'"),
        (",start_char", [",0"] * 6, (), "must have both start_char and end_char"),
        (",start_char,end_char", [",0,2"] * 6, (), "must advance within a passage, but in row 2"),
        (",language", [",nl"] * 5 + [",en"], (), "language must be the same in all rows"),
        ("", [""] * 6, ["1,in 't huis."], "must hold every passage: '2' is missing"),
        ("", [""] * 6, ["1,in a 't huis.", "2,x"], 'row 2, "\'t", does not follow at character 2'),
        (
            ",space_before",
            [",1"] * 6,
            ["1,x"],
            "must be said in one way, found space_before and passages.csv",
        ),
    ],
)
def test_what_says_nothing_of_spaces_is_refused(tmp_path, columns, cells, passages, message):
    with pytest.raises(InputError) as info:
        write(tmp_path, columns, cells, passages)
    assert message in str(info.value)
