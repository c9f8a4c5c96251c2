"""Programs of the sweep on the devices of a mesh, each of which has some targets."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import PartitionSpec

from jaxalign.core.solver import sweep, tiles


def _parts(mesh, axis, rank):
    """Return how an array is divided over devices, by which of its axes is that of targets."""
    names = (None,) * rank
    return PartitionSpec(*(mesh.axis_names if i == axis else x for i, x in enumerate(names)))


def _parts_of_targets(mesh, is_samples):
    kind, axes = tiles.axes(is_samples)
    return kind(*(PartitionSpec() if x is None else _parts(mesh, x, x + 1) for x in axes))


@functools.cache
def formed(mesh: Any, is_samples: bool) -> Callable[..., Any]:
    """Return what makes targets of values (`tiles.tile`), on the devices of a mesh.

    Args:
      mesh: devices; None: one.
      is_samples: whether these are `Samples`.
    """
    if mesh is None:
        return tiles.tile
    last = _parts(mesh, 1, 2)
    return jax.jit(
        jax.shard_map(
            tiles.tile,
            mesh=mesh,
            in_specs=(PartitionSpec(), last, last),
            out_specs=_parts_of_targets(mesh, is_samples),
            check_vma=False,
        )
    )


@functools.cache
def divided(
    function: Callable[..., Any],
    mesh: Any,
    sizes: tuple[bool, int],
    ranks: tuple[int, ...],
    static: tuple[tuple[str, Any], ...],
) -> Callable[..., Any]:
    """Return a function of `core/solver/sweep.py` that runs on the devices of a mesh.

    Args:
      function: of what is shared, targets, and others whose last axis is that of targets.
      mesh: devices; None: one.
      sizes: whether targets are `Samples`, and how many others there are.
      ranks: of the results, whose last axis is that of targets.
      static: further arguments, by their names.
    """
    run = functools.partial(function, **dict(static))
    if mesh is None:
        return run
    is_samples, num_others = sizes
    others = (_parts(mesh, 1, 2),) * num_others
    specs = (PartitionSpec(), _parts_of_targets(mesh, is_samples), *others)
    results: Any = tuple(_parts(mesh, rank - 1, rank) for rank in ranks)
    if function is sweep.choose:
        results = sweep.Choice(*results)
    return jax.jit(
        jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=results, check_vma=False)
    )
