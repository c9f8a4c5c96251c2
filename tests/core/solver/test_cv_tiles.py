"""Tiles, devices and targets on disk change nothing."""

import numpy as np
import pytest
from solver_problems import (
    ALPHAS,
    DISTINCT_ALPHAS,
    MANY,
    PER_TARGET,
    TILE,
    are_decided,
    assert_same,
    costs_of_folds,
    equal_folds,
    gapped_folds,
    make_problem,
    many_targets,
    nested,
    refit,
    select,
    stored,
)

from jaxalign.core import mesh as mesh_lib


@pytest.mark.slow
@pytest.mark.parametrize("form, search", [("primal", "grid"), ("sums", "adaptive")])
def test_tiles_do_not_interact(form, search):
    X, Y, _ = many_targets("plain", 10)
    options = {"form": form, "search": search}
    whole = nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, **options)
    parts = nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, tile=TILE, **options)
    assert_same(parts, whole)


@pytest.mark.parametrize(
    "shape, form, search, scheme, criterion, tile",
    [
        ((4, 1), "primal", "grid", "folds", "squared_error", None),
        ((2, 2), "sums", "adaptive", "folds", "squared_error", None),
        pytest.param(
            (4, 1), "primal", "grid", "loo", "squared_error", None, marks=pytest.mark.slow
        ),
        pytest.param(
            (2, 2), "dual", "adaptive", "folds", "correlation", 32, marks=pytest.mark.slow
        ),
        pytest.param(
            (4, 1), "sums", "adaptive", "folds", "correlation", 32, marks=pytest.mark.slow
        ),
        pytest.param((2, 2), "dual", "grid", "gcv", "squared_error", 32, marks=pytest.mark.slow),
    ],
)
def test_sharded_equals_local(shape, form, search, scheme, criterion, tile):
    X, Y, _ = many_targets("plain", 10)
    # The devices do not divide the targets.
    Y = Y[:, :397]
    options = {"form": form, "search": search, "scheme": scheme, "criterion": criterion}
    mesh = mesh_lib.make_mesh(*shape)
    local = nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, **options)
    sharded = nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, mesh=mesh, tile=tile, **options)
    # Tiles of other widths are summed in another order, which may turn a tie.
    turned = sharded.alphas != local.alphas
    if scheme == "folds":
        costs, _ = costs_of_folds(X, Y, gapped_folds(), DISTINCT_ALPHAS, True)[criterion]
        assert not (turned & are_decided(costs, criterion))[:, 1:].any()
    assert turned.sum() <= (1e-3 * turned.size if scheme == "folds" else 0)
    sharded, local = (
        x._replace(**{name: getattr(x, name)[:, ~turned.any(axis=0)] for name in PER_TARGET})
        for x in (sharded, local)
    )
    assert_same(sharded, local)
    np.testing.assert_array_equal(sharded.num_computed, local.num_computed)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(4, 1), (2, 2)])
def test_sharded_pools_equal_local_ones(shape):
    X, Y, _ = many_targets("plain", 10)
    Y = Y / np.maximum(Y.std(axis=0), 1e-9)
    options = {"pool": np.arange(MANY) % 5}
    local = nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, **options)
    mesh = mesh_lib.make_mesh(*shape)
    assert_same(nested(X, Y, gapped_folds(), DISTINCT_ALPHAS, mesh=mesh, **options), local)


@pytest.mark.slow
@pytest.mark.parametrize("dtype, tile", [(np.float32, None), (np.float64, TILE)])
def test_targets_may_be_on_disk(dtype, tile):
    X, Y, _ = many_targets("plain", 10)
    Y = (Y / np.maximum(Y.std(axis=0), 1e-9)).astype(dtype)
    for options in ({"search": "adaptive"}, {"pool": np.arange(MANY) % 3}):
        expected = nested(X, Y, gapped_folds(), ALPHAS, tile=tile, **options)
        found = nested(X, stored(Y), gapped_folds(), ALPHAS, tile=tile, **options)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_fits_read_targets_from_disk(rng):
    X, Y = make_problem(rng)
    expected = refit(X, Y, np.full(10, 3.0))
    for a, b in zip(refit(X, stored(Y), np.full(10, 3.0)), expected, strict=True):
        np.testing.assert_array_equal(a, b)
    chosen = [select(X, y, equal_folds()[0].inner, ALPHAS) for y in (Y, stored(Y))]
    np.testing.assert_array_equal(chosen[0].alphas, chosen[1].alphas)


@pytest.mark.slow
def test_progress_sees_every_tile():
    X, Y, _ = many_targets("plain", 10)
    seen = []

    def progress(tiles):
        for tile in tiles:
            seen.extend(tile)
            yield tile

    nested(X, Y, gapped_folds(), ALPHAS, tile=TILE, progress=progress)
    assert seen == list(range(MANY))
