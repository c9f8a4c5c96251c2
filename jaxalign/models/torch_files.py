"""Checkpoints that torch has pickled; torch is needed to read them, and for nothing else."""

import importlib
import pathlib
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.io.checkpoint import SAFETENSORS_DTYPES, shards


class TorchFiles:
    """`pytorch_model.bin`, or the shards that its index names."""

    def __init__(self, directory: pathlib.Path):
        """Open all files; those of torch 1.6 and later are mapped, not read.

        Raises:
          InputError: if torch is missing, or a file is missing or not of weights alone.
        """
        self.path = directory
        try:
            self._torch: Any = importlib.import_module("torch")
        except ImportError as error:
            raise InputError(
                f"{directory} holds .bin files, which only torch reads: run "
                "pip install 'jaxalign[convert]', or install torch."
            ) from error
        index = directory / "pytorch_model.bin.index.json"
        files = shards(index) if index.is_file() else [directory / "pytorch_model.bin"]
        self._tensors = {}
        for file in files:
            for key, tensor in self._open(file).items():
                if key in self._tensors:
                    raise InputError(
                        f"{directory} must hold each tensor once: {key} is there twice."
                    )
                self._tensors[key] = tensor

    def _open(self, file: pathlib.Path) -> dict:
        if not file.is_file():
            raise InputError(f"{file} must be there: the index names it.")
        try:
            # weights_only: a pickle may run any code.
            found = self._torch.load(
                file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
            )
        except Exception as error:  # unpickling raises whatever it meets
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{file} must be a whole file of tensors alone: {reason}.") from error
        tensor = self._torch.Tensor
        if not isinstance(found, dict) or not all(isinstance(x, tensor) for x in found.values()):
            raise InputError(f"{file} must hold named tensors alone, as a state_dict does.")
        return found

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor."""
        return {name: tuple(tensor.shape) for name, tensor in self._tensors.items()}

    def dtypes(self) -> dict[str, np.dtype]:
        """Return the type of each tensor.

        Raises:
          InputError: if one is of a type that is not written.
        """
        return {name: self._dtype(name) for name in self._tensors}

    def _dtype(self, name: str) -> np.dtype:
        text = str(self._tensors[name].dtype).removeprefix("torch.")
        known = {dtype.name: dtype for dtype in SAFETENSORS_DTYPES}
        if text not in known:
            raise InputError(
                f"{self.path}: tensor {name} must be one of {', '.join(known)}: {text}."
            )
        return known[text]

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Read part of a tensor."""
        part = self._tensors[name].detach()[index].contiguous()
        if self._dtype(name) == ml_dtypes.bfloat16:  # which NumPy lacks: pass on the bits
            return part.view(self._torch.int16).numpy().view(ml_dtypes.bfloat16)
        return part.numpy()

    def hash(self) -> str:
        """Return a hash of the files' contents."""
        files = sorted(self.path.glob("pytorch_model*.bin"))
        return run_dir.hash_text("".join(run_dir.hash_file(file) for file in files))
