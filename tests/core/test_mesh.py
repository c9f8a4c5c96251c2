import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxalign.core import mesh as mesh_lib


@pytest.fixture
def square():
    """Two devices along data, two along model."""
    return mesh_lib.make_mesh(2, 2)


@pytest.mark.parametrize(
    "data, model, shape", [(-1, 1, (4, 1)), (-1, 2, (2, 2)), (-1, 4, (1, 4)), (1, 4, (1, 4))]
)
def test_a_mesh_uses_every_device_once(data, model, shape):
    mesh = mesh_lib.make_mesh(data, model)
    assert mesh.axis_names == ("data", "model")
    assert mesh.devices.shape == shape
    assert set(mesh.devices.flat) == set(jax.devices())


@pytest.mark.parametrize(
    "data, model, message",
    [
        (0, 1, r"mesh must be \(data >= 1 or -1, model >= 1\), got \(0, 1\)"),
        (-2, 1, r"got \(-2, 1\)"),
        (1, 0, r"got \(1, 0\)"),
        (-1, -1, r"got \(-1, -1\)"),
        (3, 1, "mesh must use every device: 3 x 1 = 3, but 4 devices are visible"),
        (2, 1, "2 x 1 = 2, but 4"),
        (-1, 3, "1 x 3 = 3, but 4"),
        (-1, 8, "1 x 8 = 8, but 4"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(data, model, message):
    with pytest.raises(ValueError, match=message):
        mesh_lib.make_mesh(data, model)


@pytest.mark.parametrize(
    "logical, shape, spec",
    [
        (("batch", None), (8, 16), P("data", None)),
        (("vocab", "embed"), (50256, 768), P("model", None)),
        (("embed", "heads", "head"), (768, 12, 64), P(None, "model", None)),
        (("mlp",), (6,), P("model")),
        (("batch", "heads"), (4, 4), P("data", "model")),
        ((), (), P()),
    ],
)
def test_named_axes_are_sharded_by_the_rules(square, logical, shape, spec):
    assert mesh_lib.sharding(square, logical, shape).spec == spec


@pytest.mark.parametrize(
    "logical, shape",
    [(("vocab", None), (50257, 4)), (("kv_heads",), (1,)), (("batch",), (7,)), (("other",), (8,))],
)
def test_what_does_not_divide_or_has_no_rule_is_replicated(square, logical, shape):
    result = mesh_lib.sharding(square, logical, shape)
    assert result.spec == P(*(None for _ in shape))
    assert result.is_fully_replicated


def test_a_mesh_axis_is_used_once(square):
    first = mesh_lib.sharding(square, ("heads", "mlp"), (4, 4))
    assert first.spec == P("model", None)
    # The first that fits takes it.
    second = mesh_lib.sharding(square, ("heads", "mlp"), (3, 4))
    assert second.spec == P(None, "model")


def test_names_must_be_as_many_as_axes(square):
    with pytest.raises(ValueError, match=r"One name per axis is needed: \('batch',\)"):
        mesh_lib.sharding(square, ("batch",), (8, 16))


@pytest.mark.parametrize(
    "shape, shard", [((8, 6), (4, 3)), ((8, 7), (4, 7)), ((9, 6), (9, 3)), ((9, 7), (9, 7))]
)
def test_a_sharded_product_equals_the_local_one(square, rng, shape, shard):
    X = rng.normal(size=shape).astype(np.float32)
    placed = jax.device_put(X, mesh_lib.sharding(square, ("batch", "mlp"), shape))
    assert {piece.data.shape for piece in placed.addressable_shards} == {shard}
    np.testing.assert_allclose(
        jax.jit(lambda a: jnp.tanh(a) @ a.T)(placed), np.tanh(X) @ X.T, rtol=1e-5, atol=1e-5
    )
