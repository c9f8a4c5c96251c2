"""Tokenizers from the files that models come with, all as one kind of object."""

import base64
import binascii
import importlib.util
import json
import pathlib
import struct
from collections.abc import Callable, Mapping

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from jaxalign.data.text import hf_tokenizers
from jaxalign.errors import InputError, one_line
from jaxalign.io import run_dir

# A llama2.c tokenizer begins with <unk>, <s>, </s> and the 256 bytes.
_LAST_BYTE = 258

# The names under which a pair of vocabulary and merges is published; GPT-2's own come second.
_PAIRS = {"vocab.json": "merges.txt", "encoder.json": "vocab.bpe"}
_PIECE = "piece"  # the one token of `stand_in`
PIECES_PATTERN = r" ?[^\s]{1,5}|\s"  # by which it cuts
_END_OF_TEXT = "<|endoftext|>"
_CONVERTED = (".model", ".txt")  # SentencePiece's, and BERT's list of pieces
_ADDED = "added_tokens.json"

# How a text is cut before ranks apply is written nowhere in a file of ranks; the number of ranks
# tells which published tokenizer it is. Sources: openai/tiktoken, tiktoken_ext/openai_public.py
# (gpt2, cl100k_base); meta-llama/llama3, llama/tokenizer.py; QwenLM/Qwen, tokenization_qwen.py.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_PATTERN = CL100K_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
PATTERNS_OF_RANKS = {
    50256: GPT2_PATTERN,
    100256: CL100K_PATTERN,
    128000: CL100K_PATTERN,
    151643: QWEN_PATTERN,
}


def load(path: pathlib.Path) -> tokenizers.Tokenizer:
    """Read a tokenizer.

    Known are `tokenizer.json`; GPT-2's pair `vocab.json` and `merges.txt` (or `encoder.json` and
    `vocab.bpe`); BERT's `vocab.txt` and SentencePiece's `.model`, which say too little alone;
    tiktoken's ranks (`.tiktoken`, or a `.model` that holds them), to which no special token is
    added; and the `.bin` of llama2.c.

    In a directory with `tokenizer_config.json` transformers reads the files, as that says:
    special tokens at the ends, spaces, lower case, added tokens. Of a file that is given itself
    the content counts alone, but for what is converted by that configuration.

    Truncation and padding that the file may ask for are switched off.

    Args:
      path: one of these files, or a directory that holds one.

    Raises:
      InputError: if it cannot be read.
    """
    file = files(path)[0]
    if file.suffix == ".bin":
        tokenizer = _llama2c(file)
    elif file.suffix == ".tiktoken" or (file.suffix == ".model" and _holds_ranks(file)):
        tokenizer = _tiktoken(file)
    elif file.suffix in _CONVERTED or _is_configured(path):
        tokenizer = _by_transformers(file)
    elif file.name in _PAIRS:
        tokenizer = _gpt2_pair(file, file.with_name(_PAIRS[file.name]))
    else:
        tokenizer = _whole(file, with_added=path.is_dir())
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def fit(tokenizer: tokenizers.Tokenizer, vocab_size: int, *, model: str) -> tokenizers.Tokenizer:
    """Return a tokenizer all of whose tokens a model has; refuse one that was not made for it.

    An embedding has a row for every token. It may have some more, to make its size a round number
    or for tokens added later, but never twice as many. Published models have fewer rows than
    tokens where a tokenizer is shared with a model that reads more than text (Gemma 3: a token
    for images) or was trained for more (Code Llama 34B: filling in). Such added tokens are taken
    away: where a text spells their names, it is text.

    Args:
      tokenizer: from `load`.
      vocab_size: rows of the model's embedding.
      model: its name, for the message.

    Raises:
      InputError: if the sizes cannot belong together.
    """
    own = max(tokenizer.get_vocab(with_added_tokens=False).values(), default=-1)
    largest = max(own, *tokenizer.get_added_tokens_decoder(), -1)
    if not own < vocab_size <= 2 * (largest + 1):
        raise InputError(
            f"model {model}: tokenizer and model must share a vocabulary: the tokenizer's ids end "
            f"at {largest}, and the model embeds {vocab_size} tokens."
        )
    if largest < vocab_size:
        return tokenizer
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [x for x in content["added_tokens"] if x["id"] < vocab_size]
    fitted = tokenizers.Tokenizer.from_str(json.dumps(content))
    fitted.encode_special_tokens = tokenizer.encode_special_tokens
    if framing := [i for i in fitted.encode("").ids if i >= vocab_size]:
        raise InputError(
            f"model {model}: every text would begin or end with {tokenizer.id_to_token(framing[0])}"
            f" (token {framing[0]}), which its tokenizer adds, but the model embeds {vocab_size} "
            "tokens: give the tokenizer that it was trained with."
        )
    return fitted


def stand_in() -> tokenizers.Tokenizer:
    """Return a tokenizer for plans of models whose own is not here: pieces of up to five letters.

    English has about 1.3 of them in a word, as it has tokens of GPT-2's vocabulary.
    """
    found = tokenizers.Tokenizer(models.WordLevel({_PIECE: 0}, unk_token=_PIECE))
    found.pre_tokenizer = pre_tokenizers.Split(
        tokenizers.Regex(PIECES_PATTERN), behavior="isolated"
    )
    return found


def hash_of(tokenizer: tokenizers.Tokenizer) -> str:
    """Return a hash of all that fixes how a tokenizer cuts a text, 16 hexadecimal digits.

    Whatever files it was read from: what is in them and has no part in that does not count.

    Args:
      tokenizer: from `load`.
    """
    return run_dir.hash_text(tokenizer.to_str())


def files(path: pathlib.Path) -> list[pathlib.Path]:
    """Return what `load` reads: the file that tells what kind of tokenizer it is, and its others.

    Args:
      path: as of `load`.

    Raises:
      InputError: if there is none.
    """
    file = _find(path) if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"tokenizer must lie at {file}: there is no such file.")
    other = "tokenizer_config.json" if file.suffix == ".model" else _PAIRS.get(file.name)
    return [x for x in (file, other and file.with_name(other)) if x and x.is_file()]


def _find(folder: pathlib.Path) -> pathlib.Path:
    for name in ("tokenizer.json", *_PAIRS, "*.model", "*.tiktoken", "vocab.txt"):
        if found := sorted(folder.glob(name)):
            return found[0]
    raise InputError(
        f"{folder} must hold tokenizer.json, {', '.join(_PAIRS)} with its merges, a .model or a "
        ".tiktoken file, or vocab.txt: none is there."
    )


def _gpt2_pair(vocabulary: pathlib.Path, merges: pathlib.Path) -> tokenizers.Tokenizer:
    if not merges.is_file():
        raise InputError(f"{vocabulary} must lie beside {merges.name}: there is no such file.")
    try:
        model = models.BPE.from_file(str(vocabulary), str(merges))
    except Exception as error:  # the library raises nothing more specific
        raise InputError(
            f"{vocabulary} and {merges.name} must be a vocabulary and its merges: "
            f"{one_line(error)}."
        ) from error
    tokenizer = tokenizers.Tokenizer(model)
    if tokenizer.token_to_id(_END_OF_TEXT) is None:
        # OPT's and RoBERTa's pairs look alike, and their special tokens are written elsewhere.
        raise InputError(
            f"{vocabulary} must be GPT-2's and hold {_END_OF_TEXT}, but does not: put the model's "
            "tokenizer_config.json beside it, or give its tokenizer.json instead."
        )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([_END_OF_TEXT])
    return tokenizer


def _whole(file: pathlib.Path, *, with_added: bool) -> tokenizers.Tokenizer:
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more specific
        raise InputError(f"{file} must be a tokenizer.json: {one_line(error)}.") from error
    if with_added and file.with_name(_ADDED).is_file():
        return hf_tokenizers.load_as_it_is(file.parent).backend_tokenizer
    return tokenizer


def _is_configured(path: pathlib.Path) -> bool:
    return path.is_dir() and (path / hf_tokenizers.CONFIG).is_file()


def _by_transformers(file: pathlib.Path) -> tokenizers.Tokenizer:
    """Read the files of a folder as its `tokenizer_config.json` says."""
    if file.suffix == ".model":
        for package in ("sentencepiece", "google.protobuf"):
            if not _is_installed(package):
                raise InputError(
                    f"{file} is a SentencePiece model, which the package {package.split('.')[-1]} "
                    "reads: it is not installed; pip install jaxalign[sentencepiece]."
                )
    config = file.with_name(hf_tokenizers.CONFIG)
    if not config.is_file():
        raise InputError(
            f"{file} must lie beside {config.name}, which says how text is cut: which special "
            "tokens are added, whether letters are lowered. There is no such file."
        )
    loaded = hf_tokenizers.load(file.parent)
    backend = getattr(loaded, "backend_tokenizer", None)
    if backend is None:
        raise InputError(
            f"{config} names {type(loaded).__name__}, which tells no offsets: give the "
            "tokenizer.json of the model instead."
        )
    return backend


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:  # not even the package around it
        return False


def _holds_ranks(path: pathlib.Path) -> bool:
    """Whether a `.model` is lines of base64 and rank, as LLaMA 3's is."""
    with open(path, "rb") as file:
        head = file.readline(1024).split()
    return len(head) == 2 and head[1].isdigit() and head[0].isascii()


def _tiktoken(path: pathlib.Path) -> tokenizers.Tokenizer:
    """Rebuild a tiktoken encoding from its ranks.

    tiktoken joins the adjacent bytes whose union has the lowest rank, again and again.
    """
    ranks = {}
    try:
        for line in path.read_bytes().splitlines():
            if line:
                piece, rank = line.split()
                ranks[base64.b64decode(piece, validate=True)] = int(rank)
    except (ValueError, binascii.Error) as error:
        raise InputError(
            f"{path} must hold lines of base64 and rank: {one_line(error)}."
        ) from error
    if len(ranks) not in PATTERNS_OF_RANKS:
        raise InputError(
            f"{path} must have as many ranks as a known tokenizer "
            f"({', '.join(map(str, PATTERNS_OF_RANKS))}), found {len(ranks)}: how it cuts text is "
            "not known; give the tokenizer.json of the model instead."
        )
    letters = dict(zip(range(256), _byte_letters(), strict=True))
    ids = {"".join(letters[byte] for byte in piece): rank for piece, rank in ranks.items()}
    # A word that is a token is that token, whether or not joins lead to it.
    merges = merges_by_rank(ids, lambda piece: ids[piece])
    model = models.BPE(vocab=ids, merges=merges, ignore_merges=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                tokenizers.Regex(PATTERNS_OF_RANKS[len(ranks)]), behavior="isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _byte_letters() -> list[str]:
    """Return the letter that stands for each byte in byte-level vocabularies.

    Printable bytes of Latin-1 stand for themselves, the others for what follows U+0100.
    """
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = iter(range(0x100, 0x200))
    return [chr(byte) if byte in shown else chr(next(hidden)) for byte in range(256)]


def merges_by_rank(
    ids: Mapping[str, int], rank: Callable[[str], float], *, above: int = -1
) -> list[tuple[str, str]]:
    """Return one merge for every way to cut a piece into two, by the rank of the piece.

    A tokenizer that joins by the rank of the union is BPE with these merges.

    Args:
      ids: piece -> token.
      rank: of a piece; the lowest is joined first.
      above: pieces up to this token are not joined of others.
    """
    merges = []
    for piece, i in ids.items():
        for cut in range(1, len(piece)) if i > above else ():
            if piece[:cut] in ids and piece[cut:] in ids:
                merges.append((rank(piece), i, cut, piece))
    merges.sort()
    return [(piece[:cut], piece[cut:]) for _, _, cut, piece in merges]


def _llama2c(path: pathlib.Path) -> tokenizers.Tokenizer:
    """Rebuild a SentencePiece BPE from llama2.c's list of pieces and scores.

    llama2.c joins, again and again, the pair whose union has the best score.

    Source: karpathy/llama2.c, `run.c`, build_tokenizer and encode.
    """
    data = path.read_bytes()
    pieces, scores, at = [], [], 4
    try:
        while at < len(data):
            score, length = struct.unpack_from("<fi", data, at)
            at += 8
            if length < 0 or at + length > len(data):
                raise struct.error(f"piece {len(pieces)} has {length} bytes")
            pieces.append(data[at : at + length].decode("utf-8"))
            scores.append(score)
            at += length
        if len(pieces) <= _LAST_BYTE:
            raise struct.error(f"{len(pieces)} pieces, fewer than control tokens and bytes")
    except (struct.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be a llama2.c tokenizer: {error}.") from error
    ids = {}
    for i, piece in enumerate(pieces):
        ids[piece.strip() if i in (1, 2) else piece] = i
    merges = merges_by_rank(ids, lambda piece: -scores[ids[piece]], above=_LAST_BYTE)
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab=ids, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.encode_special_tokens = True  # "<s>" in a text is text
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", ids["<s>"])]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer
