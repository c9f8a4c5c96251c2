"""Kinds of artefacts: what each is, which files it has, and how it is opened."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeVar, cast

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from jaxalign.core.scores.alignment import AlignmentScore, Reference
from jaxalign.data import samples
from jaxalign.data.formats import grids, npz
from jaxalign.data.formats.grids import Grid
from jaxalign.errors import InputError
from jaxalign.io import arrays, store
from jaxalign.io import rows as rows_lib
from jaxalign.io.run_dir import Artefact
from jaxalign.results import finished
from jaxalign.stages import Upstream


@dataclasses.dataclass(frozen=True)
class Kind:
    """An artefact of a known kind, which knows its files and opens them.

    Attributes:
      artefact: planned or made.
      kind: what `Artefact.kind` is.
    """

    artefact: Artefact

    kind: ClassVar[str]

    @classmethod
    def is_one(cls, artefact: Artefact) -> bool:
        """Whether an artefact is of this kind."""
        return artefact.kind == cls.kind

    @property
    def settings(self) -> Mapping[str, Any]:
        """What fixes the content."""
        return self.artefact.settings


Found = TypeVar("Found", bound=Kind)


def among(kind: type[Found], artefacts: Iterable[Artefact]) -> list[Found]:
    """Return the artefacts of a kind, in their order."""
    return [kind(x) for x in artefacts if kind.is_one(x)]


class Rows(Kind):
    """An artefact with one Parquet file of rows that have a schema (`io/rows.py`)."""

    ROWS: ClassVar[str] = finished.ROWS

    def rows(self) -> pd.DataFrame:
        """Read the rows.

        Raises:
          InputError: if the file cannot be read, or has another schema version.
        """
        return rows_lib.read(self.artefact.path / self.ROWS)


class Activations(Kind):
    """The activations of a network, in a store."""

    TRAINED, UNTRAINED, STATIC, IMPORTED = EVERY = (
        *(store.TRAINED, store.UNTRAINED, store.STATIC, store.IMPORTED),
    )

    @classmethod
    def is_one(cls, artefact: Artefact) -> bool:
        """Whether an artefact is of one of the four kinds."""
        return artefact.kind in cls.EVERY

    @property
    def model(self) -> str:
        """Name of the network."""
        return self.settings["model"]

    @property
    def label(self) -> str:
        """Tells it from others of a run: the model, and what it was asked of several instructions.

        A network and the same one with random weights have one label.
        """
        asked = self.settings["prompt"] if self.settings.get("answers") else ""
        return f"{self.model}: {asked}" if asked else self.model

    @property
    def names(self) -> dict[str, str]:
        """The columns `model` and `control_of` of rows: random weights are a control."""
        if self.artefact.kind == self.UNTRAINED:
            return {"model": "untrained", "control_of": self.model}
        return {"model": self.model, "control_of": ""}

    @property
    def reading(self) -> dict[str, str]:
        """How the network read the stimuli, as rows say it.

        Activations that were imported name no prompt.
        """
        found = {name: self.settings[name] for name in ("context", "pooling")}
        return found | {"instruction": self.settings.get("prompt", "")}

    @property
    def way(self) -> dict[str, str]:
        """The rest of how the network read the stimuli: `io.rows.READING`."""
        said = lambda x: ("yes" if x else "no") if isinstance(x, bool) else x
        return {name: said(self.settings.get(name, "")) for name in rows_lib.READING}

    def layer_columns(self, layer: int) -> dict[str, str]:
        """What the layer of a number is, and whether it has passed the final norm, as rows say it.

        Nothing is known of imported ones.
        """
        names = self.settings.get("layer_names", ())
        normed = "yes" if layer in self.settings.get("normed_layers", ()) else "no"
        found = (names[layer], normed) if names else ("", "")
        return dict(zip(("layer_name", "final_norm"), found, strict=True))

    @property
    def num_layers(self) -> int:
        """Blocks of the network; 0 of an embedding alone."""
        return self.settings["num_layers"]

    @property
    def width(self) -> int:
        """Units of a layer."""
        return self.settings["width"]

    @property
    def layers(self) -> Sequence[int]:
        """Numbers of the layers; 0 is the embedding. What was imported may lack some."""
        if self.artefact.kind == self.IMPORTED:
            return self.settings["layers"]
        return range(self.num_layers + 1)

    def check_layers(self, stage: str, layers: Sequence[int]) -> None:
        """Refuse a setting that asks for layers that there are not.

        Raises:
          InputError: naming the stage's setting.
        """
        if bad := [x for x in layers if x not in self.layers]:
            every = len(self.layers) == self.num_layers + 1
            known = f"lie in 0..{self.num_layers}" if every else f"be among {list(self.layers)}"
            raise InputError(f"{stage}.layers must {known} for {self.model}, got {bad[0]}.")

    def open(self) -> store.Store:
        """Open the store.

        Raises:
          InputError: if it is missing, or holds something else.
        """
        return store.open_artefact(self.artefact)

    @property
    def absent(self) -> frozenset[str]:
        """Stimuli that have no activations: images to which an answer was empty.

        Raises:
          InputError: if the table of answers cannot be read.
        """
        if self.settings.get("answers") != "pooled":
            return frozenset()
        table = rows_lib.read_table(self.artefact.path / store.ANSWERS)
        return frozenset(table.stimulus_id[table.is_empty])

    def answers(self) -> pd.DataFrame | None:
        """Read what was answered about each image; None where nothing was.

        Raises:
          InputError: if the table cannot be read.
        """
        if self.settings.get("answers", "none") == "none":
            return None
        return rows_lib.read_table(self.artefact.path / store.ANSWERS)

    def stimulus_ids(self) -> list[str]:
        """Return the stimulus of each row of the store.

        Raises:
          InputError: if the list is missing, broken or of another length.
        """
        return store.stimulus_ids(self.artefact)

    def read_layer(self, layer: int) -> Float[np.ndarray, "m u"]:
        """Read the layer of that number as float32; stimuli that are `absent` are NaN.

        Raises:
          ValueError: if there is no such layer.
          InputError: if the store is missing or damaged.
        """
        absent = self.absent
        rows = np.array([x in absent for x in self.stimulus_ids()]) if absent else None
        return self.open().read_layer(self.layers.index(layer), rows)

    def read_units(self, chosen: Bool[np.ndarray, "L u"]) -> Float[np.ndarray, "m _"]:
        """Read the chosen units of all layers, as one set of features.

        Raises:
          InputError: if the store is missing or damaged.
        """
        opened = self.open()
        found = [opened.read_layer(i)[:, units] for i, units in enumerate(chosen) if units.any()]
        return np.concatenate(found, axis=1)

    def surprisal(self) -> tuple[Float[np.ndarray, " m"], list[str]]:
        """Read the surprisal of each stimulus in bits, and its id.

        Raises:
          InputError: if it is missing or damaged.
        """
        path = self.artefact.path / store.SURPRISAL
        return store.read_vector(path, self.open()), self.stimulus_ids()

    def samples(self, values: Float[np.ndarray, "m _"], onto: samples.Placement) -> samples.Samples:
        """Bring what was read of this store to the samples of responses, joined by stimulus_id.

        Args:
          values: a row for each row of the store.
          onto: stimuli and responses.

        Raises:
          InputError: if the list of the store's stimuli is missing or broken.
        """
        row = {name: i for i, name in enumerate(self.stimulus_ids())}
        ordered = values.astype(np.float64)[[row[name] for name in onto.stimuli.stimulus_id]]
        return samples.from_stimuli(ordered, onto)


def _by_model(upstream: Upstream, *kinds: str) -> dict[str, Activations]:
    every = among(Activations, itertools.chain(*upstream.values()))
    return {x.label: x for kind in kinds for x in every if x.artefact.kind == kind}


def trained(upstream: Upstream) -> dict[str, Activations]:
    """Return the activations of networks with their own weights, by label.

    Raises:
      InputError: if nothing is extracted.
    """
    if "extract" not in upstream:
        raise InputError("a run must have the stage extract, for a stage that needs networks.")
    return _by_model(upstream, Activations.TRAINED)


def untrained(upstream: Upstream) -> dict[str, Activations]:
    """Return the activations of the same networks with random weights, by label."""
    return _by_model(upstream, Activations.UNTRAINED)


def static(upstream: Upstream) -> dict[str, Activations]:
    """Return the word embeddings of networks, without position or context, by model."""
    return _by_model(upstream, Activations.STATIC)


def imported(upstream: Upstream) -> dict[str, Activations]:
    """Return the activations that were given, of networks that are not here, by model."""
    return _by_model(upstream, Activations.IMPORTED)


def networks(upstream: Upstream) -> dict[str, Activations]:
    """Return the activations of networks with their own weights, extracted or imported, by label.

    Raises:
      InputError: if there are none.
    """
    if found := _by_model(upstream, Activations.TRAINED, Activations.IMPORTED):
        return found
    raise InputError("a run must have the stage extract or imported, to have activations.")


class Scores(Rows):
    """Scores of a network or a control on every layer, as rows of subjects and ROIs."""

    kind = "scores"
    ALIGNMENT = "alignment.npz"  # under a protocol by name, its one score
    TARGETS = "targets.parquet"
    GRIDS = "grids.npz"  # of a network, where responses come from images
    NORMALIZED = "normalized"  # only under published ceilings; as CSV and as Parquet

    def alignment(self) -> AlignmentScore:
        """Read the one score of a protocol by name.

        Raises:
          InputError: if there is none, or the file is damaged.
        """
        path = self.artefact.path / self.ALIGNMENT
        read = arrays.read(path, AlignmentScore)
        if read is None:
            folder = self.artefact.path
            raise InputError(f"{path} must hold a score: delete {folder} and score again.")
        # Numbers and names come back as arrays without a dimension.
        parts: list[Any] = [x if x.ndim else x.item() for x in cast(list[np.ndarray], list(read))]
        return AlignmentScore(*parts)

    def targets(self) -> pd.DataFrame:
        """Read the scores of single targets.

        Raises:
          InputError: if the file cannot be read, or has another schema version.
        """
        return rows_lib.read(self.artefact.path / self.TARGETS)

    @property
    def has_grids(self) -> bool:
        """Whether responses came from images, and these are scores of a network."""
        return (self.artefact.path / self.GRIDS).exists()

    def grids(self) -> tuple[Grid, ...]:
        """Read the images that responses came from.

        Raises:
          InputError: if there are none, or the file is damaged.
        """
        read = lambda file: {name: file[name] for name in file.files}
        return grids.from_arrays(npz.read(self.artefact.path / self.GRIDS, read))

    def normalized(self) -> pd.DataFrame | None:
        """Read scores divided by the targets' own ceilings; None where none were published.

        Raises:
          InputError: if the file cannot be read.
        """
        path = self.artefact.path / self.NORMALIZED
        return rows_lib.read_table(path) if rows_lib.has_table(path) else None


class Partition(Rows):
    """What a network and a set of controls explain alone and share, as rows."""

    kind = "partition"
    ROWS = "partition.parquet"


class Comparison(Rows):
    """What a model's instructions give beside one another; tables as CSV and as Parquet."""

    kind = "instructions compared"
    TABLES = TARGETS, PARTITION, MARGINS, ANSWERS = ("targets", "partition", "margins", "answers")

    def tables(self) -> dict[str, pd.DataFrame]:
        """Read all tables, by name; an InputError names one that cannot be read."""
        return {x: rows_lib.read_table(self.artefact.path / x) for x in self.TABLES}


class Significance(Rows):
    """Permutation tests of a network's scores, as rows."""

    kind = "significance"
    ROWS = "significance.parquet"
    TARGETS = "targets.parquet"


class ProtocolCeiling(Kind):
    """The ceiling that belongs to a protocol by name."""

    kind = "protocol ceiling"
    CEILING = "ceiling.npz"

    def read(self) -> Reference:
        """Read the ceiling.

        Raises:
          InputError: if the file is missing or damaged.
        """
        path = self.artefact.path / self.CEILING
        found = arrays.read(path, Reference)
        if found is None:
            raise InputError(f"{path} must hold a ceiling: delete {self.artefact.path}.")
        return Reference(*(float(x) for x in found[:3]), found.per_target)


class CollectedScores(Rows):
    """Score rows of other runs and of papers."""

    kind = "collected scores"


class SimulatedInstructions(Rows):
    """Scores of a simulation of instructions, and its tables of targets and partitions."""

    kind = "simulated instructions"
    TARGETS, PARTITION = "targets", "partition"  # each as CSV and as Parquet

    def tables(self) -> list[pd.DataFrame]:
        """Read both tables.

        Raises:
          InputError: if a file cannot be read.
        """
        names = (self.TARGETS, self.PARTITION)
        return [rows_lib.read_table(self.artefact.path / name) for name in names]


class Properties(Rows):
    """What is known of models: one row per model and property."""

    kind = "properties"
    ROWS = "properties.parquet"
    TABLE = "properties.csv"  # one row per model


class Ceilings(Rows):
    """Every noise ceiling that responses allow, as rows."""

    kind = "ceilings"
    ROWS = "ceilings.parquet"


class Masks(Kind):
    """Language-selective and random units of a network."""

    kind = "unit masks"
    UNITS = "units.npz"
    TABLE = "layers"


class ReadingTimes(Kind):
    """Scores of surprisal on the reading times of one data set, over all words and by story."""

    kind = "reading times"
    SCORES, STORIES = "scores", "stories"


class Similarity(Kind):
    """CKA and RSA of a network's layers with responses, and with one another."""

    kind = "similarity"
    SCORES, MATRIX = "scores", "layer_matrix"


class RdmControls(Kind):
    """Controls and noise ceilings of dissimilarities that were published."""

    kind = "controls of dissimilarities"
    CONTROLS, CEILINGS = "controls", "ceilings"


class Tuning(Kind):
    """Models along a training, each a directory that `models.zoo` reads, and what led to them."""

    kind = "tuning"
    LOG = "log.csv"  # a line for each step
    MODELS = "models"  # a row for each model: arm, seed, step, what it has seen, the loss before
    ALL = "tuned"  # in the place of a model's name: all that the run tunes

    def name_of(self, step: int) -> str:
        """Return the name of the model after a step."""
        return f"{self.artefact.name}-step{step}"

    def folder_of(self, step: int) -> pathlib.Path:
        """Return the directory of the model after a step."""
        return pathlib.Path(str(self.artefact.path)) / f"step-{step:06d}"

    def log(self) -> pd.DataFrame:
        """Return the lines of the log; NaN: not known, such as the share of an unknown peak."""
        return pd.read_csv(pathlib.Path(str(self.artefact.path)) / self.LOG)


def tuned(name: str, upstream: Upstream) -> list[tuple[Any, Artefact]]:
    """Return models that the run makes, and the artefact of each: one by name, or all of them.

    Args:
      name: of a model, or `Tuning.ALL`.
      upstream: what earlier stages make.
    """
    made = among(Tuning, upstream.get("tune", ()))
    every = [(model, x.artefact) for x in made for model in x.artefact.offers]
    return [x for x in every if name in (Tuning.ALL, x[0].name)]


class Losses(Kind):
    """Losses of a network on the tokens of a text."""

    kind = "losses"
    TOKENS = "tokens.npy"  # of each token that counts: its place among all, and what it is


class Page(Kind):
    """Tables, figures and a page of all that a stage or a run has made."""

    kind = "page"
    SCORES = "scores"
