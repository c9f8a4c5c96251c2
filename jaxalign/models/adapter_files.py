"""Low-rank adapters (`models.lora`) as the files that PEFT reads.

`adapter_model.safetensors` holds A [rank inputs] and B [outputs rank] of each map, by the name of
the module that transformers builds; `adapter_config.json` says what to scale them by. Where one
module holds several maps (GPT-2's c_attn: queries, keys and values), it has one adapter of their
ranks together, whose B is zero where a map's part of A must not reach.
"""

import collections
import json
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from flax import nnx

from jaxalign.errors import InputError
from jaxalign.io import checkpoint, run_dir
from jaxalign.models import formats, lora, readers, weights, zoo

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of all names: PEFT wraps the network twice


class Adapters(NamedTuple):
    """Adapters of a network.

    Attributes:
      arrays: path of a map -> A [inputs rank] and B [rank outputs], with layers in front of both
        in stacked blocks.
      alpha: what the product of the two is scaled by, times the rank.
    """

    arrays: Mapping[str, tuple[np.ndarray, np.ndarray]]
    alpha: float

    @property
    def rank(self) -> int:
        """Columns of A, rows of B."""
        return next(iter(self.arrays.values()))[0].shape[-1]


def of_network(network: nnx.Module) -> Adapters:
    """Return the adapters of a network, on the host.

    Raises:
      InputError: if it has none.
    """
    found, scales = {}, set()
    for path, linear in lora.maps(network):
        if linear.lora_a is not None:
            found[path] = tuple(np.asarray(x[...]) for x in (linear.lora_a, linear.lora_b))
            scales.add(linear.lora_scale)
    if not found:
        raise InputError("the network must have adapters: it has none.")
    (scale,) = scales
    return Adapters(found, scale * next(iter(found.values()))[0].shape[-1])


def of_folder(folder: pathlib.Path) -> Adapters:
    """Read the adapters that lie beside a tuned model, which holds them merged too.

    Args:
      folder: the model's directory.

    Raises:
      InputError: if it has none, or they are incomplete.
    """
    if not (folder / formats.ADAPTER).is_dir():
        raise InputError(f"{folder} must hold adapters ({formats.ADAPTER}/): it has none.")
    # Orbax is slow to import.
    from jaxalign.io import orbax_tree

    about = folder / formats.ABOUT
    try:
        alpha = float(json.loads(about.read_text(encoding="utf-8"))["settings"]["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{about} must say lora_alpha in its settings: {error!r}.") from error
    stored = orbax_tree.Arrays(folder / formats.ADAPTER)
    read = lambda name: stored.part(name, (slice(None),) * len(stored.shapes()[name]))
    found = {}
    for name in stored.shapes():
        path, _, letter = name.rpartition("/")
        if letter not in ("lora_a", "lora_b") or f"{path}/lora_a" not in stored.shapes():
            raise InputError(f"{stored.path} must hold pairs of lora_a and lora_b, found {name}.")
        if letter == "lora_b":
            found[path] = read(f"{path}/lora_a"), read(name)
    return Adapters(found, alpha)


class _Part(NamedTuple):
    """A map, or a layer of one, in a module of transformers."""

    path: str
    tensor: weights.Tensor
    layer: int | None


def write(folder: pathlib.Path, model: zoo.Model, adapters: Adapters, *, base: str) -> None:
    """Write the files; whoever reads finds both, or no configuration.

    Args:
      folder: to write to; it is made if it is not there.
      model: whose network the adapters were added to.
      adapters: of all maps, of the same rank.
      base: what PEFT is to load the network from: a repository or a directory.

    Raises:
      InputError: if adapters of the family have no such form.
    """
    design = readers.family(model.design)
    tensors = design.tensors(model.config)
    modules: dict[str, list[_Part]] = collections.defaultdict(list)
    ends = {}  # module -> what its name ends in, in every layer
    flipped = set()
    for path, (a, _) in adapters.arrays.items():
        tensor = tensors[f"{path}/kernel"]
        if tensor.divided or tensor.lead or model.reads == "images and text":
            raise InputError(
                f"model {model.name}: an adapter of {tensor.name} has no form that PEFT reads."
            )
        flipped.add(not tensor.transpose)
        stacked = "{layer}" in tensor.name
        for layer in range(len(a)) if stacked else (None,):
            stored = design.stored_name(tensor.of_layer(layer or 0), model.config)
            module = stored.removesuffix(".weight")
            modules[module].append(_Part(path, tensor, layer))
            template = design.stored_name(tensor.name, model.config).removesuffix(".weight")
            ends[module] = template.rpartition("{layer}.")[2]
    arrays = {}
    for module, parts in modules.items():
        for letter, values in zip("AB", _joined(parts, adapters), strict=True):
            arrays[f"{_PREFIX}{module}.lora_{letter}.weight"] = values
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)
    shapes = {name: (x.shape, x.dtype) for name, x in arrays.items()}
    checkpoint.write_safetensors(folder / WEIGHTS, shapes, arrays.__getitem__)
    own = {ends[module]: len(parts) for module, parts in modules.items() if len(parts) > 1}
    config = {
        "peft_type": "LORA",
        "task_type": _task(model),
        "base_model_name_or_path": base,
        "r": adapters.rank,
        "lora_alpha": adapters.alpha,
        "target_modules": sorted(set(ends.values())),
        "rank_pattern": {end: count * adapters.rank for end, count in own.items()},
        "alpha_pattern": {end: count * adapters.alpha for end, count in own.items()},
        "fan_in_fan_out": flipped == {True},
        "bias": "none",
        "lora_dropout": 0.0,
        "init_lora_weights": True,
        "inference_mode": True,
        "modules_to_save": None,
        "use_rslora": False,
    }
    run_dir.write_json(folder / CONFIG, config)


def _joined(parts: list[_Part], adapters: Adapters) -> tuple[np.ndarray, np.ndarray]:
    """Return A [rank inputs] and B [outputs rank] of a module that holds some maps."""
    of = lambda part: (
        x if part.layer is None else x[part.layer] for x in adapters.arrays[part.path]
    )
    reads, writes = [], []
    for part in parts:
        a, b = of(part)
        whole = part.tensor.part
        whole_b = np.zeros((b.shape[0], b.shape[1] if whole is None else whole.total), b.dtype)
        # The axis of outputs is the one that a fused tensor divides.
        part.tensor._replace(transpose=False).write(whole_b, b)
        reads.append(a)
        writes.append(whole_b)
    return np.concatenate(reads, axis=1).T, np.concatenate(writes, axis=0).T


def _task(model: zoo.Model) -> str:
    if not model.predicts:
        return "FEATURE_EXTRACTION"
    return "SEQ_2_SEQ_LM" if model.design == "t5" else "CAUSAL_LM"
