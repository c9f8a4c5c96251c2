"""Neural assemblies of Brain-Score Language: netCDF files of responses to single stimuli.

A file holds the variable `data` [presentation, neuroid] and, for each of the two dimensions, labels
of the same length. Text comes from those labels: there is no other file.

Source: Pereira et al. (2018), Nature Communications 9, 963; Blank, Kanwisher and Fedorenko (2014),
Journal of Neurophysiology 112, 1105-1118; Fedorenko et al. (2016), PNAS 113, E6256-E6262; Tuckute
et al. (2024), Nature Human Behaviour 8, 544-561; packaged by brain-score/language, data/.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from absl import logging
from jaxtyping import Float

from jaxalign.data.adapter import Adapter
from jaxalign.data.formats.tables import first_repeated
from jaxalign.data.formats.verify import Range, about, check, exactly
from jaxalign.data.schema import Responses, Stimuli, Unit, naming
from jaxalign.errors import InputError, one_line

FOLDER = "brainscore"
PRESENTATION, NEUROID = "presentation", "neuroid"


class Assembly(NamedTuple):
    """Which part of a file, and the names of the labels that say what is what.

    Attributes:
      file: its name.
      unit: what a presentation is.
      units: of the values.
      subject: label of the subjects.
      roi: label of the regions; "": all are the language network.
      passage: labels that make up the name of a text; context never crosses it.
      group: labels that make up what Brain-Score's grouped folds keep together.
      expected: facts about the published file and about this part of it.
      experiment: the part; "": all.
      is_region: whether a neuroid is the mean of a region, comparable over subjects; a voxel or an
        electrode is not.
      id_from: labels that make up a stimulus_id. Text is taken from the presentation whose labels
        make up the id, wherever it lies; none: from the presentation itself.
    """

    file: str
    unit: Unit
    units: str
    subject: str
    roi: str
    passage: tuple[str, ...]
    group: tuple[str, ...]
    expected: Mapping[str, Range]
    experiment: str = ""
    is_region: bool = False
    id_from: tuple[str, ...] = ()


def _pereira(experiment: str, **expected: int) -> Assembly:
    return Assembly(
        file="assy_Pereira2018_language.nc",
        unit="sentence",
        units="response to a sentence, as published",
        subject="subject",
        roi="atlas",
        # Brain-Score's passages: in 243sentences they are the three about one topic.
        passage=("experiment", "passage_label"),
        group=("experiment", "passage_category"),
        expected={
            "presentations": exactly(627),
            "unique neuroids": exactly(13553),
            "sum": about(1935595.263162177),
            **{name: exactly(number) for name, number in expected.items()},
        },
        experiment=experiment,
        id_from=("experiment", "stimulus_num"),
    )


_BLANK = Assembly(
    file="assy_Blank2014_fROI.nc",
    unit="sentence",
    units="BOLD 4 s after the text, as published",
    subject="subject_id",
    roi="fROI_area",
    passage=("story",),
    group=("story",),
    expected={
        "presentations": exactly(1317),
        "unique neuroids": exactly(60),
        "subjects": exactly(5),
        "passages": exactly(8),
    },
    is_region=True,
    id_from=("story", "sentence_number_in_story", "part_number_in_sentence"),
)
ASSEMBLIES = {
    "Pereira2018.243sentences": _pereira("243sentences", stimuli=243, subjects=6, targets=8121),
    "Pereira2018.384sentences": _pereira("384sentences", stimuli=384, subjects=9, targets=12195),
    "Blank2014": _BLANK,
    # As Brain-Score pairs them: each row of data with the labels that lie beside it.
    "Blank2014.rows": _BLANK._replace(id_from=()),
    "Fedorenko2016": Assembly(
        file="assy_Fedorenko2016_language.nc",
        unit="word",
        units="high gamma, as published",
        subject="subject_UID",
        roi="",
        passage=("sentence_id",),
        group=("sentence_id",),
        expected={
            "presentations": exactly(416),
            "unique neuroids": exactly(97),
            "subjects": exactly(5),
            "passages": exactly(52),
        },
    ),
    "Tuckute2024": Assembly(
        file="assy_Tuckute2024_language.nc",
        unit="sentence",
        units="z-scored response, as published",
        subject="subject_UID",
        roi="roi",
        passage=("stimulus_id",),
        group=("stimulus_id",),
        expected={
            "presentations": exactly(1000),
            "unique neuroids": exactly(1),
            "largest value": (1.28, 1.29),
        },
        is_region=True,
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class BrainScore(Adapter):
    """One assembly.

    Attributes:
      assembly: name in `ASSEMBLIES`.
      verify: whether to refuse another file than the published one, by its counts and sums.
    """

    name: str = "brainscore"
    assembly: str
    verify: bool = True

    def __post_init__(self):
        if self.assembly not in ASSEMBLIES:
            raise InputError(
                f"assembly must be one of {', '.join(ASSEMBLIES)}, got {self.assembly!r}."
            )

    @property
    def layout(self) -> Assembly:
        """What is what in the file."""
        return ASSEMBLIES[self.assembly]

    def files(self) -> list[pathlib.Path]:
        """Return the one file."""
        return self.need([self.root / FOLDER / self.layout.file])

    def stimuli(self) -> Stimuli:
        """Read the text of each presentation, in the order in which it was presented."""
        (path,) = self.files()
        labels = _presentations(load(path, values=False), path, self.layout)
        with naming(path):
            return Stimuli(
                stimulus_id=labels.stimulus_id,
                text=labels.text,
                passage=labels.passage,
                run=[self.assembly] * len(labels.text),
                unit=self.layout.unit,
                language="en",
            )

    def groups(self) -> dict[str, str]:
        """Return what Brain-Score's grouped folds keep together."""
        (path,) = self.files()
        labels = _presentations(load(path, values=False), path, self.layout)
        return dict(zip(labels.stimulus_id, labels.group, strict=True))

    def responses(self) -> Responses:
        """Read the responses to each stimulus, without the subjects who skipped the experiment.

        Raises:
          InputError: also if there is NaN where a subject took part.
        """
        (path,) = self.files()
        layout = self.layout
        dataset = load(path, values=True)
        values = read_values(dataset, path, (PRESENTATION, NEUROID))
        labels = _presentations(dataset, path, layout)
        read = lambda name: label(dataset, path, name, NEUROID)
        subject, neuroid = read(layout.subject), read("neuroid_id")
        roi = read(layout.roi) if layout.roi else ["language"] * len(neuroid)
        presented = values[labels.row]
        took_part = {subject[i] for i in np.flatnonzero(np.isfinite(presented).any(axis=0))}
        kept = [i for i, s in enumerate(subject) if s in took_part]
        take = lambda names: [names[i] for i in kept]
        _check_missing(path, presented[:, kept], take(subject), take(neuroid))
        with naming(path):
            found = Responses(
                values=presented[:, kept],
                run=[self.assembly] * len(presented),
                subject=take(subject),
                roi=take(roi),
                target=["mean"] * len(kept) if layout.is_region else take(neuroid),
                units=layout.units,
                stimulus_id=labels.stimulus_id,
            )
        if self.verify:
            facts = {
                "presentations": len(values),
                "unique neuroids": len(set(neuroid)),
                "sum": float(np.nansum(values)),
                "largest value": float(np.nanmax(values)),
                "stimuli": len(presented),
                "subjects": len(took_part),
                "targets": len(kept),
                "passages": len(set(labels.passage)),
            }
            check(path, self.assembly, facts, layout.expected)
        return found


def load(path: pathlib.Path, *, values: bool) -> xr.Dataset:
    """Read an assembly into memory.

    Args:
      path: the file.
      values: whether to read the variable `data`, or labels alone.

    Raises:
      InputError: if it is no netCDF4 file, or damaged.
    """
    try:
        with xr.open_dataset(path, engine="h5netcdf") as dataset:
            return (dataset if values else dataset.drop_vars("data", errors="ignore")).load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{path} must be a whole netCDF4 file: {one_line(error)}.") from error


def read_values(
    dataset: xr.Dataset, path: pathlib.Path, dimensions: tuple[str, str]
) -> Float[np.ndarray, "n v"]:
    """Read the variable `data`, in this order of dimensions.

    Raises:
      InputError: if it is missing, has other dimensions or is empty, or does not hold numbers.
    """
    if "data" not in dataset.variables:
        raise InputError(f"{path} must hold the variable 'data', found {list(dataset.variables)}.")
    found = dataset["data"]
    if set(found.dims) != set(dimensions):
        raise InputError(f"{path}: data must have the dimensions {dimensions}, found {found.dims}.")
    if found.dtype.kind not in "fiu" or found.size == 0:
        raise InputError(
            f"{path}: data must hold numbers, found {found.dtype} of shape {found.shape}."
        )
    return found.transpose(*dimensions).values.astype(np.float64)


def label(dataset: xr.Dataset, path: pathlib.Path, name: str, dimension: str) -> list[str]:
    """Read one label of each entry of a dimension, as text.

    Raises:
      InputError: if it is missing, belongs to another dimension, or an entry has none.
    """
    if name not in dataset.variables:
        raise InputError(
            f"{path} must hold the label {name!r} of each {dimension}, found "
            f"{sorted(map(str, dataset.variables))}."
        )
    found = dataset[name]
    if found.dims != (dimension,):
        raise InputError(f"{path}: {name} must have the dimension {dimension}, found {found.dims}.")
    texts = [_text(x) for x in found.values.tolist()]
    if None in texts:
        raise InputError(
            f"{path}: {name} must be text or a whole number, but that of {dimension} "
            f"{texts.index(None)} is {found.values[texts.index(None)]}."
        )
    return texts  # type: ignore


def _text(value: object) -> str | None:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, float):  # how whole numbers are kept beside missing ones
        return str(int(value)) if value.is_integer() else None
    return str(value) if isinstance(value, str | int) else None


class _Labels(NamedTuple):
    """Presentations of a part, in order."""

    row: list[int]  # where the responses to each lie
    stimulus_id: list[str]
    text: list[str]
    passage: list[str]
    group: list[str]


def _presentations(dataset: xr.Dataset, path: pathlib.Path, layout: Assembly) -> _Labels:
    read = lambda name: label(dataset, path, name, PRESENTATION)
    made = lambda names: [".".join(x) for x in zip(*map(read, names), strict=True)]
    ids, text = read("stimulus_id"), read("stimulus")
    passage, group = made(layout.passage), made(layout.group)
    rows = list(range(len(ids)))
    if layout.experiment:
        experiment = read("experiment")
        rows = [i for i in rows if experiment[i] == layout.experiment]
        if not rows:
            raise InputError(
                f"{path}: experiment must be {layout.experiment!r} for some presentations, found "
                f"{sorted(set(experiment))}."
            )
    if repeated := first_repeated([ids[i] for i in rows]):
        raise InputError(f"{path}: stimulus_id must be unique, found {repeated!r} twice.")
    source = rows
    if layout.id_from:
        rows, source = _joined(path, layout, rows, ids, made(layout.id_from))
    take = lambda labels: [labels[i] for i in source]
    return _Labels(rows, [ids[i] for i in rows], take(text), take(passage), take(group))


def _joined(
    path: pathlib.Path,
    layout: Assembly,
    rows: Sequence[int],
    ids: Sequence[str],
    made: Sequence[str],
) -> tuple[list[int], list[int]]:
    """Find, in the order of reading, the row of each response and the row of its text.

    The script that packaged Blank2014 grouped the responses by id, which may have put them into
    another order, and then laid the other labels beside them through an index of positions that
    looks inverted. So the ids decide, and a row's neighbours do not.
    """
    place = {made[i]: i for i in rows}
    if lost := [ids[i] for i in rows if ids[i] not in place]:
        raise InputError(
            f"{path}: stimulus_id must be {'.'.join(layout.id_from)} of some presentation, but "
            f"{lost[0]!r} is that of none ({len(lost)} such)."
        )
    moved = sum(place[ids[i]] != i for i in rows)
    if moved:
        logging.warning(
            "%s: %d of %d presentations lie beside the text of another stimulus_id; each is "
            "given the text of its own",
            *(path, moved, len(rows)),
        )
    ordered = sorted(rows, key=lambda i: _natural(ids[i]))
    return ordered, [place[ids[i]] for i in ordered]


def _natural(name: str) -> list[tuple[bool, int, str]]:
    # Boar.2.0 before Boar.10.0.
    return [(not x.isdigit(), int(x) if x.isdigit() else 0, x) for x in name.split(".")]


def _check_missing(
    path: pathlib.Path,
    values: Float[np.ndarray, "n v"],
    subject: Sequence[str],
    neuroid: Sequence[str],
) -> None:
    missing = ~np.isfinite(values)
    if missing.any():
        per_neuroid = missing.sum(axis=0)
        first = int(np.argmax(per_neuroid > 0))
        raise InputError(
            f"{path}: data must be finite for subjects who took part, but neuroid "
            f"{neuroid[first]!r} of subject {subject[first]!r} lacks {per_neuroid[first]} of "
            f"{len(values)} values ({int((per_neuroid > 0).sum())} such neuroids)."
        )
