"""Responses to each repeat of the stimuli that were presented again and again."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxalign.data.formats import recordings
from jaxalign.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeats:
    """Responses to each presentation of some stimuli.

    `Responses` hold their mean; ceilings by repeats need them apart.

    Attributes:
      values: in the units of the responses; NaN where a repeat was not recorded.
      run: of each sample, as in the responses.
      subject, roi, target: of each column, as in the responses.
      stimulus_id: of each sample, where the responses have them; else empty, and the samples are
        all those of the responses in these runs, in their order.
    """

    values: Float[np.ndarray, "q n v"]
    run: Sequence[str]
    subject: Sequence[str]
    roi: Sequence[str]
    target: Sequence[str]
    stimulus_id: Sequence[str] = ()

    def __post_init__(self):
        _, n, v = self.values.shape
        for name, size in (("run", n), ("subject", v), ("roi", v), ("target", v)):
            if len(getattr(self, name)) != size:
                raise InputError(
                    f"repeats: {name} must have {size} entries for values "
                    f"{self.values.shape}, found {len(getattr(self, name))}."
                )
        if self.stimulus_id and len(self.stimulus_id) != n:
            raise InputError(
                f"repeats: stimulus_id must have {n} entries, found {len(self.stimulus_id)}."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalToNoise:
    """What a data set publishes of the reliability of one subject's targets.

    Attributes:
      ratio: of the standard deviations of signal and noise of a single trial, by target; NaN where
        it was not found.
      repeats: trials that the response to each stimulus averages.
      stimulus_id: of each of these.
      is_test: whether it is of the data set's own test set.
      subject: whose targets they are.
      roi, target: of each column, as in the responses.
    """

    ratio: Float[np.ndarray, " v"]
    repeats: Int[np.ndarray, " n"]
    stimulus_id: Sequence[str]
    is_test: Bool[np.ndarray, " n"]
    subject: str
    roi: Sequence[str]
    target: Sequence[str]

    @property
    def tested(self) -> Int[np.ndarray, " t"]:
        """Trials of the stimuli of the test set."""
        return self.repeats[self.is_test]


def repeats_of(
    values: Float[np.ndarray, "q n v"],
    mean: recordings.Recording,
    run: str,
    *,
    nan: recordings.NaN | None = None,
) -> Repeats:
    """Return the repeats of one run of one subject.

    Args:
      values: responses to each presentation.
      mean: what `Responses` hold of them; targets that are NaN throughout it are left out.
      run: its name.
      nan: see `recordings.without_undefined`. Targets that are NaN in other runs alone stay: join
        with the responses by target.

    Raises:
      InputError: if the mean of a target is NaN here and there.
    """
    names = [run] * values.shape[1]
    left, kept = recordings.without_undefined(mean, names, nan=nan)
    return Repeats(
        values=values[:, :, kept],
        run=names,
        subject=[mean.subject] * len(left.target),
        roi=left.roi,
        target=left.target,
    )
