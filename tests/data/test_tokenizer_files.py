"""Tokenizer files of every kind, and llama2.c's against its own algorithm."""

import struct

import pytest

from jaxalign.data import tokenizer_files


def test_truncation_and_padding_of_the_file_are_switched_off(minilm, minilm_path):
    content = minilm_path.read_text(encoding="utf-8")
    assert '"truncation": null' not in content or '"padding": null' not in content
    long, short = minilm.encode_batch(["one " * 480, "one"])
    assert len(long.ids) == 480 + 2
    assert len(short.ids) == 3


def test_a_missing_tokenizer_is_named(tmp_path, refused):
    with refused("tokenizer must lie at", tmp_path / "tokenizer.json", "no such file"):
        tokenizer_files.load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("content", [b"", b"{}", b"not JSON", b"\xff\xfe", b"[1, 2]"], ids=repr)
def test_a_file_that_is_no_tokenizer_json_is_refused(tmp_path, refused, content):
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with refused(path, "must be a tokenizer.json"):
        tokenizer_files.load(path)


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
    tokenizer, run_c = tokenizer_files.load(path), RunC(path)
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
                tokenizer_files.load(path)


@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 100, 258])
def test_a_llama2c_tokenizer_without_all_bytes_is_refused(
    tmp_path, llama2c_path, run_c, refused, pieces
):
    path = tmp_path / "tok512.bin"
    path.write_bytes(llama2c_path.read_bytes()[: run_c.borders[pieces]])
    with refused(path, "must be a llama2.c tokenizer"):
        tokenizer_files.load(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x07\x00", bytes(100), b"\xff" * 64, b"PK\x03\x04" + b"\x01" * 40],
    ids=["empty", "too short", "zeros", "ones", "another format"],
)
def test_a_bin_that_is_no_llama2c_tokenizer_is_refused(tmp_path, refused, content):
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(content)
    with refused(path, "must be a llama2.c tokenizer"):
        tokenizer_files.load(path)
