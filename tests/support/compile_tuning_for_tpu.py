"""Compile the training step of a named model for TPUs that are not here; print its memory as JSON.

python tests/support/compile_tuning_for_tpu.py MODEL DATA MODEL_AXIS ROWS LENGTH MICRO_BATCHES RANK

ROWS are those of a micro-batch; with a RANK of 0 all parameters are trained. libtpu compiles for a
topology that is only described (see `compile_for_tpu.py`); a model of 7B takes some minutes.
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
import optax
from flax import nnx
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxalign.core import mesh as mesh_lib
from jaxalign.models import lora, weights, zoo
from jaxalign.models.families import base
from jaxalign.pricing import training
from jaxalign.pricing.work import Layout
from jaxalign.training import step
from jaxalign.training.batches import Batch
from jaxalign.training.optimizer import Recipe

DTYPE, KEPT = "bfloat16", "inputs"


def placed(state, where):
    """Give shapes of parameters the shardings that they have in training."""
    flat = nnx.to_flat_state(state)
    return nnx.from_flat_state({p: x.replace(where[weights.name_of(p)]) for p, x in flat})


def begun(trained, recipe, everywhere):
    """Return the state before the first step, as shapes."""
    transformation = recipe.transformation()
    averages = jax.eval_shape(transformation.init, trained)
    like = lambda x, param: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=param.sharding)
    alone = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere)
    averages = optax.tree.map_params(
        transformation, like, averages, trained, transform_non_params=alone
    )
    return step.State(trained, averages, alone(jax.ShapeDtypeStruct((), jnp.int32)))


def main(name, data, model, rows, length, micro_batches, rank):
    found = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x4")
    devices = np.array(found.devices).reshape(data, model)
    mesh = Mesh(devices, mesh_lib.AXES, axis_types=(AxisType.Auto,) * 2)
    design, config = zoo.describe(name)
    how = training.How(rank, KEPT, DTYPE, micro_batches)
    planned = training.device_bytes(
        config, zoo.abstract(design, config), how, (rows, length), Layout(data, model, False)
    )
    network = zoo.abstract(design, config, DTYPE if rank else "float32")
    if rank:
        lora.add(network, rank=rank, alpha=2.0 * rank, seed=0)
    base.keep_for_gradients(network, KEPT)
    where = weights.placements(network, mesh, rules=mesh_lib.TRAINING_RULES)
    graph, trained, frozen = nnx.split(network, lora.Adapter if rank else nnx.Param, ...)
    recipe = Recipe(num_steps=100)
    state = begun(placed(trained, where), recipe, NamedSharding(mesh, PartitionSpec()))

    def struct(dtype):
        shape = (micro_batches, rows, length)
        divided = mesh_lib.sharding(mesh, (None, "batch", None), shape)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=divided)

    batch = Batch(*(struct(x) for x in (jnp.int32, bool, jnp.int32, jnp.float32)))
    run = step.make(state, recipe, step.Losses(graph, compute_dtype=DTYPE))
    memory = run.lower(state, placed(frozen, where), batch).compile().memory_analysis()
    sizes = {"compiled": memory.peak_memory_in_bytes, "planned": planned}
    sys.stdout.write(json.dumps(sizes) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
