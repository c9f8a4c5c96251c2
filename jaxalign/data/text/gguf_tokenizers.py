"""The tokenizer that a GGUF file holds, as the files that Hugging Face's are read from.

Two kinds are known: byte-level BPE ("gpt2"), whose file names the rule by which text is cut before
pieces are joined, and SentencePiece's BPE ("llama"), which joins the pair whose union has the best
score. Source: ggml-org/llama.cpp, `llama-vocab.cpp`.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from jaxalign.data.text import tokenizer_files
from jaxalign.errors import InputError, one_line

# Of tokenizer.ggml.token_type.
_CONTROL, _USER_DEFINED = 3, 4
_SPACE = "▁"

# tokenizer.ggml.pre -> pattern of pieces that are joined on their own, and whether text is brought
# to normal form C before. "" cuts as GPT-2 does, after single digits were set apart.
_PATTERNS = {
    "gpt-2": (tokenizer_files.GPT2_PATTERN, False),
    "llama-bpe": (tokenizer_files.CL100K_PATTERN, False),
    "qwen2": (tokenizer_files.QWEN_PATTERN, True),
    "smollm": ("", False),
}


def read(said: Mapping[str, Any], *, source: str) -> dict[str, object]:
    """Return the content of `tokenizer.json` and `tokenizer_config.json`, by name.

    Args:
      said: key -> value of the file.
      source: the file, for messages.

    Raises:
      InputError: if the kind, or the rule of cutting text, is not known, or it is incomplete.
    """
    at = lambda key, default=None: said.get(f"tokenizer.ggml.{key}", default)
    kind = at("model")
    if kind not in ("gpt2", "llama"):
        raise InputError(
            f"{source}: tokenizer.ggml.model must be gpt2 or llama, found {kind!r}: put the "
            "tokenizer.json of the original model into the converted folder."
        )
    pieces, types = at("tokens"), at("token_type")
    listed = {"tokens": pieces, "token_type": types}
    listed |= {"merges": at("merges")} if kind == "gpt2" else {"scores": at("scores")}
    for key, values in listed.items():
        if not isinstance(values, list):
            raise InputError(f"{source} must hold tokenizer.ggml.{key}: it does not.")
    if len(types) != len(pieces) or len(listed.get("scores", pieces)) != len(pieces):
        raise InputError(f"{source}: the lists of its tokenizer must be of one length.")
    try:
        if kind == "gpt2":
            built = _byte_level(pieces, listed["merges"], at("pre"), source)
        else:
            is_gemma = said.get("general.architecture") == "gemma"
            # Gemma joins in the order of its vocabulary, whatever the scores say.
            scores = [-float(i) for i in range(len(pieces))] if is_gemma else listed["scores"]
            built = _sentence_piece(pieces, scores, at("add_space_prefix", not is_gemma))
    except InputError:
        raise
    except Exception as error:  # the library raises nothing more specific
        raise InputError(f"{source} must hold a tokenizer: {one_line(error)}.") from error
    added = [
        AddedToken(piece, normalized=False, special=type_ == _CONTROL)
        for piece, type_ in zip(pieces, types, strict=True)
        if type_ in (_CONTROL, _USER_DEFINED)
    ]
    built.add_special_tokens([x for x in added if x.special])
    built.add_tokens([x for x in added if not x.special])
    names = {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        i = at(f"{key}_token_id")
        if i is not None:
            names[f"{name}_token"] = pieces[i]
    first = at("add_bos_token", kind == "llama") and names.get("bos_token")
    last = at("add_eos_token", False) and names.get("eos_token")
    if first or last:
        built.post_processor = processors.TemplateProcessing(
            single=[x for x in (first, "$A", last) if x],
            special_tokens=[(x, pieces.index(x)) for x in {first, last} if x],
        )
    template = said.get("tokenizer.chat_template")
    return {
        "tokenizer.json": json.loads(built.to_str()),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **names,
            **({"chat_template": template} if template else {}),
        },
    }


def _byte_level(
    pieces: Sequence[str], merges: Sequence[str], rule: str, source: str
) -> tokenizers.Tokenizer:
    if rule not in _PATTERNS:
        raise InputError(
            f"{source}: tokenizer.ggml.pre must be one of {', '.join(_PATTERNS)}, found {rule!r}: "
            "put the tokenizer.json of the original model into the converted folder."
        )
    pattern, has_normal_form = _PATTERNS[rule]
    ids = {piece: i for i, piece in enumerate(pieces)}
    cuts = [merge.partition(" ") for merge in merges]
    pairs = [(left, right) for left, _, right in cuts]
    # LLaMA 3 takes a word that is a token as it is, whether or not joins lead to it.
    whole = rule == "llama-bpe"
    built = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=pairs, ignore_merges=whole))
    if has_normal_form:
        built.normalizer = normalizers.NFC()
    if pattern:
        cut = [
            pre_tokenizers.Split(tokenizers.Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    else:
        cut = [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    built.pre_tokenizer = pre_tokenizers.Sequence(cut)
    built.decoder = decoders.ByteLevel()
    return built


def _sentence_piece(
    pieces: Sequence[str], scores: Sequence[float], has_prefix: bool
) -> tokenizers.Tokenizer:
    # Gemma's runs of spaces are written as spaces, while its text has the sign in their place.
    spelled = [_SPACE * len(x) if x and not x.strip(" ") else x for x in pieces]
    ids = {piece: i for i, piece in enumerate(spelled)}
    merges = tokenizer_files.merges_by_rank(ids, lambda piece: -scores[ids[piece]])
    built = tokenizers.Tokenizer(
        models.BPE(vocab=ids, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    prefix = [normalizers.Prepend(_SPACE)] if has_prefix else []
    built.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", _SPACE)])
    shown = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    built.decoder = decoders.Sequence(
        [*shown, *([decoders.Strip(" ", 1, 0)] if has_prefix else [])]
    )
    return built
