"""What is read of a plan's passes, as weights of tokens that one sum on the device applies."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxalign.data.text.passes import Passes
from jaxalign.errors import InputError

POOLINGS = ("mean", "last", "first", "sum", "mean_all")
Pooling = Literal["mean", "last", "first", "sum", "mean_all"]


class Weights(NamedTuple):
    """A sparse matrix from tokens to parts, sorted by row.

    A part's value is the sum of weight times the value at its tokens. The entries of rows[r] are
    those from indptr[r] to indptr[r + 1].

    Attributes:
      indptr: one more than there are rows.
      part: whose the entry is.
      token: position in the row.
      weight: of the token in the part's value.
    """

    indptr: Int[np.ndarray, " R"]
    part: Int[np.ndarray, " e"]
    token: Int[np.ndarray, " e"]
    weight: Float[np.ndarray, " e"]


class Surprisal(NamedTuple):
    """Which tokens' surprisals add up to a part's.

    Attributes:
      weights: of weight 1; `token` is the token that is predicted, by the state before it.
      defined: whether the part has a surprisal; if not, it has no entries, and is NaN.
    """

    weights: Weights
    defined: Bool[np.ndarray, " m"]


class Reading(NamedTuple):
    """How a model reads stimuli: its passes, and which tokens make up the values of each part.

    Attributes:
      passes: from `contexts.plan`.
      pooled: from `pool`.
      predicted: from `surprisal`, if that is asked for.
    """

    passes: Passes
    pooled: Weights
    predicted: Surprisal | None = None

    @property
    def rows(self) -> list[Int[np.ndarray, " _"]]:
        """Tokens of the passes of which anything is read."""
        return self.passes.rows[: None if self.predicted else self.passes.counts.passes]


def pool(passes: Passes, pooling: Pooling) -> Weights:
    """Return what represents each part.

    Args:
      passes: from `contexts.plan`.
      pooling: `mean`, `last`, `first` or `sum` of the part's own tokens; `mean_all`: the mean over
        every token that the part sees, special ones included, as sentence encoders are pooled.

    Raises:
      InputError: if `mean_all` is asked for and a shared row lacks what a row for one part would
        end with.
    """
    start, stop = passes.start, passes.stop
    if pooling == "first":
        stop = start + 1
    elif pooling == "last":
        start = stop - 1
    elif pooling == "mean_all":
        if not passes.complete.all():
            raise InputError(
                "pooling mean_all must see whole rows, but parts share them and the tokenizer or "
                "the prompt adds tokens at the end: use another pooling, or context none."
            )
        start, stop = np.zeros_like(start), passes.length
    elif pooling not in POOLINGS:
        raise InputError(f"pooling must be one of {', '.join(POOLINGS)}, got {pooling!r}.")
    size = stop - start
    weight = 1.0 / size if pooling.startswith("mean") else np.ones(len(size))
    return _weights(passes, start, stop, weight)


def surprisal(passes: Passes) -> Surprisal:
    """Return which tokens count towards each part's surprisal.

    They are the part's own and any token between it and the part before, a space above all: a
    tokenizer puts the space before a word into its first token or into one of its own, so both
    belong to the word, and over the parts of a text all of its tokens are counted, each once. A
    token that reaches into two parts counts for the first: its probability cannot be divided, and
    that it goes on is known by then. A part whose characters are all in tokens that began before it
    has none. That a word has ended is so ascribed to the word
    after it; moving the probability of white space to the word before, as Oh and Schuler (2024)
    and Pimentel and Meister (2024) propose, is another choice, which is not made here.

    A token is predicted by what is before it in its row. The first token of a row has nothing
    before it, so the first part of a text has no surprisal, unless the tokenizer begins rows with
    a special token, `bos` is given to the plan, or a prompt comes first. A part whose beginning
    was cut off has none.
    """
    row, start, stop, defined = passes.predicted
    stop = np.where(defined, stop, start)
    weights = _weights(passes._replace(row=row), start, stop, np.ones(len(row)))
    return Surprisal(weights, defined.copy())


def _weights(passes: Passes, start, stop, weight) -> Weights:
    order = np.argsort(passes.row, kind="stable")
    size = (stop - start)[order]
    ends = np.cumsum(size)
    num = int(ends[-1])
    token = np.arange(num) - np.repeat(ends - size, size) + np.repeat(start[order], size)
    row = np.repeat(passes.row[order], size)
    return Weights(
        indptr=np.searchsorted(row, np.arange(len(passes.rows) + 1)),
        part=np.repeat(order, size).astype(np.int32),
        token=token.astype(np.int32),
        weight=np.repeat(weight[order], size).astype(np.float32),
    )
