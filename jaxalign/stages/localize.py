"""Activations of sentences and non-words -> masks of language-selective and of random units."""

import dataclasses
import functools
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from jaxalign.core import localizer as core
from jaxalign.data import localizer
from jaxalign.errors import InputError
from jaxalign.io import run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.stages import Job, Step, Upstream, trained, untrained

VERSION = 1
UNITS = "units.npz"
SUMMARY = "summary.txt"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the localisation stage."""

    percent: float = 1.0  # of the units of all layers, rounded down
    num_units: int = 0  # instead of `percent`, if not 0
    embedding: bool = False  # whether units of layer 0 can be chosen

    def __post_init__(self):
        if not 0 < self.percent <= 50:
            raise InputError(
                "localize.percent must lie above 0 and be at most 50, since as many random units "
                f"are drawn from the rest, got {self.percent}."
            )
        if self.num_units < 0:
            raise InputError(f"localize.num_units must be >= 0, got {self.num_units}.")


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan the masks of each network, with its own weights or random ones.

    Raises:
      InputError: if the stimuli are not those of a localiser, or there are too few units.
    """
    localizer.conditions(job.dataset.stimuli.stimulus_id)
    steps = []
    for stores in (trained(upstream), untrained(upstream)):
        for model, source in stores.items():
            num, size = _num_units(config, source), _size(config, source)
            if not 1 <= num <= size // 2:
                raise InputError(
                    f"localize must choose between 1 and {size // 2} units of {model}, half of "
                    f"its {size}, got {num}: see localize.percent and localize.num_units."
                )
            random = source.settings["untrained_seed"] >= 0
            artefact = Artefact(
                workdir=job.workdir,
                stage="localize",
                name=model + (" untrained" if random else ""),
                settings={"version": VERSION, "seed": job.seed} | dataclasses.asdict(config),
                inputs=(source,),
                cost=f"{num} of {size} units",
            )
            make = functools.partial(_localize, config, job)
            steps.append(Step(artefact=artefact, make=make, shows=SUMMARY))
    return steps


def _size(config: Config, source: Artefact) -> int:
    """Units that can be chosen."""
    return source.settings["width"] * (source.settings["num_layers"] + config.embedding)


def _num_units(config: Config, source: Artefact) -> int:
    return config.num_units or int(_size(config, source) * config.percent / 100)


def _localize(config: Config, job: Job, artefact: Artefact) -> dict:
    (source,) = artefact.inputs
    opened = store.open_artefact(source)
    kind = np.array(localizer.conditions(store.stimulus_ids(source)))
    t = np.full((opened.shape[0], opened.shape[2]), np.nan)
    for layer in range(0 if config.embedding else 1, len(t)):
        values = opened.read_layer(layer)
        t[layer] = core.welch_t(
            values[kind == localizer.CONDITION], values[kind == localizer.CONTROL]
        )
    num = _num_units(config, source)
    try:
        language = core.top_units(t, num)
        control = core.random_units(language, ~np.isnan(t), np.random.default_rng(job.seed))
    except ValueError as error:
        raise InputError(f"localize {artefact.name}: {error}") from error
    buffer = io.BytesIO()
    np.savez(buffer, language=language, random=control, t=t)
    run_dir.write_atomic(artefact.path / UNITS, buffer.getvalue())
    text = _summary(artefact, language, t)
    run_dir.write_atomic(artefact.path / SUMMARY, text.encode())
    return {"num_units": num, "num_undefined": int(np.isnan(t).sum())}


def _summary(
    artefact: Artefact, language: Bool[np.ndarray, "L u"], t: Float[np.ndarray, "L u"]
) -> str:
    chosen = t[language]
    counts: Sequence[str] = [f"{layer}: {num}" for layer, num in enumerate(language.sum(axis=1))]
    lines = [
        "",
        f"Language-selective units of {artefact.name}: {len(chosen)}, t from {chosen.min():.2f} "
        f"to {chosen.max():.2f} (sentences against non-words, |activation|).",
        f"  By layer: {', '.join(counts)}.",
        f"  Masks [layer, unit] `language`, `random` (as many of the others), and `t` are in "
        f"{artefact.path / UNITS}.",
    ]
    return "\n".join(lines) + "\n"
