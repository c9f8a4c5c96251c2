"""Activations of a chosen layer -> planted responses, where nobody was recorded."""

import dataclasses
import functools
from typing import Annotated

import numpy as np

from jaxalign.checks import Count, NotNegative, above_zero, at_least, check
from jaxalign.data.schema import Responses
from jaxalign.data.synthetic import planted
from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.pricing import work
from jaxalign.stages import Job, Step, Upstream, artefacts
from jaxalign.stages.artefacts import Activations
from jaxalign.stages.responses import PlantedResponses

VERSION = 1
ROI = "planted"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the simulation stage."""

    model: str  # one of extract.models, by its name
    layer: NotNegative  # the layer that responses are made of; 0 is the embedding
    num_subjects: Annotated[int, at_least(2)] = 8
    num_targets: Count = 50  # of each participant
    # In units of the signal's standard deviation.
    noise_sd: Annotated[float, above_zero] = 1.2

    def __post_init__(self):
        check(self, "simulate")


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan one set of responses.

    Raises:
      InputError: if the model was not extracted, or has no such layer.
    """
    stores = artefacts.trained(upstream)
    if config.model not in stores:
        raise InputError(
            f"simulate.model must be one of the extracted models ({', '.join(stores)}), "
            f"got {config.model!r}."
        )
    source = stores[config.model]
    if config.layer > source.num_layers:
        raise InputError(
            f"simulate.layer must be at most {source.num_layers} for {config.model}, "
            f"got {config.layer}."
        )
    settings = {"version": VERSION, "seed": job.seed} | dataclasses.asdict(config)
    samples = config.num_subjects * config.num_targets * source.settings["num_stimuli"]
    artefact = Artefact(
        workdir=job.root,
        stage="simulate",
        kind=PlantedResponses.kind,
        name=f"{config.model} layer {config.layer}",
        settings=settings,
        inputs=(source.artefact,),
        cost=f"{config.num_subjects} participants x {config.num_targets} targets, "
        f"{8 * samples / 1e6:.1f} MB",
    )
    # Responses, and the signal that they are made of.
    taken = work.small(host_s=0.1, disk_bytes=2.0 * 8 * samples)
    make = functools.partial(_simulate, config, job, source)
    return [Step(artefact=artefact, make=make, work=taken)]


def _simulate(config: Config, job: Job, source: Activations, artefact: Artefact) -> dict:
    if source.absent:
        raise InputError(
            f"simulate.model must have activations of every image: {config.model} answered nothing "
            f"about {len(source.absent)}."
        )
    values, signal = planted.plant(
        source.read_layer(config.layer).astype(np.float64),
        num_subjects=config.num_subjects,
        num_targets=config.num_targets,
        noise_sd=config.noise_sd,
        rng=np.random.default_rng(job.seed),
    )
    s, n, v = values.shape
    responses = Responses(
        values=values.transpose(1, 0, 2).reshape(n, s * v),
        run=job.dataset.stimuli.run,
        subject=[f"p{i + 1:02d}" for i in range(s) for _ in range(v)],
        roi=[ROI] * (s * v),
        target=[f"t{j:03d}" for _ in range(s) for j in range(v)],
        units="standard deviations of the signal",
        stimulus_id=source.stimulus_ids(),
        signal=np.tile(signal, (1, s)),
    )
    run_dir.write_atomic(artefact.path / PlantedResponses.RESPONSES, responses.to_bytes())
    return {}
