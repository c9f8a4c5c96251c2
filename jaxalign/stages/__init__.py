"""Stages of a run. Each module has a frozen `Config` and a `plan` of steps; stages meet on disk."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxalign.data.datasets import Dataset
from jaxalign.errors import InputError
from jaxalign.io import store
from jaxalign.io.run_dir import Artefact


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every stage is given besides its own settings."""

    workdir: pathlib.Path
    data_root: pathlib.Path | None
    dataset: Dataset | None  # None: of no stage that reads one
    mesh: Mesh
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One artefact, and how to make it.

    Planning is cheap and finds every error that can be found without computing; `make` does the
    work, resumes what an interrupted run left, and returns facts for the done-marker.
    """

    artefact: Artefact
    make: Callable[[Artefact], dict]
    shows: str = ""  # a text file of the artefact to print at the end of the run


# Artefacts that earlier stages make, by stage.
Upstream = Mapping[str, Sequence[Artefact]]


def trained(upstream: Upstream) -> dict[str, Artefact]:
    """Return the activations of networks with their own weights, by model.

    Raises:
      InputError: if nothing is extracted.
    """
    if "extract" not in upstream:
        raise InputError("a run must have the stage extract, for a stage that needs networks.")
    stores = [x for x in upstream["extract"] if not x.settings.get("static")]
    return {x.settings["model"]: x for x in stores if x.settings["untrained_seed"] < 0}


def untrained(upstream: Upstream) -> dict[str, Artefact]:
    """Return the activations of the same networks with random weights, by model."""
    stores = upstream.get("extract", ())
    return {x.settings["model"]: x for x in stores if x.settings["untrained_seed"] >= 0}


def static(upstream: Upstream) -> dict[str, Artefact]:
    """Return the word embeddings of networks, without position or context, by model."""
    stores = upstream.get("extract", ())
    return {x.settings["model"]: x for x in stores if x.settings.get("static")}


def given(upstream: Upstream) -> dict[str, Artefact]:
    """Return the activations that were given, of networks that are not here, by model."""
    return {x.settings["model"]: x for x in upstream.get("imported", ())}


def networks(upstream: Upstream) -> dict[str, Artefact]:
    """Return the activations of networks with their own weights, extracted or given, by model.

    Raises:
      InputError: if there are none.
    """
    found = (trained(upstream) if "extract" in upstream else {}) | given(upstream)
    if not found:
        raise InputError("a run must have the stage extract or imported, to have activations.")
    return found


def layer_numbers(source: Artefact) -> Sequence[int]:
    """Return the number of each layer of a store; 0 is the embedding.

    What was given may lack some.
    """
    return source.settings.get("layers", range(source.settings["num_layers"] + 1))


def check_layers(stage: str, layers: Sequence[int], source: Artefact) -> None:
    """Refuse a setting that asks for layers which a store does not have.

    Raises:
      InputError: naming the stage's setting.
    """
    numbers = layer_numbers(source)
    if bad := [x for x in layers if x not in numbers]:
        last = source.settings["num_layers"]
        known = f"lie in 0..{last}" if len(numbers) == last + 1 else f"be among {list(numbers)}"
        raise InputError(
            f"{stage}.layers must {known} for {source.settings['model']}, got {bad[0]}."
        )


def read_layer(source: Artefact, layer: int) -> Float[np.ndarray, "m u"]:
    """Read the layer of that number as float32.

    Raises:
      ValueError: if there is no such layer.
      InputError: if the store is missing or damaged.
    """
    return store.open_artefact(source).read_layer(layer_numbers(source).index(layer))
