import numpy as np
import pytest
from scipy import stats

from jaxalign.core import localizer


@pytest.mark.parametrize("n,m", [(240, 240), (5, 9), (2, 2)])
def test_t_is_that_of_scipy_on_absolute_values(rng, n, m):
    a, b = rng.normal(size=(n, 40)) * 2 - 1, rng.normal(size=(m, 40)) + 0.5
    expected = stats.ttest_ind(np.abs(a), np.abs(b), equal_var=False).statistic
    np.testing.assert_allclose(localizer.welch_t(a, b), expected, atol=1e-9)


def test_sign_of_activations_does_not_matter(rng):
    a, b = rng.normal(size=(20, 6)), rng.normal(size=(20, 6))
    np.testing.assert_array_equal(localizer.welch_t(-a, b), localizer.welch_t(a, b))


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_units_that_vary_in_neither_condition_have_no_t(rng, value):
    a, b = rng.normal(size=(9, 3)), rng.normal(size=(7, 3))
    a[:, 1], b[:, 1] = value, 2 * value + 1
    b[:, 2] = value  # varies in one
    np.testing.assert_array_equal(np.isnan(localizer.welch_t(a, b)), [False, True, False])


def test_units_are_chosen_over_all_layers():
    t = np.array([[1.0, 5.0, np.nan], [4.0, -9.0, 2.0]])
    chosen = localizer.top_units(t, 3)
    np.testing.assert_array_equal(chosen, [[False, True, False], [True, False, True]])


def test_of_equal_units_the_first_are_chosen():
    t = np.array([[1.0, 2.0, 2.0], [2.0, 3.0, 2.0]])
    chosen = localizer.top_units(t, 3)
    np.testing.assert_array_equal(chosen, [[False, True, True], [False, True, False]])


@pytest.mark.parametrize("num", [0, 4])
def test_only_units_with_a_t_can_be_chosen(num):
    with pytest.raises(ValueError, match=rf"num must lie in 1\.\.3, .* got {num}"):
        localizer.top_units(np.array([[1.0, np.nan, 2.0, 3.0]]), num)


def test_random_units_are_as_many_allowed_others_and_follow_the_seed(rng):
    allowed = np.ones((4, 50), bool)
    allowed[0] = False
    chosen = localizer.top_units(np.where(allowed, rng.normal(size=(4, 50)), np.nan), 30)
    draw = lambda seed: localizer.random_units(chosen, allowed, np.random.default_rng(seed))
    found = draw(0)
    assert found.sum() == 30
    assert not (found & chosen).any() and not (found & ~allowed).any()
    np.testing.assert_array_equal(found, draw(0))
    assert (found != draw(1)).any()


def test_random_units_must_be_left(rng):
    chosen = np.array([[True, True, True, False]])
    with pytest.raises(
        ValueError, match="3 random units must be drawn from those left, which are 1"
    ):
        localizer.random_units(chosen, np.ones((1, 4), bool), rng)


def test_planted_units_are_found(rng):
    a, b = rng.normal(size=(100, 200)), rng.normal(size=(100, 200))
    a[:, 20:30] *= 3
    chosen = localizer.top_units(localizer.welch_t(a, b)[None], 10)
    np.testing.assert_array_equal(np.flatnonzero(chosen[0]), np.arange(20, 30))


def test_too_few_items_and_what_is_not_finite_are_refused(rng):
    a = rng.normal(size=(5, 3))
    with pytest.raises(ValueError, match="two items of either condition, got 5 and 1"):
        localizer.welch_t(a, a[:1])
    a[2, 1] = np.inf
    with pytest.raises(ValueError, match="activations must be finite"):
        localizer.welch_t(a, a)


def test_units_that_chance_chose_have_no_t_on_other_items(rng):
    """Of noise a choice is optimistic; of planted units it is not."""
    num, items = 20, 400
    halves = np.stack([rng.standard_normal((3, 200)) for _ in range(2)])
    found = localizer.half_t(halves, num)
    assert found.chosen > 1.5
    # The mean of 2 x 20 values of variance 1.
    assert abs(found.held_out) < 4 / np.sqrt(40) and abs(found.rest) < 0.1
    shifted = rng.standard_normal((2, items, 3, 200))
    shifted[0, :, 1, :num] += 5.0
    t = [
        np.stack([localizer.welch_t(*shifted[:, i::2, layer]) for layer in range(3)])
        for i in range(2)
    ]
    found = localizer.half_t(np.stack(t), num)
    assert found.chosen == pytest.approx(found.held_out, rel=0.05)
    assert abs(found.rest) < 0.2


def test_halves_are_averaged_over_both_directions():
    halves = np.array([[[5.0, 1.0, np.nan, 0.0]], [[2.0, 7.0, 3.0, 1.0]]])
    found = localizer.half_t(halves, 1)
    assert (found.chosen, found.held_out) == ((5 + 7) / 2, (2 + 1) / 2)
    assert found.rest == pytest.approx(((7 + 3 + 1) / 3 + (5 + 0) / 2) / 2)
