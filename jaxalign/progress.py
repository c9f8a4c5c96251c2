"""Progress bars of long loops, which are also where a run can be stopped."""

from collections.abc import Collection, Iterator
from typing import TypeVar

from tqdm import tqdm

from jaxalign import processes, stopping

Item = TypeVar("Item")


def bar(items: Collection[Item], what: str, unit: str) -> Iterator[Item]:
    """Yield items under a progress bar, and ask before each whether the run is to stop.

    Of several processes the first shows it.

    Args:
      items: as many as the bar counts.
      what: begins the line.
      unit: of the count, in the plural.

    Raises:
      stopping.Stopped: if the run was asked to stop.
    """
    hidden = not processes.is_first()
    shown = tqdm(items, desc=what, unit=f" {unit}", mininterval=1.0, disable=hidden)
    return stopping.watch(shown)
