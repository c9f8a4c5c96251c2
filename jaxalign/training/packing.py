"""Packing: several examples in one row, so that little of it is padding."""

import bisect
from collections.abc import Sequence

import numpy as np


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put examples into rows: the longest first, each where the least room stays.

    Args:
      lengths: tokens of each example.
      capacity: tokens of a row, at least the longest example.

    Returns:
      The examples of each row, in the order in which they were put there; the same for the same
      lengths.

    Raises:
      ValueError: if an example is longer than a row.

    Source: best-fit decreasing, Johnson et al. (1974), SIAM J. Comput. 3, 299-325; Ding et al.
      (2024), arXiv 2404.10830, which packs texts so.
    """
    lengths = np.asarray(lengths)
    if len(lengths) and lengths.max() > capacity:
        raise ValueError(f"an example has {lengths.max()} tokens, and a row {capacity}.")
    rows: list[list[int]] = []
    # Rows by the room that they have, the fullest of which fits is found by bisection.
    room: dict[int, list[int]] = {}
    rooms: list[int] = []
    for example in np.argsort(-lengths, kind="stable"):
        length = int(lengths[example])
        at = bisect.bisect_left(rooms, length)
        if at == len(rooms):
            row, left = len(rows), capacity - length
            rows.append([])
        else:
            free = rooms[at]
            row, left = room[free].pop(), free - length
            if not room[free]:
                del room[free], rooms[at]
        rows[row].append(int(example))
        if left not in room:
            room[left] = []
            bisect.insort(rooms, left)
        room[left].append(row)
    return rows
