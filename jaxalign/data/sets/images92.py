"""92 photographs of objects, and how dissimilar they are in human IT (Kriegeskorte et al. 2008).

Four people saw 92 coloured pictures of 175 x 175 pixels in two sessions (fMRI, 3 T). Published are
the dissimilarities of their patterns in inferior temporal cortex (316 voxels), 1 - Pearson r, not
the patterns; those of monkey IT (electrodes); and dissimilarities of models.

Source: Kriegeskorte et al. (2008), Neuron 60, 1126-1141; files of rsatoolbox, demos/92imageData.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import numpy as np

from jaxalign.data.adapter import Adapter
from jaxalign.data.dissimilarities import Dissimilarities
from jaxalign.data.formats import matlab
from jaxalign.data.images.stored import Held
from jaxalign.data.schema import Stimuli
from jaxalign.errors import InputError
from jaxalign.io import run_dir

FOLDER = "images92"
STIMULI, BRAINS, MODELS = FILES = (
    "Kriegeskorte_Neuron2008_supplementalData.mat",
    "92_brainRDMs.mat",
    "92_modelRDMs.mat",
)
NUM, SIDE = 92, 175
_SESSIONS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images92(Adapter):
    """Photographs, and dissimilarities of people, monkeys and models."""

    name: str = FOLDER
    absent = {"responses": "dissimilarities of patterns were published, and not the patterns"}

    def files(self) -> list[pathlib.Path]:
        """Return the three files that are read."""
        return self.need(self.root / FOLDER / file for file in FILES)

    @property
    def has_images(self) -> bool:
        """Stimuli are images."""
        return True

    def stimuli(self) -> Stimuli:
        """Return the photographs in the order of the dissimilarities; each is its own passage."""
        path, found = self._read(STIMULI, "stimuli_92objs")
        images = [_field(path, x, "image") for x in found.ravel()]
        if len(images) != NUM or any(x.shape != (SIDE, SIDE, 3) for x in images):
            raise InputError(f"{path} must hold {NUM} images of {SIDE} x {SIDE} x 3.")
        names = _names()
        return Stimuli(
            stimulus_id=names,
            text=(),
            passage=names,
            run=["session"] * NUM,
            unit="image",
            pixels=Held(images=np.stack(images).astype(np.uint8)),
        )

    def dissimilarities(self) -> Dissimilarities:
        """Return those of human IT, with monkey IT and models beside them, as the file has them."""
        path, found = self._read(BRAINS, "RDMs")
        found = found.reshape(-1, _SESSIONS)
        values = [_pairs(path, _field(path, x, "RDM")) for x in found.ravel()]
        others = {}
        path, models = self._read(MODELS, "Models")
        for model in models.ravel():
            name = str(np.ravel(_field(path, model, "name"))[0])
            others[name] = _pairs(path, _field(path, model, "RDM"))
        return Dissimilarities(
            stimulus_id=_names(),
            values=np.stack(values),
            subject=[f"S{i + 1}" for i in range(len(found)) for _ in range(_SESSIONS)],
            roi="human IT",
            units="1 - Pearson r",
            others=others,
        )

    def _read(self, file: str, key: str) -> tuple[pathlib.Path, np.ndarray]:
        path = self.files()[FILES.index(file)]
        content = _mat(path, run_dir.hash_file(path))
        if not isinstance(content.get(key), np.ndarray):
            raise InputError(f"{path} must hold {key!r}, found {', '.join(content) or 'nothing'}.")
        return path, content[key]


def _names() -> list[str]:
    return [f"image{i + 1:02d}" for i in range(NUM)]


@functools.lru_cache(maxsize=8)
def _mat(path: pathlib.Path, content_hash: str) -> dict[str, Any]:
    del content_hash  # what was read is kept as long as the file is the same
    return matlab.read(path)


def _field(path: pathlib.Path, entry: Any, name: str) -> np.ndarray:
    if entry.dtype.names is None or name not in entry.dtype.names:
        raise InputError(f"{path} must hold structures with the field {name!r}.")
    return np.asarray(entry[name])


def _pairs(path: pathlib.Path, matrix: np.ndarray) -> np.ndarray:
    """Return the entries above the diagonal."""
    values = np.asarray(matrix, np.float64)
    if values.shape != (NUM, NUM) or not np.allclose(values, values.T, atol=1e-6, equal_nan=True):
        raise InputError(f"{path} must hold symmetric matrices of {NUM} x {NUM}.")
    return values[np.triu_indices(NUM, k=1)]
