"""Folders with tokenizer_config.json or added_tokens.json, against transformers on tricky texts."""

import json

import pytest
import tokenizers
import transformers
from refusals import refused
from tokenizers import models, normalizers, pre_tokenizers, processors

from jaxalign.data.text import tokenizer_files

TEXTS = [
    "",
    "Hello, the naïve World",
    " two  spaces   and more ",
    "Été “quoted” — dash …",
    "日本語 \U0001f600 e\u0301 \u00a0 İstanbul",
    "a\nb\r\n\tc <|endoftext|> [MASK] <s>x</s>",
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "Hello", ",", "the", "world"]
WORDPIECES = dict(zip([*WORDS, "naive", "naïve", "World"], range(100), strict=False))
NAIVE = {"content": "naïve", "normalized": False, "special": False}
NAIVE |= dict.fromkeys(("lstrip", "rstrip", "single_word"), False)


def write_pair(folder):
    """Write bytes and a few merges, as GPT-2's pair."""
    letters = tokenizer_files._byte_letters()
    merges = [("H", "e"), ("Ġ", "t"), ("Ġt", "he"), ("h", "e"), ("l", "l"), ("He", "ll")]
    pieces = [*letters, *map("".join, merges), "<|endoftext|>"]
    ids = {piece: i for i, piece in enumerate(pieces)}
    (folder / "vocab.json").write_text(json.dumps(ids))
    (folder / "merges.txt").write_text("\n".join(map(" ".join, merges)) + "\n")


def write_bytes(folder):
    write_pair(folder)
    tokenizer_files.load(folder / "vocab.json").save(str(folder / "tokenizer.json"))


def write_pieces(folder):
    (folder / "vocab.txt").write_text("\n".join(WORDPIECES) + "\n")


def write_cased(folder):
    """Write a tokenizer.json that lowers no letter."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(WORDPIECES, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))


def write_opt(folder):
    """Write a pair whose special tokens are OPT's."""
    write_pair(folder)
    file = folder / "vocab.json"
    ids = {x: i + 4 for x, i in json.loads(file.read_text()).items() if x != "<|endoftext|>"}
    file.write_text(json.dumps({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3} | ids))


def special(token):
    """Return a token as OPT's configuration writes it."""
    content = {"__type": "AddedToken", "content": token, "normalized": True}
    return content | dict.fromkeys(("lstrip", "rstrip", "single_word"), False)


GPT2, BERT = {"tokenizer_class": "GPT2Tokenizer"}, {"tokenizer_class": "BertTokenizer"}


OPT = {
    **GPT2,
    "add_bos_token": True,
    "add_prefix_space": False,
    "pad_token": special("<pad>"),
    **{f"{role}_token": special("</s>") for role in ("bos", "eos", "unk")},
}


@pytest.mark.parametrize(
    "write,settings,begins",
    [
        (write_pair, GPT2 | {"add_bos_token": True}, ["<|endoftext|>", "Hell", "o"]),
        (write_pair, GPT2 | {"add_prefix_space": True}, ["Ġ", "Hell", "o"]),
        (write_bytes, GPT2 | {"add_prefix_space": True}, ["Ġ", "Hell", "o"]),
        # Beside tokenizer.json these two are what its own processor says.
        (write_bytes, GPT2 | {"add_bos_token": True, "add_eos_token": True}, ["Hell", "o", ","]),
        (write_bytes, {"added_tokens_decoder": {"263": NAIVE}}, ["Hell", "o", ","]),
        (write_bytes, {"tokenizer_class": "PreTrainedTokenizerFast"}, ["Hell", "o", ","]),
        (write_pair, {"tokenizer_class": "RobertaTokenizer"}, ["<s>", "Hell", "o"]),
        (write_opt, OPT, ["</s>", "Hell", "o"]),
        (write_cased, BERT | {"do_lower_case": True}, ["[CLS]", "hello", ","]),
        (write_cased, BERT | {"do_lower_case": False}, ["[CLS]", "Hello", ","]),
        (write_pieces, BERT | {"do_lower_case": True}, ["[CLS]", "hello", ","]),
        (write_pieces, BERT | {"do_lower_case": False}, ["[CLS]", "Hello", ","]),
    ],
)
def test_a_folder_is_read_as_transformers_reads_it(tmp_path, write, settings, begins):
    write(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    found = tokenizer_files.load(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path), local_files_only=True)
    for text in TEXTS:
        assert found.encode(text).ids == theirs(text)["input_ids"], text
    assert found.encode(TEXTS[1]).tokens[:3] == begins


@pytest.mark.parametrize("settings", [None, {"tokenizer_class": "PreTrainedTokenizerFast"}])
def test_added_tokens_are_tokens(tmp_path, settings):
    write_bytes(tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"naïve": 263}))
    if settings:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokens = tokenizer_files.load(tmp_path).encode(TEXTS[1]).tokens
    assert tokens[:7] == ["Hell", "o", ",", "Ġthe", "Ġ", "naïve", "Ġ"]


def test_a_list_of_pieces_needs_its_config(tmp_path):
    write_pieces(tmp_path)
    with refused("vocab.txt must lie beside tokenizer_config.json", "letters are lowered"):
        tokenizer_files.load(tmp_path)


# Code that a folder brings.


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A tokenizer with code of its own, and somebody who says yes to everything."""

    def make(**settings):
        write_bytes(tmp_path)
        trace = tmp_path / "it ran"
        (tmp_path / "mine.py").write_text(f"open({str(trace)!r}, 'w')\nclass Mine: ...\n")
        content = {"auto_map": {"AutoTokenizer": [None, "mine.Mine"]}} | settings
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(content))
        config = {"model_type": "llama", "auto_map": {"AutoConfig": "mine.Mine"}}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path, trace

    monkeypatch.setattr("builtins.input", lambda *_: "y")
    return make


@pytest.mark.parametrize("named", ["Mine", None, 3])
def test_code_of_a_folder_is_refused_by_name(hostile, named):
    folder, trace = hostile(tokenizer_class=named)
    with refused(folder / "tokenizer_config.json", named, "auto_map", "mine.Mine", "is not run"):
        tokenizer_files.load(folder)
    assert not trace.exists()


def test_a_class_of_transformers_is_taken_without_the_code(hostile):
    folder, trace = hostile(tokenizer_class="GPT2TokenizerFast")
    assert tokenizer_files.load(folder).encode("Hello").tokens == ["Hell", "o"]
    assert not trace.exists()


@pytest.mark.parametrize("content", ["[1]", "{", "null", "[" * 3000])
def test_a_config_that_is_no_object_is_refused(tmp_path, content):
    write_bytes(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content)
    with refused(tmp_path / "tokenizer_config.json", "must hold a JSON object"):
        tokenizer_files.load(tmp_path)


# Tokens that a model has no row for.


def with_added(**options):
    tokenizer = tokenizers.Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_tokens([tokenizers.AddedToken("<image>", **options)])
    return tokenizer


@pytest.mark.parametrize("special", [True, False])
def test_added_tokens_past_the_embedding_are_text(special):
    """As published: `<image_soft_token>` of Gemma 3, `▁<PRE>` ... of Code Llama 34B."""
    tokenizer = with_added(special=special)
    assert tokenizer.encode("a <image>").ids == [1, 2]
    assert tokenizer_files.fit(tokenizer, 3, model="m") is tokenizer
    assert tokenizer_files.fit(tokenizer, 2, model="m").encode("a <image>").ids == [1, 0]


def test_an_added_token_that_every_text_has_needs_a_row():
    tokenizer = with_added(special=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<image> $A", special_tokens=[("<image>", 2)]
    )
    with refused("model m: every text would begin or end with <image> (token 2)", "embeds 2"):
        tokenizer_files.fit(tokenizer, 2, model="m")


def test_a_piece_of_the_vocabulary_needs_a_row():
    with refused("must share a vocabulary: the tokenizer's ids end at 2", "embeds 1"):
        tokenizer_files.fit(with_added(), 1, model="m")
