"""What parts see, put together to rows of tokens: which passes to run, and what to read in them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxalign.data.text import control


class View(NamedTuple):
    """What one part sees: ids[:head], ids[begin:count] and tail; its own are ids[start:stop].

    Its surprisal counts ids[lead:stop]. Where `shared`, other parts have the same `ids`, and the
    tokens before `count` are proven to be what the part would see by itself. Where `changed`, that
    was tried and found false; `predicted` is then the part in the tokens of the whole text. `cut`
    says whether the beginning of the text is not seen.
    """

    ids: Int[np.ndarray, " t"]
    head: int
    begin: int
    start: int
    stop: int
    lead: int
    count: int
    tail: Int[np.ndarray, " s"]
    cut: bool
    shared: bool = False
    changed: bool = False
    predicted: "View | None" = None


class Around(NamedTuple):
    """What is around the tokens of every view.

    Attributes:
      left, right: tokens before and after, by their own ids.
      ids: own id of each id in the views that is another there; see `control.Literal`.
    """

    left: Int[np.ndarray, " b"]
    right: Int[np.ndarray, " a"]
    ids: Mapping[int, int]


class Counts(NamedTuple):
    """What a plan came to.

    Attributes:
      passes, tokens: rows to compute, and their tokens, without those for surprisal alone.
      separate_tokens: tokens of one row for each part, as one by one they would be encoded.
      fallbacks: parts whose tokens depend on what follows, so that they got a row of their own
        where others share one.
      cut_contexts: parts that do not see the beginning of their text.
      truncated_parts: parts that do not see the beginning of themselves.
      texts: runs of adjacent parts of one passage.
      searched_texts: texts of which every prefix had to be tokenised from its beginning.
      shared_tokens: tokens that reach into more than one part; see `Predicted`.
      own_tokens: tokens that stand for parts.
      unknown_tokens: those of them that stand for what the tokenizer does not know.
      guessed_joints: parts joined by a space that would have none if the text were known to be
        English.
    """

    passes: int = 0
    tokens: int = 0
    separate_tokens: int = 0
    fallbacks: int = 0
    cut_contexts: int = 0
    truncated_parts: int = 0
    texts: int = 0
    searched_texts: int = 0
    shared_tokens: int = 0
    own_tokens: int = 0
    unknown_tokens: int = 0
    guessed_joints: int = 0


class Predicted(NamedTuple):
    """Which tokens' surprisals add up to that of each part of a causal model.

    A token counts for one part, that in which its characters begin (white space not counted), even
    where it reaches into parts after it. So over the parts of a text they add up to what the model
    says of the text as it tokenises it.

    Attributes:
      row: in which row they are: where the part's own row ends in other tokens than the text goes
        on with, a row of the text.
      start, stop: positions in it, from the end of the part before, so that a space that is a
        token by itself is counted. Equal where no token begins in the part.
      defined: whether a token begins in the part, and all are in the row with a token before them.
    """

    row: Int[np.ndarray, " m"]
    start: Int[np.ndarray, " m"]
    stop: Int[np.ndarray, " m"]
    defined: Bool[np.ndarray, " m"]


class Passes(NamedTuple):
    """Rows of tokens to run, and where the parts lie in them.

    Part i is read in rows[row[i]]; the positions below are in that row.

    Attributes:
      rows: tokens of each pass, special tokens included; from `counts.passes` on those of which
        only surprisal is read.
      row: of each part.
      start, stop: its own tokens, at least one: those that stand for its characters.
      predicted: those that its surprisal counts.
      length: tokens of the row up to here are those that the part sees.
      complete: whether these are all that a row for this part alone would hold; what lacks comes
        after the part, where a causal model's states of it do not depend on it.
      counts: what the plan came to.
    """

    rows: list[Int[np.ndarray, " _"]]
    row: Int[np.ndarray, " m"]
    start: Int[np.ndarray, " m"]
    stop: Int[np.ndarray, " m"]
    predicted: Predicted
    length: Int[np.ndarray, " m"]
    complete: Bool[np.ndarray, " m"]
    counts: Counts


class _Rows(NamedTuple):
    """Rows of views: which row each is in, how far it is moved there, and what it sees of it."""

    rows: list[Int[np.ndarray, " _"]]
    row: Int[np.ndarray, " m"]
    shift: Int[np.ndarray, " m"]
    length: Int[np.ndarray, " m"]
    complete: Bool[np.ndarray, " m"]


def assemble(views: Sequence[View], around: Around, *, causal: bool, unknown: int) -> Passes:
    """Build rows, one for all parts of a causal model that begin with the same tokens.

    Args:
      views: of each part.
      around: of every row.
      causal: whether states depend on earlier tokens only.
      unknown: own id of the token for what the tokenizer does not know; -1: there is none.
    """
    m = len(views)
    again = [i for i, view in enumerate(views) if view.predicted]
    extra = [view.predicted for view in views if view.predicted]
    found = _rows([*views, *extra], around, m, causal)
    column = {name: np.array([getattr(v, name) for v in views]) for name in View._fields[1:7]}
    start = np.maximum(column["start"], column["begin"]) + found.shift[:m]
    stop = column["stop"] + found.shift[:m]
    whose = np.arange(m)
    whose[again] = m + np.arange(len(again))
    alone = column["head"] + column["count"] - column["begin"]
    alone = alone.sum() + sum(len(view.tail) for view in views)
    num_read = int(found.row[:m].max()) + 1
    own = [found.rows[r][a:b] for r, a, b in zip(found.row, start, stop, strict=False)]
    counts = Counts(
        passes=num_read,
        tokens=sum(map(len, found.rows[:num_read])),
        separate_tokens=int(alone) + m * (len(around.left) + len(around.right)),
        fallbacks=sum(view.changed for view in views) if causal else 0,
        cut_contexts=sum(view.cut for view in views),
        truncated_parts=int((column["start"] < column["begin"]).sum()),
        own_tokens=sum(map(len, own)),
        unknown_tokens=sum(int((x == unknown).sum()) for x in own),
    )
    return Passes(
        rows=found.rows,
        row=found.row[:m],
        start=start,
        stop=stop,
        predicted=_predicted([v.predicted or v for v in views], found, whose),
        length=found.length[:m],
        complete=found.complete[:m],
        counts=counts,
    )


def _predicted(views: Sequence[View], found: _Rows, whose: Int[np.ndarray, " m"]) -> Predicted:
    begin, lead, stop = (
        np.array([getattr(v, x) for v in views]) for x in ("begin", "lead", "stop")
    )
    shift = found.shift[whose]
    return Predicted(
        row=found.row[whose],
        start=np.maximum(lead, begin) + shift,
        stop=np.maximum(stop, np.maximum(lead, begin)) + shift,
        defined=(lead >= begin) & (lead + shift > 0) & (stop > lead),
    )


def _rows(views: Sequence[View], around: Around, num_parts: int, causal: bool) -> _Rows:
    """Group views by the tokens they begin with; of views behind the parts no tail is read."""
    groups = {}
    for i, view in enumerate(views):
        key = (id(view.ids), view.begin) if causal and view.shared else i
        groups.setdefault(key, []).append(i)
    # What only surprisal is read from comes last.
    groups = sorted(groups.values(), key=lambda members: members[0] >= num_parts)
    n = len(views)
    left, right, ids = around
    rows, row, shift, length = [], np.zeros(n, int), np.zeros(n, int), np.zeros(n, int)
    complete = np.ones(n, bool)
    for members in groups:
        view = max((views[i] for i in members), key=lambda view: view.count)
        inner = [view.ids[: view.head], view.ids[view.begin : view.count]]
        after = []
        if len(members) == 1:
            inner.append(view.tail)
            after.append(right)
        row[members] = len(rows)
        own = control.restore(np.concatenate(inner), ids)
        rows.append(np.concatenate([left, own, *after]).astype(np.int32))
        for i in members:
            shift[i] = len(left) + view.head - view.begin
            length[i] = views[i].count + shift[i] if len(members) > 1 else len(rows[-1])
            complete[i] = len(members) == 1 or len(views[i].tail) + len(right) == 0
    return _Rows(rows, row, shift, length, complete)


def count_shared(start: Iterable[int], stop: Iterable[int]) -> int:
    """Return how many tokens of a text reach into more than one of its parts.

    Args:
      start, stop: tokens of each part, in their order.
    """
    found, end, before = 0, 0, 0
    for a, b in zip(start, stop, strict=True):
        if b > a:
            # Tokens that were found for an earlier border already count no second time.
            found += max(0, min(before, b) - max(a, end))
            end = max(end, min(before, b))
            before = max(before, b)
    return found
