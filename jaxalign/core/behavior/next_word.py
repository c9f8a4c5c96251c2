"""Loss of a long text's tokens: the windows it is read in, and means with intervals over blocks."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core.behavior.surprisal import Estimate, check_finite, jackknife


class Windows(NamedTuple):
    """Stretches of a text that are read one by one; each token counts in one of them at most.

    Attributes:
      start: first token that a window holds.
      first: first token whose prediction counts; those before it are context.
      stop: end of the window; the last tokens of a text may fill less than a window.
    """

    start: Int[np.ndarray, " w"]
    first: Int[np.ndarray, " w"]
    stop: Int[np.ndarray, " w"]

    @property
    def predicted(self) -> Int[np.ndarray, " n"]:
        """Positions of the tokens that count, in order."""
        spans = zip(self.first, self.stop, strict=True)
        return np.concatenate([np.arange(*span) for span in spans])


def windows(num_tokens: int, *, context: int, stride: int, num_given: int = 1) -> Windows:
    """Cut a text into windows that begin every `stride` tokens.

    A window counts what the one before it did not hold. So all tokens but those at the beginning
    have at least `context - stride` tokens before them; with a stride as long as a window, windows
    have nothing in common and the first token of each is not predicted.

    Args:
      num_tokens: of the text.
      context: tokens of a window.
      stride: see above.
      num_given: tokens at the beginning of the text that are not to be predicted.

    Raises:
      ValueError: if the text is shorter than a window, or a number is out of range.

    Source: "Perplexity of fixed-length models", documentation of Hugging Face transformers.
    """
    if context < 2:
        raise ValueError(f"context must be >= 2 tokens, got {context}.")
    if not 1 <= stride <= context:
        raise ValueError(f"stride must lie in 1..{context}, the context, got {stride}.")
    if not 1 <= num_given < context:
        raise ValueError(f"num_given must lie in 1..{context - 1}, got {num_given}.")
    if num_tokens < context:
        raise ValueError(f"A text must have a window of {context} tokens, got {num_tokens}.")
    start = stride * np.arange(1 + -(-(num_tokens - context) // stride))
    stop = np.minimum(start + context, num_tokens)
    first = np.maximum(start + 1, np.r_[num_given, stop[:-1]])
    kept = first < stop  # what remains at the end may be one token, which nothing predicts
    return Windows(start[kept], first[kept], stop[kept])


def blocks(num: int, length: int) -> Int[np.ndarray, " n"]:
    """Number blocks of neighbours; what remains at the end belongs to the last block.

    Args:
      num: values to divide.
      length: of a block; the last has up to twice as many, and all are one if there are fewer.

    Raises:
      ValueError: if `length` is less than 1.
    """
    if length < 1:
        raise ValueError(f"length must be >= 1, got {length}.")
    return np.minimum(np.arange(num) // length, max(num // length - 1, 0))


def ratio(
    amount: Float[np.ndarray, " n"], size: Float[np.ndarray, " n"], block: Int[np.ndarray, " n"]
) -> Estimate:
    """Return sum(amount) / sum(size), with a 95 % interval over blocks.

    The jackknife leaves out one block of neighbours at a time, since neighbours are not
    independent. The interval is about other stretches of the same kind of text; the model is what
    it is.

    Args:
      amount: of each token, such as its loss.
      size: what it is divided by, such as 1 for each token, or its bytes.
      block: from `blocks`.

    Returns:
      NaN for both ends if there is one block, or another block has no size.

    Raises:
      ValueError: if there are no tokens, or the size of all is not positive.
    """
    check_finite(amount=amount, size=size)
    amount, size = amount.astype(np.float64), size.astype(np.float64)
    if not size.sum() > 0:
        raise ValueError(f"size must sum to more than 0, got {size.sum()}.")
    sizes, amounts = (np.bincount(block, weights=x) for x in (size, amount))
    with np.errstate(invalid="ignore", divide="ignore"):
        left_out = (amounts.sum() - amounts) / (sizes.sum() - sizes)
    return jackknife(float(amounts.sum() / sizes.sum()), left_out, len(amount))
