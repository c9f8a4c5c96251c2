"""Dissimilarities of stimuli, as data sets publish them where responses themselves are not."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jaxalign.data import labels
from jaxalign.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dissimilarities:
    """Representational dissimilarity matrices (RDMs) of people, and others to compare with.

    Attributes:
      stimulus_id: of rows and columns; those of the data set's stimuli, or some of them.
      values: of each subject and session, the pairs above the diagonal, row by row; finite.
      subject: of each matrix; every subject has as many sessions.
      roi: of all of them.
      units: what a dissimilarity is, such as "1 - Pearson r".
      others: dissimilarities of the same pairs that are no recording of these people, by name.
    """

    stimulus_id: Sequence[str]
    values: Float[np.ndarray, "q m"]
    subject: Sequence[str]
    roi: str
    units: str
    others: Mapping[str, Float[np.ndarray, " _"]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        n = len(self.stimulus_id)
        pairs = n * (n - 1) // 2
        labels.refuse_missing("dissimilarities: subject", self.subject, "matrix")
        if len(set(self.stimulus_id)) != n or n < 3:
            raise InputError(
                f"dissimilarities: stimulus_id must name three stimuli or more once, found {n}."
            )
        if len(self.subject) != len(self.values) or not len(self.values):
            raise InputError(
                f"dissimilarities: subject must have one entry per matrix ({len(self.values)}), "
                f"found {len(self.subject)}."
            )
        counts = {self.subject.count(x) for x in self.subject}
        if len(counts) > 1:
            raise InputError("dissimilarities: every subject must have as many sessions.")
        named = {self.roi: self.values[0], **self.others}
        for name, values in {**named, "values": self.values}.items():
            if values.shape[-1] != pairs:
                raise InputError(
                    f"dissimilarities: {name} must have {pairs} pairs of {n} stimuli, found "
                    f"{values.shape[-1]}."
                )
            if not np.isfinite(values).all():
                raise InputError(f"dissimilarities: {name} must be finite, found NaN or infinity.")

    @property
    def subjects(self) -> list[str]:
        """Names of the subjects, each once."""
        return list(dict.fromkeys(self.subject))

    @property
    def by_subject(self) -> Float[np.ndarray, "s k m"]:
        """Matrices of each subject's sessions."""
        of = np.asarray(self.subject)
        return np.stack([self.values[of == x] for x in self.subjects])

    @property
    def hash(self) -> str:
        """Hash of all content, 16 hexadecimal digits."""
        named = [list(self.stimulus_id), list(self.subject), self.roi, self.units]
        digest = hashlib.sha256(json.dumps([*named, list(self.others)]).encode())
        for values in (self.values, *self.others.values()):
            digest.update(np.ascontiguousarray(values, np.float64).tobytes())
        return digest.hexdigest()[:16]
