"""The ceiling that belongs to a protocol by name, found once for all that is scored under it."""

import functools
import time

import numpy as np

from jaxalign import stopping
from jaxalign.core.ceilings import of_protocol
from jaxalign.data.schema import GROUP, Responses
from jaxalign.errors import InputError
from jaxalign.io import arrays
from jaxalign.io.run_dir import Artefact
from jaxalign.pricing import work
from jaxalign.stages import Job, Step
from jaxalign.stages.artefacts import ProtocolCeiling
from jaxalign.stages.encode import config as config_lib
from jaxalign.stages.encode import inputs
from jaxalign.stages.encode.config import Config


def plan(
    config: Config, job: Job, planned: Responses, simulated: tuple[Artefact, ...], settings: dict
) -> list[Step]:
    """Plan the one step that finds the ceiling, if there is one to find.

    One that was published is taken instead. Extrapolation is found only where it is asked for: with
    many voxels it takes longer than all scores.

    Args:
      config: settings.
      job: as every stage has it.
      planned: responses; simulated ones have no subjects yet.
      simulated: the artefact of planted responses, or nothing.
      settings: what fixes targets and folds.

    Raises:
      InputError: if there are fewer subjects than an extrapolation needs.
    """
    kind = config_lib.protocol(config).ceiling if config.protocol else "none"
    is_asked_for = kind == "leave_one_subject_out" or (
        kind == "extrapolated" and config.max_subsets > 0
    )
    is_given = config.protocol_ceiling or config.ceilings == config_lib.PUBLISHED
    if is_given or not is_asked_for:
        return []
    num_subjects = len(set(planned.subject))
    if kind == "extrapolated" and not simulated and num_subjects < 3:
        raise InputError(
            f"encode.max_subsets must be 0 for {num_subjects} subjects: an extrapolated ceiling "
            "needs 3."
        )
    artefact = Artefact(
        workdir=job.root,
        stage="encode",
        kind=ProtocolCeiling.kind,
        name=f"ceiling of {config.protocol}",
        settings=settings | ({"max_subsets": config.max_subsets} if kind == "extrapolated" else {}),
        inputs=simulated,
        cost=f"{num_subjects} subjects, "
        + (
            "from subsets of them" if kind == "extrapolated" else "each with the mean of the others"
        ),
    )
    make = functools.partial(_make, config, job)
    return [Step(artefact=artefact, make=make, work=work.TABLES)]


def _make(config: Config, job: Job, artefact: Artefact) -> dict:
    start = time.monotonic()
    data = inputs.prepare(config, job, artefact)
    responses = data.responses
    people = np.array([subject != GROUP for subject in data.targets.subject])
    Y, runs = data.Y[:, people], responses.run if responses.is_timed else None
    names = list(zip(responses.roi, responses.target, strict=True))
    recorded = of_protocol.Recorded(Y, responses.subject, names, runs)
    if data.protocol.ceiling == "leave_one_subject_out":
        found = of_protocol.leave_one_subject_out(recorded, data.folds, data.protocol)
    else:
        found = of_protocol.extrapolated(
            recorded,
            data.folds,
            data.protocol,
            max_subsets=config.max_subsets,
            mesh=job.own_mesh if job.own_mesh.size > 1 else None,
            progress=stopping.watch,
        )
    arrays.write(artefact.path / ProtocolCeiling.CEILING, found)
    return {"left_out": data.left_out, "seconds": round(time.monotonic() - start, 3)}
