"""Context rules: from parts of texts to a plan of forward passes, and where each part is read."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Int

from jaxalign.data.schema import Stimuli
from jaxalign.data.text import control, joining, passes, spans
from jaxalign.data.text.joining import Joined
from jaxalign.data.text.passes import Passes, View
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
    if frame.joining not in joining.JOININGS:
        raise InputError(
            f"joining must be one of {', '.join(joining.JOININGS)}, got {frame.joining!r}."
        )
    spaces = joining.spaces(stimuli)
    with control.literal(tokenizer, frame.before, frame.after) as literal:
        left, right = _around(tokenizer, frame, literal, stimuli.text[0])
        setting = _Setting(
            literal=literal,
            joining=frame.joining,
            rule=parsed,
            causal=causal,
            max_length=max_length,
            room=max_length - len(left) - len(right),
            cuttable=parsed != parse("none") and spans.cuts_at_spaces(literal.tokenizer),
        )
        seen = [
            _see(setting, _Text(stimuli.text[first:last], spaces.before[first:last]))
            for first, last in _texts(stimuli)
        ]
    views = [view for text in seen for view in text.views]
    for i, view in enumerate(views):
        _check(view, f"stimulus {stimuli.stimulus_id[i]!r} ({_short(stimuli.text[i])!r})", setting)
    around = passes.Around(left, right, literal.ids)
    found = passes.assemble(views, around, causal=causal, unknown=control.unknown_id(tokenizer))
    counts = found.counts._replace(
        texts=len(seen),
        searched_texts=sum(text.searched for text in seen),
        shared_tokens=sum(text.num_shared for text in seen),
        guessed_joints=spaces.num_guessed if frame.joining == "text" else 0,
    )
    return found._replace(counts=counts)


def _texts(stimuli: Stimuli) -> Iterator[tuple[int, int]]:
    first = 0
    for i in range(1, len(stimuli) + 1):
        if i == len(stimuli) or stimuli.passage[i] != stimuli.passage[first]:
            yield first, i
            first = i


class _Setting(NamedTuple):
    literal: control.Literal
    joining: str
    rule: Rule
    causal: bool
    max_length: int
    room: int  # tokens that a row may have in addition to special ones
    cuttable: bool

    def join(self, text: "_Text", first: int, last: int) -> Joined:
        """Join some adjacent parts of a text."""
        return joining.join(text.parts[first:last], self.joining, text.spaces[first:last])

    def encode(self, texts: Iterable[str]) -> Iterable[Encoded]:
        """Tokenise texts with what the frame puts around them."""
        framed = (self.literal.before + text + self.literal.after for text in texts)
        return spans.encode(self.literal.tokenizer, framed)


class _Text(NamedTuple):
    """Adjacent parts of one passage, and whether each has a space before it."""

    parts: Sequence[str]
    spaces: Sequence[bool]


class _Seen(NamedTuple):
    """What the parts of one text see.

    Attributes:
      views: of each part.
      searched: whether every prefix was tokenised from its beginning.
      num_shared: tokens that reach into more than one part.
    """

    views: list[View]
    searched: bool
    num_shared: int


class _Places(NamedTuple):
    """Where parts are in the tokens of a text; `head` tokens are before it."""

    head: int
    start: Int[np.ndarray, " m"]
    stop: Int[np.ndarray, " m"]
    lead: Int[np.ndarray, " m"]


def _around(tokenizer, frame: Frame, literal: control.Literal, text: str):
    """Return the tokens before and after every row."""
    left = right = np.zeros(0, np.int32)
    if frame.special_tokens:
        left, right = spans.special_tokens(tokenizer, text)
    if len(left) and left[0] == literal.first:
        raise InputError(
            f"extract.prompt must not begin with {tokenizer.id_to_token(literal.first)!r}, got "
            f"{_short(frame.before)!r}: the tokenizer adds it already."
        )
    if not frame.bos:
        return left, right
    token = tokenizer.token_to_id(frame.bos)
    if token is None:
        raise InputError(f"extract.bos must be a token of the tokenizer, got {frame.bos!r}.")
    if len(left) and left[0] == token:
        raise InputError(
            f"extract.bos must be empty, got {frame.bos!r}: the tokenizer adds it already."
        )
    if literal.first == token:
        raise InputError(
            f"extract.bos must be empty, got {frame.bos!r}: the prompt or chat template begins "
            "with it."
        )
    return np.concatenate([np.array([token], np.int32), left]), right


def _see(setting: _Setting, text: _Text) -> _Seen:
    """Return what the parts of a text see."""
    rule, num = setting.rule, len(text.parts)
    # Windows that begin where the text does are its prefixes too.
    num_grown = min(rule.size, num) if rule.kind == "parts" else num
    if rule.kind == "parts" and (num_grown == 1 or not setting.causal):
        num_grown = 0
    seen = _see_prefixes(setting, text, num_grown) if num_grown else _Seen([], False, 0)
    windows = list(_see_windows(setting, text, range(num_grown, num)))
    # Of a window only its last part is read.
    reach = sum(view.lead > view.start for view in windows)
    return seen._replace(views=seen.views + windows, num_shared=seen.num_shared + reach)


def _see_prefixes(setting: _Setting, text: _Text, num: int) -> _Seen:
    """Return what the first parts of a text see of it."""
    literal = setting.literal
    joined, n = setting.join(text, 0, num), len(literal.before)
    prefixes = spans.find_prefixes(
        literal.tokenizer, literal.before, joined, literal.after, cuttable=setting.cuttable
    )
    starts, stops = joined.start + n, joined.stop + n
    places = _locate(prefixes.whole, starts, stops, n)
    held = (prefixes.count >= places.stop) & (places.stop > places.start)
    views = [
        View(prefixes.whole.ids, places.head, places.head, a, b, c, d, tail, False, shared=True)
        for a, b, c, d, tail in zip(
            *(x.tolist() for x in places[1:]),
            np.where(held, prefixes.count, places.stop).tolist(),
            prefixes.tail,
            strict=True,
        )
    ]
    begins = _begins(setting, views)
    views = [v._replace(begin=b, cut=b > v.head) for v, b in zip(views, begins, strict=True)]
    changed = np.flatnonzero(~held)
    encodings = setting.encode(joined.text[: joined.stop[i]] for i in changed)
    for i, encoded in zip(changed, encodings, strict=True):
        alone = _view_alone(encoded, starts[: i + 1], stops[: i + 1], n)
        begin = _begin_alone(setting, alone, views[i])
        predicted = views[i]._replace(tail=views[i].tail[:0]) if setting.causal else None
        views[i] = alone._replace(
            begin=begin, cut=begin > alone.head, changed=True, predicted=predicted
        )
    num_shared = passes.count_shared(places.start.tolist(), places.stop.tolist())
    return _Seen(views, prefixes.searched, num_shared)


def _see_windows(setting: _Setting, text: _Text, which: range) -> Iterator[View]:
    """Yield what parts see of windows that are texts of their own."""
    n = len(setting.literal.before)
    windows = [setting.join(text, max(0, i - setting.rule.size + 1), i + 1) for i in which]
    encodings = setting.encode(window.text for window in windows)
    for i, window, encoded in zip(which, windows, encodings, strict=True):
        view = _view_alone(encoded, window.start + n, window.stop + n, n)
        yield view._replace(cut=i >= setting.rule.size)


def _view_alone(encoded: Encoded, starts, stops, num_before: int) -> View:
    """Return what the last of some parts sees of a text that ends with it."""
    head, start, stop, lead = _locate(encoded, starts[-2:], stops[-2:], num_before)
    count = max(spans.count_until(encoded, stops[-1:])[0], stop[-1])
    return View(
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


def _locate(encoded: Encoded, starts, stops, num_before: int) -> _Places:
    """Find parts in the tokens of their text; `lead` is behind all that began in parts before."""
    head = int(spans.count_until(encoded, np.array([num_before]))[0])
    start, stop = spans.own_tokens(encoded, starts, stops)
    return _Places(head, start, stop, np.maximum.accumulate(np.append(head, stop[:-1])))


def _begins(setting: _Setting, views: Sequence[View]) -> list[int]:
    """Return the first token of the context of each part of a text, by the rule."""
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
            min(views[j].lead, v.lead) if j else head for j, v in zip(first, views, strict=True)
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
        begins.append(begin)
    return begins


def _begin_alone(setting: _Setting, view: View, shared: View) -> int:
    """Return the first token of the context of a part that has other tokens than its text.

    Args:
      setting: the rule.
      view: of the part in tokens of its own.
      shared: of the part in those of the text, which are the same up to some near its end.
    """
    kind, size, _ = setting.rule
    room = setting.room - view.head - len(view.tail)
    if kind == "tokens":
        return max(view.head, view.count - size)
    if kind == "slide":
        return max(view.head, view.count - room)
    if kind == "restart":
        return min(max(shared.begin, view.count - room), view.lead)
    return min(shared.begin, view.lead)


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _check(view: View, named: str, setting: _Setting) -> None:
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
