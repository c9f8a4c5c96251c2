"""Training steps against torch and transformers, and the laws that they obey."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from networks import forward, parameters

from jaxalign.core import mesh as mesh_lib
from jaxalign.errors import InputError
from jaxalign.models import lora, readers, weights, zoo
from jaxalign.models.families import base
from jaxalign.training import batches, optimizer, packing, step
from jaxalign.training.encoding import Encoded

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
STEPS = 50
RATE = {"full": 1e-3, "lora": 5e-3, "t5": 1e-3}
NETWORK = {"full": "llama", "lora": "llama", "t5": "t5_v1_0"}
SHAPE = batches.Shape(micro_batches=4, max_length=14)


@pytest.fixture(scope="module")
def expected():
    with np.load(GOLDEN / "tuning.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def both():
    """Two devices along the batch, two along heads and MLP."""
    return mesh_lib.make_mesh(2, 2)


@functools.cache
def model(name):
    return zoo.find(str(GOLDEN / name), None)


def network_width(name):
    return model(name).config.width


def load(name, mesh, *, rank=0, kept="all"):
    network = model(name).load(mesh)
    if rank:
        lora.add(network, rank=rank, alpha=2.0 * rank, seed=0)
    base.keep_for_gradients(network, kept)
    return network


def causal(expected):
    """Rows of the golden batches."""
    found = []
    for tokens, mask, labels in zip(
        *(expected[x] for x in ("tokens", "mask", "labels")), strict=True
    ):
        rows = zip(tokens, mask, labels, strict=True)
        found.append([Encoded(t[m], (y != -100)[m], np.zeros(0, np.int32)) for t, m, y in rows])
    return found


def two_sided(expected):
    found = []
    for i in range(len(expected["read"])):
        arrays = zip(*(expected[x][i] for x in ("read", "read_mask", "t5_labels")), strict=True)
        found.append(
            [Encoded(y[y >= 0], np.ones((y >= 0).sum(), bool), t[m]) for t, m, y in arrays]
        )
    return found


def make(rows, mesh, shape=SHAPE):
    return batches.place(batches.make([[x] for x in rows], shape), mesh)


def gradients(network, mesh, batch, **options):
    parts, trained = step.divide(network, mesh)
    losses = step.Losses(parts.graph, **options)
    found = jax.jit(jax.default_matmul_precision("highest")(losses.with_gradients))
    loss, grads = found(trained, parts.frozen, batch)
    flat = {weights.name_of(p): np.asarray(x[...]) for p, x in nnx.to_flat_state(grads)}
    return float(loss), flat


def close(found, wanted, tolerance=2e-5):
    assert found.keys() == wanted.keys()
    for name, x in wanted.items():
        np.testing.assert_allclose(
            found[name], x, rtol=0, atol=tolerance * np.abs(x).max() + 1e-9, err_msg=name
        )


def stacked(name, suffixes, arrays):
    """Gather what torch has, layer by layer, under the path of a parameter here."""
    design = readers.family(model(name).design)
    short = {design.name(key): x for key, x in arrays.items()}
    found = {}
    for path, tensor in design.tensors(model(name).config).items():
        for suffix, theirs, ours in suffixes:
            stored = tensor.name.removesuffix("weight") + theirs
            names = [stored.format(layer=i) for i in range(9)] if "{" in stored else [stored]
            each = [short[x].T if tensor.transpose else short[x] for x in names if x in short]
            if each:
                target = path.removesuffix("kernel") + ours if suffix else path
                found[target] = np.stack(each) if "{" in stored else each[0]
    return found


def of(expected, prefix):
    return {k.removeprefix(prefix): x for k, x in expected.items() if k.startswith(prefix)}


PLAIN = [("", "weight", "")]
ADAPTERS = [("a", "a", "lora_a"), ("b", "b", "lora_b")]


def set_adapters(network, expected):
    arrays = {f"{k}.a": x for k, x in of(expected, "lora/a/").items()}
    arrays |= {f"{k}.b": x for k, x in of(expected, "lora/b/").items()}
    found = stacked("llama", ADAPTERS, arrays)
    adapters = nnx.state(network, lora.Adapter)
    flat = nnx.to_flat_state(adapters)
    assert {weights.name_of(path) for path, _ in flat} == found.keys()
    new = {path: x.replace(jnp.asarray(found[weights.name_of(path)])) for path, x in flat}
    nnx.update(network, nnx.from_flat_state(new))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["full", "lora", "t5"])
def test_steps_are_those_of_torch(expected, both, name):
    """On a mesh that divides batches, parameters and heads, and in four micro-batches."""
    network = load(NETWORK[name], both, rank=2 if name == "lora" else 0)
    if name == "lora":
        set_adapters(network, expected)
    shape = SHAPE
    if name == "t5":
        shape = SHAPE._replace(start=model("t5_v1_0").config.start_token)
    rows = two_sided(expected) if name == "t5" else causal(expected)
    given = [make(x, both, shape) for x in rows]
    _, grads = gradients(network, both, given[0])
    close(
        grads,
        stacked(
            NETWORK[name], ADAPTERS if name == "lora" else PLAIN, of(expected, f"{name}/gradients/")
        ),
    )
    recipe = optimizer.Recipe(num_steps=STEPS, learning_rate=RATE[name], warmup_ratio=0.05)
    parts, trained = step.divide(network, both)
    state = step.begin(trained, recipe, both)
    run = step.make(state, recipe, step.Losses(parts.graph))
    run = run.lower(state, parts.frozen, given[0]).compile()
    # Devices compute their rows of a micro-batch, with all of a map, and not a part of all rows.
    b, T, D = *given[0].tokens.shape[1:], network_width(NETWORK[name])
    assert f"f32[{b // 2},{T},{D}]" in run.as_text() and f"f32[{b},{T},{D}]" not in run.as_text()
    places = jax.tree.map(lambda x: x.sharding, state)
    found = []
    for i in range(len(expected[f"{name}/losses"])):
        state, metrics = run(state, parts.frozen, given[i % 3])
        found.append(jax.device_get(metrics))
    losses, norms, rates = np.array(found).T
    np.testing.assert_allclose(losses, expected[f"{name}/losses"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(norms, expected[f"{name}/norms"], rtol=1e-4, atol=0)
    np.testing.assert_allclose(rates, expected[f"{name}/rates"], rtol=0, atol=1e-9)
    assert losses[-1] < losses[(len(losses) - 1) % 3]  # of the same rows
    # What was laid out over the devices stays there.
    same = jax.tree.map(lambda x, y: x.sharding.is_equivalent_to(y, x.ndim), state, places)
    assert all(jax.tree.leaves(same))
    assert {x.dtype for x in jax.tree.leaves(state.trained)} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_batches_that_are_divided_otherwise(expected, mesh):
    """One batch, four micro-batches, packed rows, blocks computed again: the same gradients."""
    rows = [*causal(expected)[0], *causal(expected)[1]]
    network = load("llama", mesh)
    wide = batches.Shape(micro_batches=1, max_length=28)
    loss, wanted = gradients(network, mesh, make(rows, mesh, wide))
    close(gradients(network, mesh, make(rows, mesh, wide._replace(micro_batches=4)))[1], wanted)
    plan = packing.best_fit([len(x.tokens) for x in rows], 28)
    assert max(map(len, plan)) > 1
    packed = [[rows[i] for i in row] for row in plan]
    packed += [[Encoded(rows[0].tokens, rows[0].learned & False, rows[0].read)]] * (-len(plan) % 4)
    batch = batches.place(batches.make(packed, wide._replace(packed=True)), mesh)
    found, grads = gradients(network, mesh, batch)
    np.testing.assert_allclose(found, loss, atol=1e-6)
    close(grads, wanted)
    for kept in ("inputs", "products"):
        again = load("llama", mesh, kept=kept)
        close(gradients(again, mesh, make(rows, mesh, wide), logit_bytes=1)[1], wanted)


@pytest.mark.slow
def test_means_of_groups_are_those_of_the_trainer_of_2023(expected, mesh):
    parts, trained = step.divide(load("llama", mesh), mesh)
    losses = step.Losses(parts.graph)
    shape = batches.Shape(micro_batches=1, max_length=14, loss_average="rows", group=2)
    run = jax.jit(jax.default_matmul_precision("highest")(losses.of))
    found = [
        float(run(trained, parts.frozen, jax.tree.map(lambda x: x[0], make(rows, mesh, shape))))
        for rows in causal(expected)
    ]
    np.testing.assert_allclose(found, expected["rows/losses"], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_frozen_arm_differs_by_exactly_nothing(expected, mesh):
    recipe = optimizer.Recipe(num_steps=3, learning_rate=0.1).of_arm(trains=False)
    parts, trained = step.divide(load("llama", mesh), mesh)
    before = jax.tree.map(np.array, trained)  # a copy: the first step uses up what it is given
    state = step.begin(trained, recipe, mesh)
    losses = step.Losses(parts.graph, compute_dtype="bfloat16")
    run = step.make(state, recipe, losses)
    shape = SHAPE._replace(micro_batches=2)
    for rows in causal(expected):
        state, metrics = run(state, parts.frozen, make(rows, mesh, shape))
    assert int(state.step) == 3 and metrics.gradient_norm > 0 and metrics.learning_rate == 0
    # bfloat16 is for the loss alone; masters stay as they are, bit for bit.
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.trained), before)
    np.testing.assert_allclose(metrics.loss, expected["full/losses"][2], rtol=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "t5_v1_0"])
def test_adapters_begin_as_nothing_and_can_be_merged(name, mesh, rng):
    network = load(name, mesh)
    tokens = jnp.asarray(rng.integers(4, 100, (4, 7)))
    mask = jnp.ones((4, 7), bool)
    logits = lambda: np.asarray(forward(network, tokens, mask).logits)
    plain, held = logits(), parameters(network)
    lora.add(network, rank=3, alpha=6.0, seed=1)
    num = sum(x.size for x in jax.tree.leaves(nnx.state(network, lora.Adapter)))
    kernels = [x for path, x in held.items() if path.endswith("kernel") and path != "head/kernel"]
    assert num == sum(3 * len(x) * sum(x.shape[1:]) for x in kernels)
    np.testing.assert_array_equal(logits(), plain)
    drawn = jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), jnp.float32),
        nnx.state(network, lora.Adapter),
    )
    nnx.update(network, drawn)
    adapted = logits()
    assert np.abs(adapted - plain).max() > 0.1
    lora.merge(network)
    assert not lora.is_adapted(network) and parameters(network).keys() == held.keys()
    np.testing.assert_allclose(logits(), adapted, atol=2e-5 * np.abs(adapted).max())


def test_parameters_are_divided_over_all_devices(both):
    _, trained = step.divide(load("llama", both), both)
    flat = {weights.name_of(path): x[...] for path, x in nnx.to_flat_state(trained)}
    kernel = flat["blocks/query/kernel"]
    assert kernel.shape == (3, 32, 32)
    assert kernel.sharding.shard_shape(kernel.shape) == (3, 16, 16)
    state = step.begin(trained, optimizer.Recipe(num_steps=2), both)
    sizes = {x.sharding.shard_shape(x.shape) for x in jax.tree.leaves(state) if x.ndim == 3}
    assert (3, 16, 16) in sizes and (3, 32, 32) not in sizes


def test_the_recipes_learning_rate():
    recipe = optimizer.Recipe(num_steps=1218)
    assert recipe.warmup == 37
    rate = recipe.schedule()
    np.testing.assert_allclose(
        [rate(s) for s in (0, 1, 37, 1218)], [0, 2e-5 / 37, 2e-5, 0], rtol=1e-5, atol=1e-12
    )
    flat = optimizer.Recipe(num_steps=4, warmup_ratio=0.0).schedule()
    np.testing.assert_allclose([flat(s) for s in (0, 2, 4)], [2e-5, 1e-5, 0], atol=1e-10)
    rising = optimizer.Recipe(num_steps=4, warmup_ratio=1.0).schedule()
    np.testing.assert_allclose([rising(s) for s in (0, 2)], [0, 1e-5], atol=1e-10)


@pytest.mark.parametrize(
    "change,message",
    [
        ({"num_steps": 0}, "must have at least one step, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must not be negative"),
        ({"learning_rate": float("nan")}, "learning_rate must not be negative"),
        ({"warmup_ratio": 1.5}, "warmup_ratio must be between 0 and 1"),
        ({"beta2": 1.0}, "beta2 must be from 0 to below 1"),
        ({"epsilon": 0.0}, "epsilon must be positive"),
        ({"clip_norm": -1.0}, "clip_norm must not be negative"),
    ],
)
def test_recipes_that_cannot_be(change, message):
    with pytest.raises(InputError, match=message):
        optimizer.Recipe(**{"num_steps": 3} | change)


def test_a_learning_rate_of_nothing_is_the_frozen_arms():
    recipe = optimizer.Recipe(num_steps=3, learning_rate=0.0)
    with pytest.raises(InputError, match="learning_rate must be positive, got 0: the arm frozen"):
        recipe.of_arm(trains=True)
    assert recipe.of_arm(trains=False).learning_rate == 0


@pytest.mark.parametrize(
    "change,batch,message",
    [
        ({}, 8, "must divide into micro-batches, .* 8 rows, 4 micro-batches, 4 devices"),
        ({"micro_batches": 0}, 8, "must divide into micro-batches"),
        ({"loss_average": "steps"}, 16, "loss_average must be one of tokens, rows"),
        ({"loss_average": "rows", "group": 3}, 16, "16 rows of a step must divide into groups"),
        ({"packed": True, "start": 0}, 16, "rows of a T5 must not be packed"),
    ],
)
def test_shapes_that_do_not_fit(mesh, change, batch, message):
    with pytest.raises(InputError, match=message):
        SHAPE._replace(**change).check(batch, mesh)
    SHAPE.check(16, mesh)


def test_arrays_of_a_step():
    row = lambda *tokens, first=1: Encoded(
        np.array(tokens, np.int32), np.arange(len(tokens)) >= first, np.zeros(0, np.int32)
    )
    rows = [[row(5, 6, 7, first=2), row(8, 9)], [row(3, 4)]]
    shape = batches.Shape(micro_batches=2, max_length=6, packed=True)
    found = batches.make(rows, shape)
    assert found.tokens[:, 0].tolist() == [[5, 6, 7, 8, 9, 0], [3, 4, 0, 0, 0, 0]]
    assert found.positions[:, 0].tolist() == [[0, 1, 2, 0, 1, 0], [0, 1, 0, 0, 0, 0]]
    assert found.targets[0, 0, [1, 3]].tolist() == [7, 9]
    np.testing.assert_allclose(
        found.weights[:, 0], np.array([[0, 1, 0, 1, 0, 0], [1, 0, 0, 0, 0, 0]]) / 3, rtol=1e-6
    )
    by_rows = batches.make(rows, shape._replace(loss_average="rows"))
    assert by_rows.weights[:, 0, :4].tolist() == [[0, 0.25, 0, 0.25], [0.5, 0, 0, 0]]
    with pytest.raises(InputError, match="a step must have something to learn"):
        batches.make([[row(5, first=2)], [row(3)]], shape)


def test_what_is_kept_for_gradients_and_ranks(mesh):
    network = load("llama", mesh)
    with pytest.raises(ValueError, match="kept must be one of all, inputs, products"):
        base.keep_for_gradients(network, "some")
    with pytest.raises(InputError, match="rank of adapters must be from 1 to 16, that of blocks/"):
        lora.add(network, rank=17, alpha=1.0, seed=0)
