"""From named tensors on disk to a network's sharded parameters, strict in both directions."""

import functools
import gc
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from jaxalign.core import mesh as mesh_lib
from jaxalign.errors import InputError
from jaxalign.io.checkpoint import Checkpoint

_ROWS = 4096  # of two tables that are compared at a time


class Part(NamedTuple):
    """Entries of a fused tensor's output axis: `block` of them from `start` on, every `stride`."""

    start: int
    block: int
    stride: int
    total: int  # entries of the axis

    def slices(self, first: int, last: int) -> list[slice]:
        """Return where entries first..last-1 of the part lie, as contiguous pieces in order."""
        pieces = []
        while first < last:
            repeat, offset = divmod(first, self.block)
            count = min(self.block - offset, last - first)
            at = self.start + repeat * self.stride + offset
            pieces.append(slice(at, at + count))
            first += count
        return pieces


class Tensor(NamedTuple):
    """Where a parameter lies in a checkpoint; `{layer}` stands for the index of a block."""

    name: str
    transpose: bool = False
    part: Part | None = None  # which of the parameter's last axis; None: all of it
    lead: int = 0  # axes of length 1 in front of it where it is stored
    # What the last axis of the stored tensor is divided into, as the kernel of a convolution has
    # channels, rows and columns where the parameter has one axis.
    divided: tuple[int, ...] = ()
    every: int = 1  # of what only some blocks have: blocks from one that has it to the next

    def of_layer(self, layer: int) -> str:
        """Return the name of the tensor that fills entry `layer` of a stacked parameter."""
        return self.name.format(layer=layer * self.every)

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of the stored tensor of a parameter without its layer axis."""
        if self.part is not None:
            shape = (*shape[:-1], self.part.total)
        if self.transpose:
            shape = shape[::-1]
        if self.divided:
            shape = (*shape[:-1], *self.divided)
        return (1,) * self.lead + shape

    def read(self, checkpoint: Checkpoint, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Read part of a parameter; `index` has a start and a stop in each axis."""
        last = [index[-1]]
        if self.part is not None:
            last = self.part.slices(index[-1].start, index[-1].stop)
        pieces = []
        for piece in last:
            where = (*index[:-1], piece)
            values = self._stored(checkpoint, name, where[::-1] if self.transpose else where)
            pieces.append(values.T if self.transpose else values)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-1)

    def write(self, stored: np.ndarray, values: np.ndarray) -> None:
        """Put a parameter to where `read` finds it, in a tensor that may hold others too.

        Args:
          stored: the whole tensor, of `stored_shape`, contiguous; it is changed.
          values: the parameter, without its layer axis.
        """
        view = stored.reshape(stored.shape[self.lead :])
        if self.divided:
            view = view.reshape(*view.shape[: -len(self.divided)], -1)
        if self.transpose:
            view = view.T
        count, first = values.shape[-1], 0
        for piece in [slice(0, count)] if self.part is None else self.part.slices(0, count):
            last = first + piece.stop - piece.start
            view[..., piece] = values[..., first:last]
            first = last

    def _stored(self, checkpoint: Checkpoint, name: str, where: tuple[slice, ...]) -> np.ndarray:
        """Read part of the stored tensor, with the axes of the parameter."""
        last = tuple(slice(0, size) for size in self.divided)
        index = (slice(0, 1),) * self.lead + ((*where[:-1], *last) if last else where)
        values = checkpoint.read(name, index)
        values = values.reshape(values.shape[self.lead :])
        if not last:
            return values
        return values.reshape(*values.shape[: -len(last)], -1)[..., where[-1]]


def check(
    found: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    abstract: nnx.Module,
    tensors: Mapping[str, Tensor],
    ignored: Sequence[str],
    *,
    source: str,
) -> None:
    """Compare a checkpoint's names and shapes with a network's parameters; reads no values.

    Args:
      found: shape and type of each tensor, prefixes removed.
      abstract: the network, from `nnx.eval_shape`.
      tensors: parameter path -> tensor.
      ignored: regular expressions of tensors that the network does not use.
      source: what to call the checkpoint in an error.

    Raises:
      InputError: if a tensor is missing, has another shape, holds no real numbers, or is not
        known.
    """
    used = set()
    for path, param in parameters(abstract).items():
        tensor = tensors[path]
        stacked = "{layer}" in tensor.name
        want = tensor.stored_shape(param.shape[1:] if stacked else param.shape)
        for layer in range(param.shape[0] if stacked else 1):
            name = tensor.of_layer(layer)
            if name not in found:
                raise InputError(f"{source} must hold tensor {name} {list(want)}: it is missing.")
            shape, dtype = found[name]
            if shape != want:
                raise InputError(
                    f"{source}: tensor {name} must have shape {list(want)}, found {list(shape)}."
                )
            if not jnp.issubdtype(dtype, jnp.floating):
                raise InputError(
                    f"{source}: tensor {name} must hold floating-point numbers, found {dtype}: "
                    "use a checkpoint that is not quantised."
                )
            used.add(name)
    unknown = [
        name
        for name in sorted(set(found) - used)
        if not any(re.fullmatch(pattern, name) for pattern in ignored)
    ]
    if unknown:
        raise InputError(
            f"{source} must hold no tensor that the network does not use: found {unknown[0]}"
            + (f" and {len(unknown) - 1} more." if len(unknown) > 1 else ".")
        )


def same(checkpoint: Checkpoint, first: str, second: str) -> bool:
    """Return whether two tensors of a checkpoint have the same values."""
    shape, other = (checkpoint.shapes()[name] for name in (first, second))
    if shape != other:
        return False
    rest = (slice(None),) * (len(shape) - 1)
    starts = range(0, shape[0], _ROWS) if shape else ()
    pieces = ((slice(i, min(i + _ROWS, shape[0])), *rest) for i in starts)
    return all(
        np.array_equal(checkpoint.read(first, piece), checkpoint.read(second, piece))
        for piece in pieces
    )


def load(
    abstract: nnx.Module,
    checkpoint: Checkpoint,
    tensors: Mapping[str, Tensor],
    names: Mapping[str, str],
    mesh: Mesh,
    rules: Mapping[str, str] = mesh_lib.RULES,
) -> nnx.Module:
    """Read each parameter slice by slice, straight to the devices that hold it.

    The host holds one device's part of one parameter at a time, and that of the one before it until
    jax has freed what it copied.

    Args:
      abstract: the network, from `nnx.eval_shape`; its dtypes are those loaded to.
      checkpoint: what `check` has passed.
      tensors: parameter path -> tensor.
      names: name of each tensor without prefix -> its name in the checkpoint.
      mesh: devices.
      rules: logical axis -> mesh axis.
    """
    arrays = {}
    # The largest first: on a CPU the host holds the weights too, nearly all of them while the last
    # parameter is copied to its device.
    structs = placements(abstract, mesh, rules=rules)
    for path in sorted(structs, key=lambda path: -structs[path].size):
        struct = structs[path]
        read = functools.partial(
            read_part, checkpoint, tensors[path], names, struct.shape, dtype=struct.dtype
        )
        array = jax.make_array_from_callback(struct.shape, struct.sharding, read)
        # Copies run in the background: without waiting, several parameters would be held.
        arrays[path] = jax.block_until_ready(array)
        # What was copied is freed when Python collects garbage, if the copy is over by then.
        # Without this several parameters stay, and with it one at most.
        gc.collect(0)
    return fill(abstract, arrays)


def read_part(
    checkpoint: Checkpoint,
    tensor: Tensor,
    names: Mapping[str, str],
    shape: tuple[int, ...],
    index: tuple[slice, ...],
    *,
    dtype: Any,
) -> np.ndarray:
    """Read part of a parameter.

    Args:
      checkpoint: what `check` has passed.
      tensor: where the parameter lies in it.
      names: name of each tensor without prefix -> its name in the checkpoint.
      shape: of the whole parameter.
      index: the part.
      dtype: of the result; None: as stored.
    """
    bounded = tuple(slice(*i.indices(n)[:2]) for i, n in zip(index, shape, strict=True))
    if "{layer}" not in tensor.name:
        values = tensor.read(checkpoint, names[tensor.name], bounded)
        return values if dtype is None else values.astype(dtype)
    layers, rest = range(bounded[0].start, bounded[0].stop), bounded[1:]
    read = lambda layer: tensor.read(checkpoint, names[tensor.of_layer(layer)], rest)
    first = read(layers[0])
    values = np.empty((len(layers), *first.shape), dtype or first.dtype)
    values[0] = first
    del first  # so that one layer at a time is held in addition to the whole
    for at, layer in enumerate(layers[1:], 1):
        values[at] = read(layer)
    return values


def fill(abstract: nnx.Module, arrays: Mapping[str, jax.Array]) -> nnx.Module:
    """Return the network with arrays in the place of shapes.

    Args:
      abstract: the network, from `nnx.eval_shape`.
      arrays: by parameter path.
    """
    graph, state = nnx.split(abstract)
    filled = {
        path: param.replace(arrays[name_of(path)]) for path, param in nnx.to_flat_state(state)
    }
    return nnx.merge(graph, nnx.from_flat_state(filled))


def placements(
    network: nnx.Module, mesh: Mesh, *, rules: Mapping[str, str] = mesh_lib.RULES
) -> dict[str, jax.ShapeDtypeStruct]:
    """Return path -> shape, dtype, and the sharding that a parameter has on a mesh by rules."""
    return {
        name_of(path): jax.ShapeDtypeStruct(
            param.shape, param.dtype, sharding=_sharding(param, mesh, rules)
        )
        for path, param in nnx.to_flat_state(nnx.state(network))
    }


def bytes_per_device(
    network: nnx.Module,
    devices: Mapping[str, int],
    rules: Mapping[str, str] = mesh_lib.RULES,
) -> int:
    """Return the bytes of the parameters on one device of a mesh, which need not exist.

    Args:
      network: the network, from `nnx.eval_shape`.
      devices: along each axis of the mesh.
      rules: logical axis -> mesh axis.
    """
    total = 0
    for _, param in nnx.to_flat_state(nnx.state(network)):
        parts = mesh_lib.parts(param.shape, _logical(param), devices, rules)
        total += math.prod(param.shape) * param.dtype.itemsize // math.prod(parts)
    return total


def head_parts(network: nnx.Module, devices: Mapping[str, int]) -> int:
    """Return into how many parts the heads of attention are divided on a mesh of this shape."""
    axes = [x for _, param in nnx.to_flat_state(nnx.state(network)) for x in _logical(param)]
    heads = [x for x in axes if isinstance(x, mesh_lib.Units) and x.name == "heads"]
    return min(x.parts(devices["model"]) for x in heads)


def initialize(
    make: Callable[..., nnx.Module], config, *, dtype, seed: int, mesh: Mesh
) -> nnx.Module:
    """Draw a network's weights from a seed, each on the devices that hold it.

    Args:
      make: the network's class, or a function that makes one.
      config: its configuration.
      dtype: of the parameters.
      seed: of the draw.
      mesh: devices.
    """
    build = lambda: nnx.split(make(config, dtype=dtype, rngs=nnx.Rngs(seed)))
    graph, state = nnx.split(abstract(make, config, dtype=dtype))
    shardings = jax.tree.map(
        lambda param: param.replace(_sharding(param, mesh)),
        state,
        is_leaf=lambda x: isinstance(x, nnx.Variable),
    )
    return nnx.merge(graph, jax.jit(lambda: build()[1], out_shardings=shardings)())


def abstract(make, config, *, dtype) -> nnx.Module:
    """Return the network with shapes in the place of arrays."""
    return nnx.eval_shape(lambda: make(config, dtype=dtype, rngs=nnx.Rngs(0)))


def parameters(network: nnx.Module) -> dict[str, jax.ShapeDtypeStruct]:
    """Return path -> shape and dtype."""
    return {
        name_of(path): jax.ShapeDtypeStruct(param.shape, param.dtype)
        for path, param in nnx.to_flat_state(nnx.state(network))
    }


def count(network: nnx.Module) -> int:
    """Return the number of parameters."""
    return sum(int(np.prod(param.shape)) for param in parameters(network).values())


def name_of(path: tuple) -> str:
    """Return the path of a parameter in one word, as tables of parameters have it."""
    return "/".join(map(str, path))


def _logical(param: nnx.Variable) -> tuple[mesh_lib.Logical, ...]:
    logical = param.get_metadata("logical")
    # Scanned blocks have a layer axis in front of the axes that the module named.
    return (None,) * (len(param.get_value().shape) - len(logical)) + tuple(logical)


def _sharding(
    param: nnx.Variable, mesh: Mesh, rules: Mapping[str, str] = mesh_lib.RULES
) -> jax.sharding.NamedSharding:
    return mesh_lib.sharding(mesh, _logical(param), param.get_value().shape, rules)
