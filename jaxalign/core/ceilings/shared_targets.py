"""Targets that several subjects have: which columns of the responses are the same target."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from jaxalign.core.features import Labels, members


class SharedTargets(NamedTuple):
    """Where each subject has each target."""

    subjects: list  # labels, in the order of first appearance
    names: list  # of the targets, likewise
    columns: Int[np.ndarray, "t s"]  # -1 where the subject lacks the target


def find(subjects: Labels, names: Labels) -> SharedTargets:
    """Find the columns of each target in each subject.

    Args:
      subjects: subject of each column.
      names: of each column's target; targets of one name (such as a pair of ROI and name) are
        the same target in different subjects.

    Raises:
      ValueError: if a subject has a target twice.
    """
    of_subjects, of_targets = members(subjects), members(names)
    columns = np.full((len(of_targets), len(of_subjects)), -1)
    place = np.empty(len(names), int)
    for t, held in enumerate(of_targets.values()):
        place[held] = t
    for s, held in enumerate(of_subjects.values()):
        columns[place[held], s] = held
        if len(np.unique(place[held])) < len(held):
            first, count = np.unique(place[held], return_counts=True)
            name = list(of_targets)[first[count > 1][0]]
            raise ValueError(f"A subject must have each target once, but has {name!r} twice.")
    return SharedTargets(list(of_subjects), list(of_targets), columns)


def divide(
    member: Bool[np.ndarray, "t s"], *, least: int = 2
) -> list[tuple[Int[np.ndarray, " g"], Int[np.ndarray, " m"]]]:
    """Divide targets by the subjects that count for them: mostly all, and so one division.

    Args:
      member: whether a subject counts for a target.
      least: subjects that a target must have; those with fewer are in no division.

    Returns:
      Targets and subjects of each division, in the order of their first targets.
    """
    return [
        (targets, np.flatnonzero(pattern))
        for pattern, targets in members(list(map(tuple, member.tolist()))).items()
        if sum(pattern) >= least
    ]
