"""Compile the pass of a named model for TPUs that are not here, and print its memory as JSON.

python tests/support/compile_for_tpu.py MODEL DATA MODEL_AXIS ROWS LENGTH PARTS

libtpu compiles for a topology that is only described; it needs to be found, and no TPU.
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
from jax.sharding import AxisType, Mesh

from jaxalign.core import mesh as mesh_lib
from jaxalign.data.text.batches import Reads, Shape
from jaxalign.models import weights, zoo
from jaxalign.pricing import networks
from jaxalign.pricing.work import Layout
from jaxalign.stages.extract import forward


def main(name, data, model, rows, length, parts):
    shape, layout = (
        Shape(rows, length, parts, length),
        Layout(data, model, is_cpu=False, is_tpu=True),
    )
    found = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
    devices = np.array(found.devices).reshape(data, model)
    mesh = Mesh(devices, mesh_lib.AXES, axis_types=(AxisType.Auto,) * 2)
    design, config = zoo.describe(name)
    network = zoo.abstract(design, config, "bfloat16")
    placed = weights.fill(network, weights.placements(network, mesh))

    def struct(columns, dtype):
        divided = mesh_lib.sharding(mesh, ("batch", None), (rows, columns))
        return jax.ShapeDtypeStruct((rows, columns), dtype, sharding=divided)

    of = (jnp.int32, jnp.float32, jnp.int32)
    reads = Reads(*(struct(length, dtype) for dtype in of))
    arrays = (struct(length, jnp.int32), struct(length, bool), reads, None)
    compiled = forward._forward.lower(
        placed, arrays, num_sums=(parts, 0), tap="residual", mesh=mesh
    ).compile()
    peak = compiled.memory_analysis().peak_memory_in_bytes
    planned = networks.pass_bytes(config, network, shape, layout)
    sys.stdout.write(json.dumps({"compiled": peak, "planned": planned}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
