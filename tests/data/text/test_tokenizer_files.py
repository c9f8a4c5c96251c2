"""Tokenizer files of every kind, and llama2.c's against its own algorithm."""

import base64
import json
import struct
import sys

import pytest
from refusals import refused

from jaxalign.data.text import contexts, tokenizer_files


def test_truncation_and_padding_of_the_file_are_switched_off(minilm, minilm_path):
    content = minilm_path.read_text(encoding="utf-8")
    assert '"truncation": null' not in content or '"padding": null' not in content
    long, short = minilm.encode_batch(["one " * 480, "one"])
    assert len(long.ids) == 480 + 2
    assert len(short.ids) == 3


def test_a_missing_tokenizer_is_named(tmp_path):
    with refused("tokenizer must lie at", tmp_path / "tokenizer.json", "no such file"):
        tokenizer_files.load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("content", [b"", b"{}", b"not JSON", b"\xff\xfe", b"[1, 2]"], ids=repr)
def test_a_file_that_is_no_tokenizer_json_is_refused(tmp_path, content):
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


def test_a_truncated_llama2c_tokenizer_is_refused(tmp_path, llama2c_path, run_c):
    data = llama2c_path.read_bytes()
    path = tmp_path / "tok512.bin"
    # Up to the next border the last piece is incomplete, be it in its head or in its letters.
    for border in (run_c.borders[i] for i in (1, 2, 258, 300, 511)):
        for size in (border + 1, border + 4, border + 8):
            path.write_bytes(data[:size])
            with refused(path, "must be a llama2.c tokenizer"):
                tokenizer_files.load(path)


@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 100, 258])
def test_a_llama2c_tokenizer_without_all_bytes_is_refused(tmp_path, llama2c_path, run_c, pieces):
    path = tmp_path / "tok512.bin"
    path.write_bytes(llama2c_path.read_bytes()[: run_c.borders[pieces]])
    with refused(path, "must be a llama2.c tokenizer"):
        tokenizer_files.load(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x07\x00", bytes(100), b"\xff" * 64, b"PK\x03\x04" + b"\x01" * 40],
    ids=["empty", "too short", "zeros", "ones", "another format"],
)
def test_a_bin_that_is_no_llama2c_tokenizer_is_refused(tmp_path, content):
    path = tmp_path / "tokenizer.bin"
    path.write_bytes(content)
    with refused(path, "must be a llama2.c tokenizer"):
        tokenizer_files.load(path)


# GPT-2's pair


def test_gpt2_by_hand(gpt2):
    assert gpt2.encode("Hello world").ids == [15496, 995]
    assert gpt2.encode("<|endoftext|>").ids == [50256]
    assert gpt2.get_vocab_size() == 50257
    text = " two  spaces, na\u00efve \u65e5\u672c \U0001f600\n\n1865's"
    assert gpt2.decode(gpt2.encode(text).ids) == text


@pytest.mark.slow
def test_the_pair_under_its_other_name(tmp_path, gpt2, gpt2_path):
    (tmp_path / "vocab.json").write_bytes((gpt2_path / "encoder.json").read_bytes())
    with_no_merges = tmp_path / "vocab.json"
    (tmp_path / "merges.txt").write_bytes((gpt2_path / "vocab.bpe").read_bytes())
    for path in (tmp_path, with_no_merges, gpt2_path / "encoder.json"):
        assert tokenizer_files.load(path).to_str() == gpt2.to_str()


def test_a_pair_without_merges_is_refused(tmp_path, gpt2_path):
    (tmp_path / "vocab.json").write_bytes((gpt2_path / "encoder.json").read_bytes())
    with refused("must lie beside merges.txt: there is no such file"):
        tokenizer_files.load(tmp_path)


@pytest.mark.parametrize("vocabulary", ["[1]", "{", '{"a": 0}'])
def test_a_pair_that_is_none_is_refused(tmp_path, vocabulary):
    (tmp_path / "vocab.json").write_text(vocabulary)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nx y\n")
    with refused("vocab.json", "must be a vocabulary and its merges"):
        tokenizer_files.load(tmp_path)


def test_a_pair_of_another_family_is_refused(tmp_path):
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1, "ab": 2, "</s>": 3}')
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    with refused("must be GPT-2's and hold <|endoftext|>", "tokenizer.json"):
        tokenizer_files.load(tmp_path)


# tiktoken


@pytest.fixture(scope="module")
def ranks(gpt2_path):
    """GPT-2's vocabulary as tiktoken publishes it: bytes and ranks."""
    letters = {letter: byte for byte, letter in enumerate(tokenizer_files._byte_letters())}
    ids = json.loads((gpt2_path / "encoder.json").read_text(encoding="utf-8"))
    del ids["<|endoftext|>"]
    lines = (
        base64.b64encode(bytes(letters[x] for x in piece)) + b" %d" % i for piece, i in ids.items()
    )
    return b"\n".join(lines) + b"\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2.tiktoken", "tokenizer.model"])
def test_ranks_encode_as_merges(tmp_path, ranks, gpt2, natural_stories, name):
    (tmp_path / name).write_bytes(ranks)
    tokenizer = tokenizer_files.load(tmp_path)
    texts = [" ".join(natural_stories.text), " two  spaces\n\n ", "na\u00efve \u65e5\U0001f600"]
    for text in texts:
        assert tokenizer.encode(text).ids == gpt2.encode(text).ids
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_ranks_of_an_unknown_tokenizer_are_refused(tmp_path, ranks):
    path = tmp_path / "mine.tiktoken"
    path.write_bytes(b"\n".join(ranks.splitlines()[:300]))
    with refused(path, "must have as many ranks as a known tokenizer", "found 300"):
        tokenizer_files.load(path)


@pytest.mark.parametrize("content", [b"YQ== 0\nYg", b"YQ== 0\n??? 1", b"YQ== zero"])
def test_broken_ranks_are_refused(tmp_path, content):
    path = tmp_path / "mine.tiktoken"
    path.write_bytes(content)
    with refused(path, "must hold lines of base64 and rank"):
        tokenizer_files.load(path)


# SentencePiece


@pytest.fixture(scope="module")
def spm_folder(tmp_path_factory, natural_stories):
    """A model of LLaMA's kind, trained on the stories."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="an extra: reads .model files")
    folder = tmp_path_factory.mktemp("spm")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences(natural_stories)),
        model_prefix=str(folder / "tokenizer"),
        vocab_size=700,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def sentences(stories):
    return " ".join(stories.text).replace(". ", ".\n").splitlines()


def test_a_sentencepiece_model_encodes_as_its_own_package(spm_folder, natural_stories):
    import sentencepiece

    own = sentencepiece.SentencePieceProcessor(model_file=str(spm_folder / "tokenizer.model"))
    tokenizer = tokenizer_files.load(spm_folder)
    for text in [*sentences(natural_stories), "na\u00efve \u65e5\u672c \U0001f600"]:
        assert tokenizer.encode(text).ids == [own.bos_id(), *own.encode(text)]


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["accumulate", "accumulate:slide", "chunk:8-16"])
def test_a_sentencepiece_model_is_planned_by_cuts(spm_folder, natural_stories, rule):
    tokenizer = tokenizer_files.load(spm_folder)
    plan = contexts.plan(tokenizer, natural_stories, rule, max_length=9000, causal=True)
    assert plan.counts.searched_texts == 0 and plan.counts.fallbacks == 0
    for i in range(0, len(natural_stories), 101):
        own = plan.rows[plan.row[i]][plan.start[i] : plan.stop[i]].tolist()
        assert tokenizer.decode(own).strip() == natural_stories.text[i]


def test_a_sentencepiece_model_needs_its_config(spm_folder, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes((spm_folder / "tokenizer.model").read_bytes())
    with refused("must lie beside tokenizer_config.json"):
        tokenizer_files.load(tmp_path)


@pytest.mark.parametrize("package", ["sentencepiece", "google.protobuf"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x05")
    monkeypatch.setitem(sys.modules, package, None)
    with refused(f"the package {package.split('.')[-1]} reads", "jaxalign[sentencepiece]"):
        tokenizer_files.load(tmp_path)


# Folders and vocabularies


def test_an_empty_folder_is_refused(tmp_path):
    with refused(tmp_path, "must hold tokenizer.json", "none is there"):
        tokenizer_files.load(tmp_path)


@pytest.mark.parametrize("size, fits", [(50256, False), (50257, True), (50400, True)])
def test_vocabularies_must_belong_together(gpt2, size, fits):
    if fits:
        tokenizer_files.fit(gpt2, size, model="m")
        return
    with refused("model m: tokenizer and model must share a vocabulary", "end at 50256", size):
        tokenizer_files.fit(gpt2, size, model="m")


def test_a_model_of_another_tokenizer_is_refused(llama2c):
    tokenizer_files.fit(llama2c, 512, model="m")
    with refused("must share a vocabulary", "end at 511", "embeds 50257"):
        tokenizer_files.fit(llama2c, 50257, model="m")
