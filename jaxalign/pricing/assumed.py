"""What the price of a plan takes for granted where models and data are not here."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from jaxalign.data.datasets import Dataset
from jaxalign.models import zoo
from jaxalign.training import sources


class Assumed(NamedTuple):
    """What is not here.

    Attributes:
      models: whose shapes are those of the table, and whose tokens are counted without tokenizers.
      datasets: what stands in for each data set, in words.
    """

    models: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()

    def __or__(self, other: "Assumed") -> "Assumed":
        """Join with what another plan takes for granted."""
        join = lambda a, b: tuple(dict.fromkeys((*a, *b)))
        return Assumed(join(self.models, other.models), join(self.datasets, other.datasets))

    @property
    def lines(self) -> list[str]:
        """All in words."""
        said = (
            f"models {', '.join(self.models)} are not here: shapes are those of "
            "jaxalign/models/table.py, tokens are counted in pieces of up to five letters"
        )
        return [*([said] if self.models else []), *self.datasets]


def of(models: Sequence[str], dataset: Dataset | None) -> Assumed:
    """Return what a plan that is only priced takes for granted.

    Args:
      models: that it reads with, as `zoo.find` takes them.
      dataset: that they read; None: there is none.
    """
    stand_in = dataset.stand_in if dataset else None
    absent = tuple(x for x in models if zoo.is_absent(x))
    return Assumed(absent, (stand_in.described,) if stand_in else ())


def of_training(data: str, data_root: pathlib.Path | None) -> Assumed:
    """Return what a plan that is only priced takes for granted of instruction data.

    Args:
      data: as `sources.locate` takes it; "": nothing is tuned.
      data_root: folder of published data.
    """
    is_absent = bool(data) and sources.is_absent(data, data_root)
    return Assumed(datasets=(sources.describe(data),) if is_absent else ())
