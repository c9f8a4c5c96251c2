"""Context rules: from parts of texts to a plan of forward passes, and where each part is read."""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Bool, Int

from jaxalign.data.schema import Stimuli
from jaxalign.data.text import spans
from jaxalign.data.text.prompts import BARE, Frame
from jaxalign.data.text.spans import Encoded
from jaxalign.errors import InputError

Kind = Literal["parts", "tokens", "accumulate", "slide", "restart", "chunk"]

_RULES = (
    "none, window:N, window:Ntokens (N >= 1), accumulate, accumulate:slide, accumulate:restart, "
    "chunk or chunk:A-B (0 <= A < B)"
)


class Rule(NamedTuple):
    """A context rule; see `parse`."""

    kind: Kind
    size: int = 0  # parts or tokens of a window; B of a chunk
    least: int = 0  # A of a chunk


class Counts(NamedTuple):
    """What a plan came to.

    Attributes:
      texts: runs of adjacent parts of one passage.
      passes, tokens: rows to compute, and their tokens.
      separate_tokens: tokens of one row for each part, as one by one they would be encoded.
      fallbacks: parts whose tokens depend on what follows, so that they got a row of their own
        where others share one.
      searched_texts: texts of which every prefix had to be tokenised from its beginning.
      cut_contexts: parts that do not see the beginning of their text.
      truncated_parts: parts that do not see the beginning of themselves.
    """

    texts: int
    passes: int
    tokens: int
    separate_tokens: int
    fallbacks: int
    searched_texts: int
    cut_contexts: int
    truncated_parts: int


class Passes(NamedTuple):
    """Rows of tokens to run, and where the parts lie in them.

    Part i is read in rows[row[i]]; the positions below are in that row.

    Attributes:
      rows: tokens of each pass, special tokens included.
      row: of each part.
      start, stop: its own tokens, at least one: those that stand for its characters.
      lead: first token that its surprisal counts: after the part before it, so that a space that
        is a token by itself is counted.
      predictable: whether all tokens of its surprisal are in the row, with a token before them.
      length: tokens of the row up to here are those that the part sees.
      complete: whether these are all that a row for this part alone would hold; what lacks comes
        after the part, where a causal model's states of it do not depend on it.
      counts: what the plan came to.
    """

    rows: list[Int[np.ndarray, " _"]]
    row: Int[np.ndarray, " m"]
    start: Int[np.ndarray, " m"]
    stop: Int[np.ndarray, " m"]
    lead: Int[np.ndarray, " m"]
    predictable: Bool[np.ndarray, " m"]
    length: Int[np.ndarray, " m"]
    complete: Bool[np.ndarray, " m"]
    counts: Counts


def parse(rule: str) -> Rule:
    """Return a context rule by its name.

    * `none`: the part alone, `window:1`.
    * `window:N`: the part and the N-1 before it, tokenised as a text of their own (csinva/fmri:
      10-word windows).
    * `window:Ntokens`: the last N tokens of the text up to the end of the part (LITcoder:
      256 tokens; there by GPT-2's tokenizer and decoded again, here by the model's own).
    * `accumulate`: the text up to the end of the part. It must fit the model.
    * `accumulate:slide`: the same, cut on the left to the model's length for each part, which
      costs a pass for each part beyond it (Brain-Score: `truncation_side="left"`, so that special
      tokens stay and positions count from the cut).
    * `accumulate:restart`: the same up to the model's length; then a new pass begins half a
      length back, and so on. No token is in more than two passes.
    * `chunk:A-B`, `chunk` for 256-512: the context grows to B parts; the next part sees A + 1,
      and it grows again (Huth lab: in words; here in parts, which are words where stimuli are).

    But for `none` and `window:N`, contexts are tokens of the whole text up to the part, not of a
    text that begins with the context: a part in mid-text keeps the space before it.

    Source: brain-score/language, model_helpers/huggingface.py, digest_text;
    HuthLab/encoding-model-scaling-laws, ridge_utils/tokenization_helpers.py,
    generate_efficient_feat_dicts_opt, whose exceptions for empty words and "'s" are left out.

    Raises:
      InputError: if it is none of these.
    """
    fixed = {
        "none": Rule("parts", 1),
        "accumulate": Rule("accumulate"),
        "accumulate:slide": Rule("slide"),
        "accumulate:restart": Rule("restart"),
        "chunk": Rule("chunk", 512, 256),
    }
    if rule in fixed:
        return fixed[rule]
    if match := re.fullmatch(r"window:([1-9][0-9]*)(tokens)?", rule):
        return Rule("tokens" if match[2] else "parts", int(match[1]))
    match = re.fullmatch(r"chunk:(0|[1-9][0-9]*)-([1-9][0-9]*)", rule)
    if match and int(match[1]) < int(match[2]):
        return Rule("chunk", int(match[2]), int(match[1]))
    raise InputError(f"extract.context must be {_RULES}, got {rule!r}.")


def plan(
    tokenizer: tokenizers.Tokenizer,
    stimuli: Stimuli,
    rule: str,
    *,
    max_length: int,
    causal: bool,
    frame: Frame = BARE,
) -> Passes:
    """Plan the forward passes that show every part in its context.

    Parts of a causal model share a row where their contexts begin at the same token and the
    tokens of the shorter are proven to begin those of the longer; see
    `spans.find_prefixes`. Every other part has a row of its own.

    Args:
      tokenizer: from `tokenizer_files.load`.
      stimuli: parts; context never leaves a run of adjacent parts of one passage.
      rule: see `parse`.
      max_length: most tokens the model takes.
      causal: whether states depend on earlier tokens only.
      frame: what stands around every part and its context, and between parts.

    Raises:
      InputError: naming the part, if it has no token or does not fit.
    """
    parsed = parse(rule)
    if frame.joining not in spans.JOININGS:
        raise InputError(
            f"joining must be one of {', '.join(spans.JOININGS)}, got {frame.joining!r}."
        )
    left, right = _around(tokenizer, frame, stimuli.text[0])
    setting = _Setting(
        tokenizer=tokenizer,
        frame=frame,
        rule=parsed,
        max_length=max_length,
        room=max_length - len(left) - len(right),
        cuttable=parsed != parse("none") and spans.cuts_at_spaces(tokenizer),
    )
    views, num_texts, num_searched = [], 0, 0
    for first, last in _texts(stimuli):
        parts = list(stimuli.text[first:last])
        # Windows that begin where the text does are its prefixes too.
        num_grown = min(parsed.size, len(parts)) if parsed.kind == "parts" else len(parts)
        if parsed.kind == "parts" and (num_grown == 1 or not causal):
            num_grown = 0
        if num_grown:
            found, searched = _see_prefixes(setting, parts[:num_grown])
            views += found
            num_searched += searched
        views += _see_windows(setting, parts, range(num_grown, len(parts)))
        num_texts += 1
    for i, view in enumerate(views):
        _check(view, f"stimulus {stimuli.stimulus_id[i]!r} ({_short(stimuli.text[i])!r})", setting)
    return _assemble(views, left, right, causal, num_texts, num_searched)


def _texts(stimuli: Stimuli) -> Iterator[tuple[int, int]]:
    first = 0
    for i in range(1, len(stimuli) + 1):
        if i == len(stimuli) or stimuli.passage[i] != stimuli.passage[first]:
            yield first, i
            first = i


class _Setting(NamedTuple):
    tokenizer: tokenizers.Tokenizer
    frame: Frame
    rule: Rule
    max_length: int
    room: int  # tokens that a row may have in addition to special ones
    cuttable: bool


class _View(NamedTuple):
    """What one part sees: ids[:head], ids[begin:count] and tail; its own are ids[start:stop].

    Where `shared`, other parts have the same `ids`, and the tokens before `count` are proven to
    be what the part would see by itself. Where `changed`, that was tried and found false.
    """

    ids: Int[np.ndarray, " t"]
    head: int
    begin: int
    start: int
    stop: int
    lead: int
    count: int
    tail: Int[np.ndarray, " s"]
    cut: bool  # whether it does not see the beginning of its text
    shared: bool = False
    changed: bool = False


def _around(tokenizer, frame: Frame, text: str):
    """Return the tokens before and after every row."""
    left = right = np.zeros(0, np.int32)
    if frame.special_tokens:
        left, right = spans.special_tokens(tokenizer, text)
    if not frame.bos:
        return left, right
    token = tokenizer.token_to_id(frame.bos)
    if token is None:
        raise InputError(f"bos must be a token of the tokenizer, got {frame.bos!r}.")
    if len(left) and left[0] == token:
        raise InputError(f"bos must be empty, got {frame.bos!r}: the tokenizer adds it already.")
    return np.concatenate([np.array([token], np.int32), left]), right


def _see_prefixes(setting: _Setting, parts: list[str]) -> tuple[list[_View], bool]:
    """Return what parts see of the text that they make, and whether all was tokenised again."""
    before, after, *_ = setting.frame
    joined = spans.join(parts, setting.frame.joining)
    prefixes = spans.find_prefixes(
        setting.tokenizer, before, joined, after, cuttable=setting.cuttable
    )
    starts, stops = joined.start + len(before), joined.stop + len(before)
    head, start, stop, lead = _locate(prefixes.whole, starts, stops, len(before))
    held = (prefixes.count >= stop) & (stop > start)
    views = []
    places = zip(start.tolist(), stop.tolist(), lead.tolist(), prefixes.count.tolist(), strict=True)
    for (a, b, c, d), tail in zip(places, prefixes.tail, strict=True):
        views.append(_View(prefixes.whole.ids, head, head, a, b, c, d, tail, False, shared=True))
    changed = np.flatnonzero(~held)
    texts = (before + joined.text[: joined.stop[i]] + after for i in changed)
    for i, encoded in zip(changed, spans.encode(setting.tokenizer, texts), strict=True):
        alone = _view_alone(encoded, starts[: i + 1], stops[: i + 1], len(before))
        views[i] = alone._replace(changed=True)
    begins = _begins(setting, views, lead)
    views = [v._replace(begin=b, cut=b > head) for v, b in zip(views, begins, strict=True)]
    return views, prefixes.searched


def _see_windows(setting: _Setting, parts: list[str], which: range) -> Iterator[_View]:
    """Yield what parts see of windows that are texts of their own."""
    before, after, *_ = setting.frame
    windows = [
        spans.join(parts[max(0, i - setting.rule.size + 1) : i + 1], setting.frame.joining)
        for i in which
    ]
    texts = (before + window.text + after for window in windows)
    encodings = spans.encode(setting.tokenizer, texts)
    n = len(before)
    for i, window, encoded in zip(which, windows, encodings, strict=True):
        view = _view_alone(encoded, window.start + n, window.stop + n, n)
        yield view._replace(cut=i >= setting.rule.size)


def _view_alone(encoded: Encoded, starts, stops, num_before: int) -> _View:
    """Return what the last of some parts sees of a text that ends with it."""
    head, start, stop, lead = _locate(encoded, starts[-2:], stops[-2:], num_before)
    count = max(spans.count_until(encoded, stops[-1:])[0], stop[-1])
    return _View(
        ids=encoded.ids,
        head=head,
        begin=head,
        start=int(start[-1]),
        stop=int(stop[-1]),
        lead=int(lead[-1]),
        count=int(count),
        tail=encoded.ids[count:],
        cut=False,
    )


def _locate(encoded: Encoded, starts, stops, num_before: int):
    """Return how many tokens come before the text, and of each part start, stop and lead."""
    head = int(spans.count_until(encoded, np.array([num_before]))[0])
    start, stop = spans.own_tokens(encoded, starts, stops)
    lead = np.minimum(start, np.append(head, stop[:-1]))
    return head, start, stop, lead


def _begins(setting: _Setting, views: list[_View], lead: Int[np.ndarray, " m"]) -> list[int]:
    """Return the first token of each part's context, by the rule."""
    kind, size, least = setting.rule
    head = views[0].head
    # The tail, where there is one, must fit too.
    room = setting.room - head - max(len(view.tail) for view in views)
    if kind in ("parts", "accumulate"):
        return [head] * len(views)
    if kind == "chunk":
        step = size - least
        first = [max(0, -(-(i - size) // step)) * step for i in range(len(views))]
        return [
            min(int(lead[j]), view.lead) if j else head
            for j, view in zip(first, views, strict=True)
        ]
    if kind == "tokens":
        return [max(head, view.count - size) for view in views]
    if room < 1:
        raise InputError(
            f"the prompt must leave room for text: it and special tokens take {head} of the "
            f"{setting.room} tokens of a row."
        )
    if kind == "slide":
        return [max(head, view.count - room) for view in views]
    begins, begin, end, ended = [], head, head, head
    for view in views:
        if view.count - begin > room:
            # Not before the end of the pass before: no token is in three passes.
            begin = max(end - room // 2, ended)
            ended = end
        end = max(end, view.count)
        begin = max(begin, view.count - room)
        begins.append(min(begin, view.lead) if view.changed else begin)
    return begins


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _check(view: _View, named: str, setting: _Setting) -> None:
    """Refuse a part without tokens, or that does not fit."""
    if view.stop <= view.start:
        raise InputError(f"every part must have a token: the tokenizer finds none in {named}.")
    length = view.head + view.count - view.begin + len(view.tail)
    if length > setting.room:
        advice = "choose a shorter context"
        if setting.rule.kind == "accumulate":
            advice = "choose accumulate:slide, accumulate:restart or a shorter context"
        raise InputError(
            f"a part and its context must fit the model's {setting.max_length} tokens: {named} "
            f"has {length + setting.max_length - setting.room}; {advice}."
        )


def _assemble(views: list[_View], left, right, causal, num_texts, num_searched) -> Passes:
    """Build rows, one for all parts of a causal model that begin with the same tokens."""
    groups = {}
    for i, view in enumerate(views):
        key = (id(view.ids), view.begin) if causal and view.shared else i
        groups.setdefault(key, []).append(i)
    m = len(views)
    rows, row, shift, length = [], np.zeros(m, int), np.zeros(m, int), np.zeros(m, int)
    complete = np.ones(m, bool)
    for members in groups.values():
        view = max((views[i] for i in members), key=lambda view: view.count)
        parts = [left, view.ids[: view.head], view.ids[view.begin : view.count]]
        if len(members) == 1:
            parts += [view.tail, right]
        row[members] = len(rows)
        rows.append(np.concatenate(parts))
        for i in members:
            shift[i] = len(left) + view.head - view.begin
            length[i] = views[i].count + shift[i] if len(members) > 1 else len(rows[-1])
            complete[i] = len(members) == 1 or len(views[i].tail) + len(right) == 0
    column = {name: np.array([getattr(v, name) for v in views]) for name in _View._fields[1:7]}
    alone = column["head"] + column["count"] - column["begin"] + len(left) + len(right)
    counts = Counts(
        texts=num_texts,
        passes=len(rows),
        tokens=sum(map(len, rows)),
        separate_tokens=int(alone.sum()) + sum(len(view.tail) for view in views),
        fallbacks=sum(view.changed for view in views) if causal else 0,
        searched_texts=num_searched,
        cut_contexts=sum(view.cut for view in views),
        truncated_parts=int((column["start"] < column["begin"]).sum()),
    )
    return Passes(
        rows=rows,
        row=row,
        start=np.maximum(column["start"], column["begin"]) + shift,
        stop=column["stop"] + shift,
        lead=np.maximum(column["lead"], column["begin"]) + shift,
        predictable=(column["lead"] >= column["begin"]) & (column["lead"] + shift > 0),
        length=length,
        complete=complete,
        counts=counts,
    )
