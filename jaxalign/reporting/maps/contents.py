"""Which maps there are of scored targets: their names, values, units, and what is said of each."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from jaxalign.data.formats.grids import Grid
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.results.target_tables import Tables


class Quantity(NamedTuple):
    """What a map shows of a model.

    Attributes:
      label: end of `desc-` in the name of the file.
      title: for people.
      units: of values.
      text: what the values are, a sentence.
    """

    label: str
    title: str
    units: str
    text: str


_CHOSEN = (
    "The layer is chosen inside the training data of each fold, for the subject and region by the "
    "mean of their targets."
)
_ANY = (
    "Of the target's largest score of any layer, compared with the largest of any layer under each "
    "order of the responses, with drifts taken out of them."
)
# Column of the table -> what it is.
OF_MODELS = {
    "score": Quantity("Score", "score", "{metric}", f"Mean over folds. {_CHOSEN}"),
    "protocol_score": Quantity(
        "ProtocolScore", "score of the protocol", "{metric}", "Layers and folds as it counts them."
    ),
    "r2": Quantity("R2", "R2", "1", f"Coefficient of determination, mean over folds. {_CHOSEN}"),
    "alpha": Quantity("Penalty", "penalty", "1", f"Of the ridge: median over folds. {_CHOSEN}"),
    "layer": Quantity("Layer", "layer", "number of the layer", f"Of most folds. {_CHOSEN}"),
    "best_layer": Quantity(
        "BestLayer",
        "best layer",
        "number of the layer",
        "The target's own: the highest R2 on the inner splits of the training data.",
    ),
    "p": Quantity("P", "p", "probability", f"Not corrected. {_ANY}"),
    "p_fdr": Quantity(
        "PFdr", "p, FDR", "probability", f"Benjamini-Hochberg over the subject's targets. {_ANY}"
    ),
    "p_max": Quantity(
        "PMax",
        "p, maximum",
        "probability",
        f"Corrected by the largest null of any target of the subject. {_ANY}",
    ),
}
CEILING = Quantity(
    "Ceiling", "noise ceiling", "{metric}", "Of each target, on the test blocks of the folds."
)
DIFFERENCE = Quantity(
    "", "difference of scores", "difference of {metric}", f"First minus second. {_CHOSEN}"
)


class Map(NamedTuple):
    """Values of the targets of a subject.

    Attributes:
      dataset, subject: whose.
      model: its name in the table; "" of ceilings; of a difference "FIRST minus SECOND".
      column: of the table; "difference".
      quantity: what it is.
      desc: in the name of the file, unique in the data set and subject.
      values: by ROI and name of the target.
      about: what the JSON file says in addition.
    """

    dataset: str
    subject: str
    model: str
    column: str
    quantity: Quantity
    desc: str
    values: Mapping[tuple[str, str], float]
    about: Mapping[str, object]

    @property
    def units(self) -> str:
        """Units of the values."""
        return self.quantity.units.format(metric=self.about["Metric"])


def every(tables: Tables, differences: pd.DataFrame) -> Iterator[Map]:
    """Yield all maps: of each model and data set those that are defined, ceilings, differences.

    Controls have none: their scores are in the table.

    Args:
      tables: what runs hold.
      differences: of `target_tables.differences`.

    Raises:
      InputError: if two subjects would have the same label.
    """
    networks: Any = tables.targets[tables.targets.control_of == ""]
    for (dataset, subject), own in networks.groupby(["dataset", "subject"], sort=False):
        if dataset not in tables.grids:
            continue
        desc = _labels(own.name)
        for name, part in own.groupby("name", sort=False):
            about = _about(part)
            for column, quantity in OF_MODELS.items():
                values = part[column].astype(float)
                if column == "best_layer":
                    values = values.where(values >= 0)
                if values.isna().all():
                    continue
                if column.startswith("p_") or column == "p":
                    row = part.iloc[0]
                    extra = {"Orders": row.orders, "NumOrders": int(row.num_orders)}
                elif "layer" in column:
                    extra = {"Layers": _layers(tables, part)}
                else:
                    extra = {}
                label = desc[name] + quantity.label
                found = _values(part, values)
                yield Map(dataset, subject, name, column, quantity, label, found, about | extra)
        # Of the same folds all models have the same ceilings.
        several = own.groupby(["protocol", "folds_hash"], sort=False)
        for i, (_, part) in enumerate(several):
            first = part[part.name == part.name.iloc[0]]
            if first.ceiling.isna().all():
                continue
            about = {"CeilingKind": first.ceiling_kind.iloc[0]}
            kept = ("Dataset", "Protocol", "FoldsHash", "Metric", "NumSamples")
            about |= {x: y for x, y in _about(first).items() if x in kept}
            label = "ceiling" if len(several) == 1 else f"ceiling{i + 1}"
            found = _values(first, first.ceiling)
            yield Map(dataset, subject, "", "ceiling", CEILING, label, found, about)
        beside = (differences.dataset == dataset) & (differences.subject == subject)
        pairs: Any = differences[beside].groupby(["name", "minus"], sort=False)
        codes = _labels([*own.name, *differences.minus[beside]])
        for (first, second), part in pairs:
            row = own[own.name == first].iloc[:1]
            about = _about(row) | {"Model": first, "Minus": second}
            label = f"{codes[first]}Minus{_capital(codes[second])}"
            name = f"{first} minus {second}"
            found = _values(part, part.difference)
            yield Map(dataset, subject, name, "difference", DIFFERENCE, label, found, about)


def _values(part: Any, values: Any) -> dict[tuple[str, str], float]:
    return dict(zip(zip(part.roi, part.target, strict=True), values.tolist(), strict=True))


def _about(part: Any) -> dict[str, object]:
    row = part.iloc[0]
    found: dict[str, object] = {
        "Dataset": row.dataset,
        "Model": row.model,
        "Protocol": row.protocol,
        "FoldsHash": row.folds_hash,
        "Metric": row.metric,
        "Context": row.context,
        "Pooling": row.pooling,
        "Instruction": row.instruction,
        "NumSamples": int(row.num_samples),
        "Fingerprint": row.fingerprint,
        "GitCommit": row.git_commit,
        "Versions": row.versions,
    }
    reading = {_camel(name): getattr(row, name) for name in rows_lib.READING}
    return found | {"Reading": {name: value for name, value in reading.items() if value}}


def _layers(tables: Tables, part: pd.DataFrame) -> dict[str, str]:
    names = tables.layer_names[part.fingerprint.iloc[0]]
    return {str(number): name for number, name in sorted(names.items())}


def _labels(names: Sequence[str] | pd.Series) -> dict[str, str]:
    """Return a label of letters and digits for each name, none twice."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(names):
        label, number = alphanumeric(name), 1
        while label.lower() in {x.lower() for x in found.values()}:
            number += 1
            label = f"{alphanumeric(name)}x{number}"
        found[name] = label
    return found


def subjects(grids: Sequence[Grid]) -> dict[str, str]:
    """Return the label of each subject in the way of BIDS: letters and digits.

    Raises:
      InputError: if two would have the same.
    """
    found: dict[str, str] = {}
    for subject in dict.fromkeys(grid.subject for grid in grids):
        label = re.sub(r"[^A-Za-z0-9]", "", subject.removeprefix("sub-")) or "x"
        if label in found.values():
            other = next(x for x, y in found.items() if y == label)
            raise InputError(
                f"subjects must differ in letters and digits, for BIDS allows nothing else: "
                f"{other!r} and {subject!r} do not."
            )
        found[subject] = label
    return found


def alphanumeric(name: str) -> str:
    """Return a name as BIDS allows it in a file's: "all-MiniLM-L6-v2" is allMiniLML6V2."""
    first, *others = re.findall(r"[A-Za-z0-9]+", name) or ["x"]
    return first + "".join(map(_capital, others))


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _camel(name: str) -> str:
    return "".join(map(_capital, name.split("_")))


def defined(found: Map) -> int:
    """Return how many targets have a value."""
    return int(np.isfinite(list(found.values.values())).sum())
