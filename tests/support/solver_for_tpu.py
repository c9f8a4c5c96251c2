"""Compile the sweep over targets for eight TPUs that are not here, and print its memory as JSON.

python tests/support/solver_for_tpu.py SAMPLES FEATURES TARGETS SEARCH FORM

Training sets are factorised before, by programs of their own: of what they leave there are shapes
here. libtpu compiles for a topology that is only described; it needs to be found, and no TPU.
"""

import json
import os
import sys

os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxalign.core import folds as folds_lib
from jaxalign.core import mesh as mesh_lib
from jaxalign.core.solver import outline as outline_lib
from jaxalign.core.solver import problem, search, sweep, tiles
from jaxalign.core.solver.method import Execution, Method
from jaxalign.core.solver.ridge import Design
from jaxalign.core.solver.sets import Blocks, Rows, Sets
from jaxalign.pricing import solver
from jaxalign.pricing.work import Layout

ALPHAS = np.logspace(-1, 7, 17)
COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


def outlined(n, p, v, how, form, mesh):
    folds = folds_lib.contiguous_folds(np.zeros(n, int), 5, gap=0)
    execution = Execution(how, form, tile=outline_lib.TILE, mesh=mesh)
    known = {"num_samples": n, "num_features": p, "num_targets": v}
    return outline_lib.Outline(**known, folds=folds, method=Method(ALPHAS), execution=execution)


def main(n, p, v, how, form):
    layout = Layout(8, 1, False)
    described = outlined(n, p, v, how, form, layout.mesh)
    found = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
    types = (AxisType.Auto,) * len(mesh_lib.AXES)
    mesh = Mesh(np.array(found.devices).reshape(8, 1), mesh_lib.AXES, axis_types=types)

    def struct(*shape, dtype=jnp.float32, divided=False):
        spec = PartitionSpec(*(None,) * (len(shape) - 1), mesh_lib.AXES if divided else None)
        spec = spec if shape else PartitionSpec()
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    blocks = described.blocks if described.form == "sums" else ()
    of_blocks = None
    if blocks:
        of_blocks = tiles.Layout(
            tuple(struct(len(x), dtype=jnp.int32) for x in blocks),
            tuple(struct(len(x), p) for x in blocks),
            struct(len(blocks), p),
            struct(len(blocks)),
        )

    def sets(groups):
        one = solver._sets(described, groups)
        b, m, r = one.num, one.tests, one.directions(p)
        if blocks:
            shapes = (struct(b, r, p), struct(m, p, p))
            members = Blocks(
                struct(b, len(blocks)), struct(m, len(blocks)), struct(len(blocks))
            )
        else:
            shapes = (struct(b, r, one.R), struct(m, one.T, r))
            of = ((b, one.R), (m, one.T))
            members = Rows(
                *(struct(*x, dtype=y) for x in of for y in (jnp.int32, bool))
            )
        of_sets = (struct(b, dtype=jnp.int32), struct(b))
        design = Design(struct(b, r), *shapes, struct(m, r), *of_sets)
        return Sets(design, members, struct(m, dtype=jnp.int32), struct())

    inner_sets = sets(solver._inner(described))
    m = len(inner_sets.source.shape) and inner_sets.source.shape[0]
    inner = sweep.Inner(inner_sets, struct(m, dtype=jnp.int32), struct(m))
    outer = sets([[fold.outer] for fold in described.folds])
    k, width, a = len(described.folds), described.tile, len(ALPHAS)
    values, offset = struct(n, width, divided=True), struct(1, width, divided=True)
    grid = struct(a)

    def compiled(function, shared, *others, ranks, **static):
        divided = problem._divided(function, mesh, len(others), ranks, tuple(sorted(static.items())))
        import time; began = time.time()
        program = divided.lower(of_blocks, shared, values, offset, *others).compile()
        text = program.as_text()
        if os.environ.get("DUMP"):
            open(f"{os.environ['DUMP']}.{function.__name__}.txt", "w").write(text)
        print(function.__name__, time.time() - began, program.memory_analysis().peak_memory_in_bytes, program.memory_analysis(), flush=True)
        told = sum(text.count(f" {name}") for name in COLLECTIVES)
        memory = program.memory_analysis()
        return {"bytes": memory.peak_memory_in_bytes, "told": told,
           "temp": memory.temp_size_in_bytes, "args": memory.argument_size_in_bytes, "out": memory.output_size_in_bytes, "code": memory.generated_code_size_in_bytes}

    if described.is_adaptive:
        capacity = max(-(-width // 8 // problem.REFINED), 16)
        choose = compiled(
            sweep.choose, (inner, grid), ranks=(2, 2, 2, 2), capacity=capacity, num_folds=k
        )
    else:
        family = search.Family(struct(outline_lib.EXPECTED_FUNCTIONS), struct(a, outline_lib.EXPECTED_FUNCTIONS))
        choose = compiled(
            sweep.curves, (inner, grid, family), ranks=(3, 2), criterion="squared_error", num_folds=k
        )
    place, smallest = struct(k, width, dtype=jnp.int32, divided=True), struct(1, width, divided=True)
    score = compiled(sweep.score, (outer, grid), place, smallest, ranks=(2, 2, 2, 2))
    print(json.dumps({"choose": choose, "score": score, "planned": solver.nested(described, layout).device_bytes, "form": solver._sets(described, solver._inner(described)), "tile": width}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), *sys.argv[4:])
