"""Maps of finished runs, in a BIDS derivatives folder."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import pandas as pd

from jaxalign import progress
from jaxalign.api.frames import Path
from jaxalign.api.runs import BenchmarkScore
from jaxalign.errors import InputError
from jaxalign.io import place
from jaxalign.reporting.maps import derivatives
from jaxalign.results import target_tables


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenMaps:
    """Maps, and where they lie.

    Attributes:
      path: the folder.
      targets: a row for each model or control and target.
      differences: of models, target by target; empty where there are none.
      files: names of all files, relative to the folder.
      without: data sets whose responses come from no image, of which there are tables alone.
    """

    path: pathlib.Path
    targets: pd.DataFrame
    differences: pd.DataFrame
    files: Sequence[str]
    without: Sequence[str]

    def __repr__(self) -> str:
        """Say in a few lines what a notebook's cell should show."""
        num = sum(derivatives.is_map(x) for x in self.files)
        lines = [f"{num} maps and {len(self.targets)} rows of targets in {self.path}"]
        lines += [
            f"  {x}: its responses come from no image, so that there is the table alone"
            for x in self.without
        ]
        return "\n".join(lines)


def write_maps(
    runs: Path | BenchmarkScore | Sequence[Path | BenchmarkScore],
    *,
    path: Path = "maps",
    minus: str = "",
) -> WrittenMaps:
    """Write scores of targets as maps in the space that responses came from.

    Of each model and subject: score, R2, penalty, layer, the target's own best layer, p where
    permutations were asked for, noise ceilings, and differences of models; NIfTI, CIFTI or GIFTI
    as the responses were, NaN wherever nothing is defined, a JSON file beside each; and one table
    of all targets (docs/maps.md).

    Args:
      runs: work directories, or what `score` has returned; several are compared where they share
        data set, protocol and folds.
      path: folder to write to; what an earlier call has written there is replaced.
      minus: model, or kind of control, whose scores are taken from those of every model; "": every
        pair of models.

    Raises:
      InputError: if a run holds no scores of targets, nothing is called `minus`, nibabel is not
        installed, or the folder holds something else.

    Example:
      >>> import jaxalign
      >>> found = jaxalign.score("path/to/model", "path/to/data", "jaxalign", controls=["position"])
      >>> maps = jaxalign.write_maps(found, path="runs/maps")
      >>> maps.targets.target.tolist()[:2], maps.without
      (['mean', 'mean'], ['data'])
    """
    place.refuse_urls("path", os.fspath(path))
    given = [runs] if isinstance(runs, (str, os.PathLike, BenchmarkScore)) else list(runs)
    if not given:
        raise InputError("runs must name at least one work directory, got none.")
    workdirs = [x.workdir if isinstance(x, BenchmarkScore) else place.at(x) for x in given]
    tables = target_tables.read(list(dict.fromkeys(workdirs)))
    if all(isinstance(x, BenchmarkScore) for x in given):  # a work directory may hold others
        shown = {y for x in given if isinstance(x, BenchmarkScore) for y in x.rows.fingerprint}
        tables = tables._replace(targets=tables.targets[tables.targets.fingerprint.isin(shown)])
    different = target_tables.differences(tables.targets, minus)
    folder = pathlib.Path(path).absolute()
    bar = lambda maps: progress.bar(maps, "maps", "maps")
    files, _ = derivatives.write(tables, different, folder, bar)
    without = [x for x in dict.fromkeys(tables.targets.dataset) if x not in tables.grids]
    return WrittenMaps(
        path=folder, targets=tables.targets, differences=different, files=files, without=without
    )
