"""Pie Man: 36 people hear a story of seven and a half minutes (fMRI, 100 nodes of the brain).

Time courses of 100 nodes of a topographic factor analysis that all subjects share, 300 TRs of
1.5 s. The words and their times do not come with it, so that it serves ceilings and correlations
between subjects. Licence MIT (hypertools).

Source: Simony et al. (2016), Nature Communications 7, 12141; file of ContextLab/hypertools.
"""

import dataclasses
import pathlib

import numpy as np

from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import matlab
from jaxalign.data.formats import verify as verify_lib
from jaxalign.data.schema import Responses, naming
from jaxalign.errors import InputError

FILE = "pieman_fmri_36subj/examples/sample_data/weights.mat"
VARIABLE = "weights"
TR_S = 1.5
RUN = "pieman"
EXPECTED = {
    "subjects": verify_lib.exactly(36),
    "TRs": verify_lib.exactly(300),
    "nodes": verify_lib.exactly(100),
    "sum of magnitudes": verify_lib.about(632975.86386),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PieMan(Adapter):
    """Time courses alone.

    Attributes:
      verify: whether to refuse another file than the published one, by its counts and its sum.
    """

    name: str = "pieman"
    timed = True
    verify: bool = True

    def files(self) -> list[pathlib.Path]:
        """Return the one file."""
        return self.need([self.root / FILE])

    def responses(self) -> Responses:
        """Read the time courses of all subjects, who are called by their place in the file."""
        (path,) = self.files()
        tables = _tables(path)
        num_trs, num_nodes = tables[0].shape
        subjects = [f"s{i + 1:02d}" for i in range(len(tables))]
        values = np.concatenate(tables, axis=1).astype(np.float64)
        with naming(path):
            found = Responses(
                values=values,
                run=[RUN] * num_trs,
                subject=[s for s in subjects for _ in range(num_nodes)],
                roi=["network"] * values.shape[1],
                target=[f"node{i + 1:03d}" for i in range(num_nodes)] * len(subjects),
                units="weight of the node",
                time_s=TR_S * np.arange(num_trs),
                tr_s=TR_S,
            )
        if self.verify:
            facts = {
                "subjects": len(tables),
                "TRs": num_trs,
                "nodes": num_nodes,
                "sum of magnitudes": float(np.abs(values).sum()),
            }
            verify_lib.check(path, "Pie Man", facts, EXPECTED)
        return found


def _tables(path: pathlib.Path) -> list[np.ndarray]:
    """Read the cell array: one table per subject, all of one size."""
    content = matlab.read(path)
    if VARIABLE not in content:
        raise InputError(f"{path} must hold the variable {VARIABLE!r}, found {list(content)}.")
    cells = content[VARIABLE]
    if cells.dtype != object or cells.size == 0:
        raise InputError(
            f"{path}: {VARIABLE} must be a cell array with a table per subject, found "
            f"{cells.dtype} of shape {cells.shape}."
        )
    tables = list(cells.ravel())
    shape = tables[0].shape
    for i, table in enumerate(tables):
        if table.ndim != 2 or table.dtype.kind != "f" or table.shape != shape:
            raise InputError(
                f"{path}: {VARIABLE}{{{i + 1}}} must be numbers in TRs x nodes as the first, which "
                f"is {shape}, found {table.dtype} of shape {table.shape}."
            )
    return tables
