"""Compile the sweep over targets for eight TPUs that are not here, and print its memory as JSON.

python tests/support/solver_for_tpu.py SAMPLES FEATURES TARGETS

Training sets are factorised before, by programs of their own: of what they leave there are shapes
here. libtpu compiles for a topology that is only described; it needs to be found, and no TPU.
"""

import json
import os
import re
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
from jaxalign.core.solver import division, problem, sweep
from jaxalign.core.solver import outline as outline_lib
from jaxalign.core.solver.method import Execution, Method
from jaxalign.core.solver.ridge import Design
from jaxalign.core.solver.samples import Samples
from jaxalign.core.solver.sets import Rows, Sets, Squares
from jaxalign.pricing import solver
from jaxalign.pricing.work import Layout

ALPHAS = np.logspace(-1, 7, 17)
DEVICES, TOPOLOGY = 8, "v5e:2x4"
COLLECTIVES = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


def outlined(n, p, v, layout):
    return outline_lib.Outline(
        num_samples=n,
        num_features=p,
        num_targets=v,
        folds=folds_lib.contiguous_folds(np.zeros(n, int), 5, gap=0),
        method=Method(ALPHAS),
        execution=Execution("adaptive", "primal", tile=outline_lib.TILE, mesh=layout.mesh),
    )


class Shapes:
    """Shapes of arrays on a mesh, in the place of arrays."""

    def __init__(self, mesh):
        self.mesh = mesh

    def whole(self, *shape, dtype=jnp.float32):
        """Return an array that all devices hold."""
        sharding = NamedSharding(self.mesh, PartitionSpec())
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def divided(self, *shape, dtype=jnp.float32):
        """Return an array of which each device holds some targets."""
        sharding = NamedSharding(self.mesh, PartitionSpec(None, mesh_lib.AXES))
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def sets(self, sizes, p):
        """Return training sets that were factorised, sample by sample."""
        b, m, R, T = sizes.num, sizes.tests, sizes.R, sizes.T
        r, of_int = sizes.directions(p), {"dtype": jnp.int32}
        whole = self.whole
        of_sets = (whole(m, r), whole(b, **of_int), whole(b))
        design = Design(whole(b, r), whole(b, r, R), whole(m, T, r), *of_sets)
        train = (whole(b, R, **of_int), whole(b, R, dtype=bool))
        tests = (whole(m, T, **of_int), whole(m, T, dtype=bool))
        return Sets(design, Rows(*train, *tests), whole(m, **of_int), whole())


def main(n, p, v):
    layout = Layout(DEVICES, 1, is_cpu=False, is_tpu=True)
    outline = outlined(n, p, v, layout)
    found = topologies.get_topology_desc(platform="tpu", topology_name=TOPOLOGY)
    types = (AxisType.Auto,) * len(mesh_lib.AXES)
    mesh = Mesh(np.array(found.devices).reshape(DEVICES, 1), mesh_lib.AXES, axis_types=types)
    shapes, k, width = Shapes(mesh), len(outline.folds), outline.tile
    outer = [[fold.outer] for fold in outline.folds]
    calls = [solver._sets(outline, x) for x in (solver._inner(outline), outer)]
    planned = solver._program_bytes(outline, calls, layout)
    planned = [4.0 * solver._design(x, p) + y for x, y in zip(calls, planned, strict=True)]
    if outline.at_once:
        planned[0] += 4.0 * calls[0].tests * calls[0].directions(p) ** 2
    grid = shapes.whole(len(ALPHAS))
    tile = Samples(shapes.divided(n, width), shapes.divided(1, width))
    of_tests = (shapes.whole(calls[0].tests, dtype=jnp.int32), shapes.whole(calls[0].tests))
    inner = sweep.Inner(shapes.sets(calls[0], p), *of_tests)
    if outline.at_once:
        m, r = calls[0].tests, calls[0].directions(p)
        few = (shapes.whole(calls[0].num, 2 * r, dtype=jnp.int32),) * 2
        held = Squares(shapes.whole(m, r, r), *few, shapes.whole(m, 2 * r))
        inner = inner._replace(sets=inner.sets._replace(squares=held))
        static = (("criterion", "squared_error"), ("num_folds", k))
        search = (sweep.curves, static, ((inner, grid, None), tile), (3, 2))
    else:
        static = (("capacity", width // DEVICES // problem.REFINED), ("num_folds", k))
        search = (sweep.choose, static, ((inner, grid), tile), (2,) * 4)
    place = shapes.divided(k, width, dtype=jnp.int32)
    programs = {
        "search": search,
        "score": (
            sweep.score,
            (),
            ((shapes.sets(calls[1], p), grid), tile, place, shapes.divided(1, width)),
            (2,) * 4,
        ),
    }
    results = {}
    for (name, (function, static, given, ranks)), bytes_of in zip(
        programs.items(), planned, strict=True
    ):
        divided = division.divided(function, mesh, (True, len(given) - 2), ranks, static)
        compiled = divided.lower(*given).compile()
        results[name] = {
            "compiled": compiled.memory_analysis().peak_memory_in_bytes,
            "planned": bytes_of,
            "told": len(re.findall(rf"\b({COLLECTIVES})(-start)?\(", compiled.as_text())),
        }
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
