"""The training step: loss of the targets, gradients over micro-batches, and an update."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from jaxalign.core import mesh as mesh_lib
from jaxalign.models import log_probs, lora, seq2seq, weights
from jaxalign.models.families import base
from jaxalign.training.batches import Batch
from jaxalign.training.optimizer import Recipe


class State(NamedTuple):
    """What a step changes.

    Attributes:
      trained: the parameters that are trained, an `nnx.State` in float32.
      optimizer: of optax.
      step: steps that were taken.
    """

    trained: Any
    optimizer: Any
    step: Array


class Metrics(NamedTuple):
    """What is known of a step. Scalars.

    Attributes:
      loss: mean of -log p of its targets, in nats, before the update; see `batches.Shape`.
      gradient_norm: of all gradients together, before they are clipped.
      learning_rate: of the step.
    """

    loss: Array
    gradient_norm: Array
    learning_rate: Array


class Parts(NamedTuple):
    """A network without what is trained of it.

    Attributes:
      graph: what `nnx.merge` makes a network of, together with parameters.
      frozen: an `nnx.State` of the parameters that are not trained.
    """

    graph: Any
    frozen: Any

    def network(self, trained: Any) -> nnx.Module:
        """Return the network with other values of what is trained."""
        return nnx.merge(self.graph, trained, self.frozen)


def divide(network: nnx.Module, mesh: Mesh) -> tuple[Parts, Any]:
    """Return what is trained of a network, laid out over all devices, and the rest.

    Adapters are trained if there are any, else all parameters.

    What is trained is kept in float32, whatever the network computes with, and each parameter's
    width is divided along the data axis of the mesh in addition to the model axis (fully sharded
    data parallelism), so that parameters, gradients and the optimiser's averages are held once.

    Args:
      network: from `zoo.Model.load`, with adapters or without (`models.lora`); not to be used
        again, since its arrays may be those that the first step uses up.
      mesh: devices.
    """
    of_training = lora.Adapter if lora.is_adapted(network) else nnx.Param
    graph, trained, frozen = nnx.split(network, of_training, ...)
    placed = weights.placements(network, mesh, rules=mesh_lib.TRAINING_RULES)

    def put(path, param):
        where = placed[weights.name_of(path)].sharding
        return param.replace(jax.device_put(param.get_value().astype(jnp.float32), where))

    flat = {path: put(path, param) for path, param in nnx.to_flat_state(trained)}
    return Parts(graph, frozen), nnx.from_flat_state(flat)


def begin(trained: Any, recipe: Recipe, mesh: Mesh) -> State:
    """Return the state before the first step.

    Args:
      trained: from `divide`.
      recipe: of the optimiser.
      mesh: devices.
    """
    everywhere = NamedSharding(mesh, PartitionSpec())
    # Averages begin as zeros where their parameters lie; counts lie everywhere.
    spread = lambda x: jax.device_put(x, everywhere) if x.ndim == 0 else x
    state = recipe.transformation().init(trained)
    return State(trained, jax.tree.map(spread, state), spread(jnp.zeros((), jnp.int32)))


class Losses(NamedTuple):
    """How the loss of a batch is computed.

    Attributes:
      graph: of `Parts`.
      compute_dtype: of activations, and of what is trained while it is used.
      logit_bytes: of logits that exist at once; see `log_probs.predict`.
      vectors: the sharding of the vectors of a micro-batch, [b T D]; None: as the compiler chooses.
    """

    graph: Any
    compute_dtype: str = "float32"
    logit_bytes: int = log_probs.LOGIT_BYTES
    vectors: NamedSharding | None = None

    def of(self, trained: Any, frozen: Any, batch: Batch) -> Float[Array, ""]:
        """Return the weighted loss of one micro-batch, [b T]."""
        dtype = jnp.dtype(self.compute_dtype)
        network = nnx.merge(self.graph, jax.tree.map(lambda x: x.astype(dtype), trained), frozen)
        network.words.placed = self.vectors
        final = _final(network, batch)
        if self.vectors is not None:
            final = jax.lax.with_sharding_constraint(final, self.vectors)
        found = log_probs.predict(
            network, base.Output({}, final=final), batch.targets, logit_bytes=self.logit_bytes
        )
        return -(batch.weights * found.log_probs).sum()

    def with_gradients(
        self, trained: Any, frozen: Any, batch: Batch
    ) -> tuple[Float[Array, ""], Any]:
        """Return loss and gradients of a batch, one micro-batch after the other.

        They are summed in float32, which makes those of the whole batch, as the weights of targets
        sum to 1 over all.
        """

        def add(so_far, micro):
            found = jax.value_and_grad(self.of)(trained, frozen, micro)
            return jax.tree.map(jnp.add, so_far, found), None

        nothing = jnp.zeros(()), jax.tree.map(jnp.zeros_like, trained)
        return jax.lax.scan(add, nothing, batch)[0]


def _final(network: nnx.Module, batch: Batch) -> Float[Array, "b T D"]:
    """Return what the network predicts targets from."""
    if batch.read is None:
        options = {} if batch.positions is None else {"positions": batch.positions}
        return network(batch.tokens, batch.mask, taps=(), **options).final
    read = seq2seq.Read(batch.read, batch.read_mask)
    return seq2seq.over_answers(network, read, batch.tokens, batch.mask)


def make(state: State, recipe: Recipe, losses: Losses):
    """Compile a step: state, frozen parameters and batch -> state, metrics.

    The state that a step is given is used up.

    Args:
      state: from `begin`: arrays stay where its arrays lie.
      recipe: as of `begin`.
      losses: how the loss is computed.
    """
    shardings, tree = jax.tree.flatten(jax.tree.map(lambda x: x.sharding, state))
    # Widths of the table are divided along the rows' axis too: unless it is said that rows are
    # divided here, the compiler divides the widths of all activations, and each device computes
    # all rows.
    rows = NamedSharding(state.step.sharding.mesh, PartitionSpec("data", None, None))
    return _compiled(recipe, losses._replace(vectors=rows), tuple(shardings), tree)


@functools.lru_cache(maxsize=4)  # of trainings that differ in their rows alone
def _compiled(recipe: Recipe, losses: Losses, shardings: tuple[Any, ...], tree: Any):
    optimizer, schedule = recipe.transformation(), recipe.schedule()
    placed = jax.tree.unflatten(tree, shardings)

    def step(state: State, frozen: Any, batch: Batch) -> tuple[State, Metrics]:
        loss, gradients = losses.with_gradients(state.trained, frozen, batch)
        gradients = jax.lax.with_sharding_constraint(gradients, placed.trained)
        updates, moments = optimizer.update(gradients, state.optimizer, state.trained)
        trained = optax.apply_updates(state.trained, updates)
        metrics = Metrics(loss, optax.tree.norm(gradients), jnp.asarray(schedule(state.step)))
        return State(trained, moments, state.step + 1), metrics

    # Products of float32 are exact; those of bfloat16 are not slower by it.
    exact = jax.default_matmul_precision("highest")(step)
    return jax.jit(exact, donate_argnums=0, out_shardings=(placed, None))
