import numpy as np
import pytest

from jaxalign.bench import problems

SIZES = {"n": 400, "p": 30, "v": 1100, "decay": 1.0, "seed": 3}


def test_disk_and_memory_hold_the_same_problem(tmp_path):
    for name, on_disk in (("memory", False), ("disk", True)):
        (tmp_path / name).mkdir()
        problems.write(tmp_path / name, problems.Problem(**SIZES), on_disk=on_disk)
    X, Y = problems.read(tmp_path / "memory")
    X_disk, stored = problems.read(tmp_path / "disk")
    assert (X.dtype, Y.dtype, Y.shape) == (np.float32, np.float32, (400, 1100))
    np.testing.assert_array_equal(X, X_disk)
    assert not isinstance(stored, np.ndarray)
    assert tuple(stored.shape) == Y.shape
    np.testing.assert_array_equal(stored.read().result(), Y)
    some = np.array([0, 5, 1099])
    np.testing.assert_array_equal(problems.columns(stored, some), problems.columns(Y, some))


def test_spectrum_decays_and_has_unit_mean_variance():
    X = problems.features(20_000, 4, decay=2.0, seed=0)
    expected = np.array([1, 1 / 4, 1 / 9, 1 / 16])
    np.testing.assert_allclose(X.var(axis=0), expected / expected.mean(), rtol=0.05)
    flat = problems.features(20_000, 4, decay=0.0, seed=0)
    np.testing.assert_allclose(flat.var(axis=0), 1, rtol=0.05)


def test_a_quarter_of_the_targets_is_noise_and_the_rest_has_up_to_its_variance():
    X = problems.features(4000, 5, decay=0.0, seed=0)
    Y = problems.targets(X, range(0, 400), seed=0)
    w, *_ = np.linalg.lstsq(X, Y, rcond=None)
    signal = (X @ w).var(axis=0)
    np.testing.assert_allclose((Y - X @ w).var(axis=0), 1, rtol=0.15)
    # What five features explain of noise is 5 / 4000 of its variance on average.
    assert (signal < 0.008).sum() == pytest.approx(100, abs=8)
    assert signal.max() < 1.15
    assert np.median(signal[signal > 0.008]) == pytest.approx(0.5, abs=0.1)


def test_seeds_and_tiles_differ():
    X = problems.features(10, 3, decay=0.0, seed=0)
    first, again = (problems.targets(X, range(0, 4), seed=0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (problems.targets(X, range(4, 8), seed=0) != first).all()
    assert (problems.targets(X, range(0, 4), seed=1) != first).all()
    assert [list(x)[-1] for x in problems.tiles(2100)] == [1023, 2047, 2099]
