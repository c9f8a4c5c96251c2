"""Responses that a stage reads: the recorded ones, or planted ones in their place."""

from collections.abc import Sequence

from jaxalign.data.schema import Responses
from jaxalign.errors import InputError
from jaxalign.io.run_dir import Artefact
from jaxalign.stages import Job, Upstream, artefacts


class PlantedResponses(artefacts.Kind):
    """Responses that are made of a layer, where nobody was recorded."""

    kind = "planted responses"
    RESPONSES = "responses.npz"

    def read(self) -> Responses:
        """Read the responses.

        Raises:
          InputError: if the file is missing or damaged.
        """
        return Responses.load(self.artefact.path / self.RESPONSES)


def planted(stage: str, rois: Sequence[str], upstream: Upstream) -> tuple[Artefact, ...]:
    """Return the planted responses that take the place of recorded ones, or nothing.

    Args:
      stage: that reads them.
      rois: its setting.
      upstream: what earlier stages make.

    Raises:
      InputError: if ROIs are chosen, of which planted responses have one.
    """
    found = artefacts.among(PlantedResponses, upstream.get("simulate", ()))
    if found and rois:
        raise InputError(f"{stage}.rois must be () for simulated responses, got {rois}.")
    return tuple(x.artefact for x in found)


def read(job: Job, artefact: Artefact) -> Responses:
    """Return the planted responses if the artefact is made from some, else the recorded ones.

    Without those to stimuli of which an artefact that it is made from has no activations.

    Raises:
      InputError: if they are missing or malformed, or none is left.
    """
    found = artefacts.among(PlantedResponses, artefact.inputs)
    every = found[0].read() if found else job.dataset.responses
    sources = artefacts.among(artefacts.Activations, artefact.inputs)
    absent = frozenset().union(*(x.absent for x in sources))
    kept = [x not in absent for x in every.stimulus_id]
    if absent and every.is_timed:
        raise InputError(
            f"{artefact.name}: {sources[0].label} must answer about every image of timed "
            f"responses, found {len(absent)} empty answers."
        )
    if all(kept):
        return every
    if not any(kept):
        raise InputError(f"{artefact.name}: {sources[0].label} answered nothing about any image.")
    return every.samples(kept)
