"""Checks of a tokenizer: whether it is the model's, and what it makes of a text."""

import collections
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import tokenizers
from jaxtyping import Float

from jaxalign.data.text import hf_tokenizers, prompts
from jaxalign.data.text.passes import Passes
from jaxalign.doctor.findings import FAILED, OK, SKIPPED, WARNING, Finding, judged
from jaxalign.doctor.patient import Patient
from jaxalign.errors import InputError
from jaxalign.models import zoo

ROLES = ("bos", "eos", "pad")
# Marks of the beginning, the inside or the end of a word in vocabularies.
_MARKS = ("\u2581", "\u0120", "##", "</w>")
FEWEST_PAIRS, MOST_PAIRS = 20, 2000
ALIKE_Z = 5.0  # from which tokens of one word are more alike than their neighbours by id
NEIGHBOURS = (-3, -2, -1, 1, 2, 3)
# A cosine that much larger, at most, is that of tokens of different words.
UNLIKE = 0.05
# Largest singular value over that of noise of the same size, from which a table was learned.
LEARNED = 1.3
SHOWN = 40  # parts in the table of tokens


def whose_tokens(examined: Patient) -> Iterator[Finding]:
    """Check that tokenizer and model belong together."""
    try:
        own, rows = examined.tokenizer, examined.model.config.vocab_size
    except InputError as error:
        yield Finding("the tokenizer is the model's", FAILED, str(error).rstrip("."))
        return
    vocabulary = own.get_vocab()
    unused = rows - len({i for i in vocabulary.values() if i < rows})
    # Sizes are rounded up, mostly to a multiple of 64, and some rows are kept for later.
    explained = unused <= max(1024, rows // 50) or rows % 64 == 0
    yield Finding(
        "every row has a token",
        OK if explained else WARNING,
        f"{rows} rows of the embedding, {unused} of which no token stands for",
    )
    yield _alike(own, examined.model)
    yield from _roles(examined.folder, own, examined.model)
    yield _sides(examined.folder, own, examined.model)


def _alike(own: tokenizers.Tokenizer, model: zoo.Model) -> Finding:
    """Check that tokens that spell one word have like rows, as they have in learned tables.

    Each pair (`the` at the beginning of a word and within one; with and without a capital) is
    compared with pairs whose second token has a neighbouring id, which is about as frequent.
    """
    check = "the tokenizer is the model's"
    table = model.word_embedding().astype(np.float32)
    first, second = _pairs(own, len(table))
    if len(first) < FEWEST_PAIRS:
        said = f"only {len(first)} pairs of tokens spell one word in two ways"
        return Finding(check, SKIPPED, said)
    table -= table.mean(axis=0)
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    cosine = lambda other: (table[first] * table[other % len(table)]).sum(axis=1)
    beside = np.mean([cosine(second + step) for step in NEIGHBOURS], axis=0)
    more = cosine(second) - beside
    error = max(float(more.std(ddof=1)) / np.sqrt(len(more)), 1e-12)
    said = (
        f"rows of {len(first)} pairs of tokens that spell one word in two ways have a cosine of "
        f"{cosine(second).mean():.2f}, {beside.mean():.2f} to a token beside it (z "
        f"{more.mean() / error:.1f})"
    )
    if more.mean() > ALIKE_Z * error:
        return Finding(check, OK, said)
    if more.mean() + 3 * error > UNLIKE:
        return Finding(check, SKIPPED, f"{said}: too few to tell")
    if _is_noise(table):
        return Finding(check, SKIPPED, f"{said}: the rows are like random numbers, of no words")
    return Finding(check, FAILED, f"{said}: these are not the tokens that the rows were learned of")


def _pairs(own: tokenizers.Tokenizer, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return tokens that spell the same letters in two ways, in an order by chance."""
    spelled = collections.defaultdict(list)
    special = set(own.get_added_tokens_decoder())
    for piece, i in own.get_vocab().items():
        word = piece
        for mark in _MARKS:
            word = word.removeprefix(mark).removesuffix(mark)
        if i < rows and i not in special and word.isalpha():
            spelled[word.lower()].append(i)
    pairs = np.array(
        [x[:2] for x in map(sorted, spelled.values()) if len(x) > 1], np.int64
    ).reshape(-1, 2)
    chosen = np.random.default_rng(0).permutation(len(pairs))[:MOST_PAIRS]
    return pairs[chosen, 0], pairs[chosen, 1]


def _is_noise(table: Float[np.ndarray, "V E"]) -> bool:
    """Return whether rows are like draws from one normal distribution in each unit.

    The largest singular value of such a matrix is about sd (sqrt V + sqrt E) (Bai and Yin, 1993).
    """
    part = table[np.random.default_rng(0).permutation(len(table))[:2048]].astype(np.float64)
    part = part - part.mean(axis=0)
    edge = part.std() * (np.sqrt(part.shape[0]) + np.sqrt(part.shape[1]))
    largest = np.linalg.eigvalsh(part.T @ part)[-1] ** 0.5
    return bool(largest < LEARNED * edge)


def _roles(folder: pathlib.Path, own: tokenizers.Tokenizer, model: zoo.Model) -> Iterator[Finding]:
    """Compare the special tokens of `config.json` with those of the tokenizer."""
    check = "special tokens of config.json"
    if not folder.is_dir():
        yield Finding(check, SKIPPED, "there is no config.json")
        return
    hf = zoo.read_config(folder)
    text = hf.get("text_config")
    hf = hf | (text if isinstance(text, dict) else {})
    known = _known_roles(folder, own)
    said, wrong = [], []
    for role in ROLES:
        given, named = hf.get(f"{role}_token_id"), known.get(role)
        ids = given if isinstance(given, list) else [given]
        if given is None:
            continue
        name = lambda i: repr(own.id_to_token(i)) if own.id_to_token(i) else "no token"
        shown = ", ".join(f"{i} is {name(i)}" for i in ids if isinstance(i, int) and i >= 0)
        said.append(f"{role} {shown}")
        if named is not None and named not in ids:
            place = f"the tokenizer's is {own.id_to_token(named)!r} ({named})"
            wrong.append((role, f"{role} {shown}, but {place}"))
    counts = _pad_counts(hf, model)
    fatal = [what for role, what in wrong if role == "pad" and counts]
    if fatal:
        reason = "positions are counted from it, so every state is another"
        yield Finding(check, FAILED, f"{'; '.join(fatal)}: {reason}")
    elif wrong:
        yield Finding(check, WARNING, "; ".join(what for _, what in wrong))
    else:
        yield Finding(check, OK, "; ".join(said) or "none is named")


def _known_roles(folder: pathlib.Path, own: tokenizers.Tokenizer) -> dict[str, int]:
    """Return the id of each special token by its role, as far as the tokenizer's files say it."""
    found = {}
    if (folder / hf_tokenizers.CONFIG).is_file():
        loaded = hf_tokenizers.load(folder)
        ids = {role: getattr(loaded, f"{role}_token_id", None) for role in ROLES}
        found = {role: i for role, i in ids.items() if i is not None}
    padding = _stored(folder).get("padding")
    if isinstance(padding, dict) and "pad" not in found and "pad_id" in padding:
        found["pad"] = padding["pad_id"]
    names = [x for x in own.get_vocab() if x.strip("<>[]|").lower() == "pad"]
    if "pad" not in found and len(names) == 1:
        found["pad"] = own.token_to_id(names[0])
    return found


def _stored(folder: pathlib.Path) -> dict[str, Any]:
    """Return the content of `tokenizer.json`, whose padding extraction switches off."""
    file = folder / "tokenizer.json" if folder.is_dir() else folder
    if file.suffix != ".json" or not file.is_file():
        return {}
    return json.loads(file.read_text(encoding="utf-8"))


def _pad_counts(hf: dict, model: zoo.Model) -> bool:
    """Return whether states depend on which token pads, as RoBERTa's positions do."""
    given = hf.get("pad_token_id")
    if not isinstance(given, int) or not hasattr(model.config, "first_position"):
        return False
    return model.config.first_position == given + 1


def _sides(folder: pathlib.Path, own: tokenizers.Tokenizer, model: zoo.Model) -> Finding:
    """Name padding on the left, which jaxalign never does and other scripts do."""
    check, sides = "side of padding", set()
    padding = _stored(folder).get("padding")
    if isinstance(padding, dict) and padding.get("direction"):
        sides.add(str(padding["direction"]).lower())
    file = folder / hf_tokenizers.CONFIG
    if folder.is_dir() and file.is_file():
        side = json.loads(file.read_text(encoding="utf-8")).get("padding_side")
        sides |= {str(side).lower()} if side else set()
    if "left" not in sides:
        return Finding(check, OK, "right, or none is named")
    absolute = getattr(model.config, "learned_positions", not model.causal)
    said = "the tokenizer's files ask for padding on the left; extraction pads on the right"
    if absolute:
        said += (
            ", for which the model's positions were learned: scripts that follow the files, and "
            "give no positions, have other states"
        )
    return Finding(check, WARNING if absolute else OK, said)


def what_is_read(examined: Patient) -> tuple[list[Finding], pd.DataFrame]:
    """Show the tokens of each part, and count those that are unknown, shared or nobody's.

    Returns:
      Findings, and the tokens of the first parts.
    """
    reading, own = examined.read(), examined.tokenizer
    passes, stimuli = reading.passes, examined.stimuli
    counts = passes.counts
    rows = []
    named = lambda ids: " ".join(own.id_to_token(int(i)) or f"[{i}]" for i in ids)
    for i in range(min(len(stimuli), SHOWN)):
        row = passes.rows[passes.row[i]]
        rows.append(
            {
                "stimulus_id": stimuli.stimulus_id[i],
                "text": stimuli.text[i],
                "tokens": named(row[passes.start[i] : passes.stop[i]]),
                "of_surprisal": named(
                    passes.rows[passes.predicted.row[i]][
                        passes.predicted.start[i] : passes.predicted.stop[i]
                    ]
                )
                if passes.predicted.defined[i]
                else "",
                "pass": int(passes.row[i]),
                "from": int(passes.start[i]),
                "to": int(passes.stop[i]) - 1,
            }
        )
    said = (
        f"{counts.own_tokens} tokens of {len(stimuli)} parts in {counts.passes} passes; "
        f"{counts.shared_tokens} reach into more than one part; "
    )
    nobody = _nobodys(passes, own)
    said += ", ".join(f"{count} x {name!r}" for name, count in nobody.items()) or "none"
    found = [Finding("tokens of parts", OK, f"{said} are nobody's")]
    share = counts.unknown_tokens / counts.own_tokens
    found.append(
        Finding(
            "the tokenizer knows the text",
            WARNING if counts.unknown_tokens else OK,
            f"{counts.unknown_tokens} of {counts.own_tokens} tokens ({share:.0%}) stand for text "
            "that it does not know",
        )
    )
    first = passes.rows[0]
    begins = _twice(first, own)
    left = named(first[: passes.start[0]]) if passes.row[0] == 0 else ""
    found.append(
        judged(
            "beginning of a row",
            not begins,
            f"{begins} stands there twice" if begins else f"{left!r} comes before the first part",
        )
    )
    return found, pd.DataFrame(rows)


def _nobodys(passes: Passes, own: tokenizers.Tokenizer) -> collections.Counter[str]:
    """Count the tokens of all passes that stand for no part: special ones, and lone spaces."""
    special = {i for i, x in own.get_added_tokens_decoder().items() if x.special}
    whose = [np.zeros(len(row), bool) for row in passes.rows[: passes.counts.passes]]
    for row, start, stop in zip(passes.row, passes.start, passes.stop, strict=True):
        whose[row][start:stop] = True
    found = collections.Counter()
    for row, taken in zip(passes.rows, whose, strict=False):
        for token in row[~taken].tolist():
            # The others are words that the part is read behind.
            if token in special or not own.decode([token]).strip():
                found[str(own.id_to_token(token))] += 1
    return found


def _twice(row: np.ndarray, own: tokenizers.Tokenizer) -> str:
    """Return the special token that a row begins with twice; "" if there is none."""
    special = {i for i, x in own.get_added_tokens_decoder().items() if x.special}
    twice = len(row) > 1 and row[0] == row[1] and int(row[0]) in special
    return str(own.id_to_token(int(row[0]))) if twice else ""


def chat(examined: Patient) -> list[Finding]:
    """Render the model's chat template around a text, and look at how the row begins."""
    check, folder = "chat template", examined.folder
    folder = folder if folder.is_dir() else folder.parent
    if not (folder / hf_tokenizers.CONFIG).is_file():
        return [Finding(check, SKIPPED, "there is none: no tokenizer_config.json")]
    if not getattr(hf_tokenizers.load(folder), "chat_template", None):
        return [Finding(check, SKIPPED, "there is none")]
    try:
        frame = prompts.chat(folder, examined.stimuli.text[:1])
    except InputError as error:
        return [Finding(check, FAILED, str(error).rstrip("."))]
    own, text = examined.tokenizer, examined.stimuli.text[0]
    whole = frame.before + text + frame.after
    bare = np.array(own.encode(whole, add_special_tokens=False).ids)
    if twice := _twice(bare, own):
        said = f"it begins with {twice} twice: {frame.before!r}"
        return [Finding(check, FAILED, said)]
    said = f"{frame.before!r} comes before a text, and {frame.after!r} after it"
    if twice := _twice(np.array(own.encode(whole).ids), own):
        said += (
            f"; who tokenises what it writes with special tokens has {twice} twice, which "
            "extraction does not"
        )
    return [Finding(check, OK, said)]
