import itertools
import math

import numpy as np
import pytest
from scipy import linalg
from sklearn.linear_model import LinearRegression, Ridge, RidgeCV
from sklearn.model_selection import GroupKFold, ShuffleSplit

from jaxalign.core import folds
from jaxalign.core.ceilings import subsets


def simulate(rng, targets, *, n=40, noise_sd=1.0, num_signals=3):
    """Responses of subjects who share signals, mixed differently; and whose each column is."""
    signal = rng.normal(size=(n, num_signals))
    mixed = [signal @ rng.normal(size=(num_signals, v)) for v in targets]
    Y = np.concatenate(mixed, axis=1)
    return Y + noise_sd * rng.normal(size=Y.shape), np.repeat(np.arange(len(targets)), targets)


def correlate(a, b):
    return np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T, strict=True)])


def exhaustive(Y, subjects, splits, regression):
    """Regress once for each subset, subject and split: {(subset, subject): r [k v]}."""
    names = list(dict.fromkeys(subjects.tolist()))
    found = {}
    for k in range(2, len(names) + 1):
        for subset in itertools.combinations(names, k):
            for held_out in subset:
                mine = subjects == held_out
                pool = np.isin(subjects, subset) & ~mine
                rows = []
                for train, test in splits:
                    fitted = regression().fit(Y[train][:, pool], Y[train][:, mine])
                    predicted = fitted.predict(Y[test][:, pool]).reshape(len(test), -1)
                    rows.append(correlate(predicted, Y[test][:, mine]))
                found[subset, held_out] = np.array(rows)
    return found


def agree(found, expected, atol):
    """Every score has its place, and there is no other."""
    seen = 0
    for i, name in enumerate(found.subjects):
        held = found.subsets[found.subsets[:, i]]
        assert len(held) == len(found.r[i])
        for members, r in zip(held, found.r[i], strict=True):
            subset = tuple(np.asarray(found.subjects)[members].tolist())
            np.testing.assert_allclose(r, expected[subset, name], atol=atol)
            seen += 1
    assert seen == len(expected)


CASES = {
    "fewer features than samples": (3, 2, 4, 3),
    "more features than samples": (40, 50, 45, 60),
    "from fewer to more": (20, 8, 30, 13),
    "as many as training samples, and one more": (17, 18, 17, 18),
}


@pytest.mark.slow
@pytest.mark.parametrize("targets", CASES.values(), ids=CASES)
@pytest.mark.parametrize("alpha", [0.0, 20.0])
def test_matches_scikit_learn_over_every_subset(rng, targets, alpha):
    Y, subjects = simulate(rng, targets)
    Y += 50 * rng.normal(size=Y.shape[1])  # targets have levels of their own
    splits = folds.splits(ShuffleSplit(2, train_size=0.9, random_state=1), len(Y))
    regression = (lambda: Ridge(alpha, solver="svd")) if alpha else LinearRegression
    found = subsets.score(Y, subjects, splits, alphas=(alpha,))
    agree(found, exhaustive(Y, subjects, splits, regression), 1e-5)


@pytest.mark.slow
def test_test_sets_may_differ_in_length(rng):
    Y, subjects = simulate(rng, (5, 30, 40))
    groups = np.repeat(np.arange(7), [2, 9, 4, 7, 3, 10, 5])
    splits = folds.splits(GroupKFold(7), len(Y), groups=groups)
    assert len({len(split.test) for split in splits}) > 2
    found = subsets.score(Y, subjects, splits)
    agree(found, exhaustive(Y, subjects, splits, LinearRegression), 1e-5)


@pytest.mark.parametrize("targets", [(20, 30, 15), pytest.param((3, 3, 3), marks=pytest.mark.slow)])
def test_penalties_chosen_inside_match_scikit_learn(rng, targets):
    Y, subjects = simulate(rng, targets, noise_sd=2.0)
    splits = folds.splits(3, len(Y))
    alphas = tuple(10.0**k for k in range(-1, 4))
    found = subsets.score(Y, subjects, splits, alphas=alphas)
    regression = lambda: RidgeCV(alphas)
    agree(found, exhaustive(Y, subjects, splits, regression), 1e-4)


@pytest.mark.slow
def test_collinear_targets_have_the_solution_of_minimum_norm(rng):
    """Each subject has every target twice, and one that is constant."""
    Y, subjects = simulate(rng, (3, 4, 3))
    order = np.repeat(np.arange(len(subjects)), 2)
    Y, subjects = Y[:, order], subjects[order]
    Y = np.concatenate([Y, np.full((len(Y), 3), 7.1)], axis=1)
    subjects = np.r_[subjects, 0, 1, 2]
    splits = folds.splits(4, len(Y))
    found = subsets.score(Y, subjects, splits)
    for i, held_out in enumerate(found.columns):
        pool = np.flatnonzero(subjects != i)
        for number, (train, test) in enumerate(splits):
            X = Y[:, pool] - Y[train][:, pool].mean(axis=0)
            weights = linalg.pinv(X[train], rtol=1e-7) @ Y[train][:, held_out]
            varying = slice(0, len(held_out) - 1)
            expected = correlate((X[test] @ weights)[:, varying], Y[test][:, held_out][:, varying])
            np.testing.assert_allclose(found.r[i][-1, number, varying], expected, atol=1e-5)
            assert np.isnan(found.r[i][:, number, -1]).all()


def test_a_constant_target_is_undefined_and_no_feature(rng):
    Y, subjects = simulate(rng, (4, 4, 4))
    splits = folds.splits(3, len(Y))
    expected = subsets.score(Y, subjects, splits)
    Y = np.insert(Y, 4, 1e4 + 0.1, axis=1)
    subjects = np.insert(subjects, 4, 0)
    found = subsets.score(Y, subjects, splits)
    assert np.isnan(found.r[0][:, :, 4]).all()
    for i in range(3):
        np.testing.assert_allclose(found.r[i][:, :, :4], expected.r[i], atol=1e-6)


def test_nothing_can_be_predicted_from_constants(rng):
    """The pool of subject 0 alone predicts nothing but means."""
    Y, subjects = simulate(rng, (2, 3, 3))
    Y[:, :2] = 3.3
    found = subsets.score(Y, subjects, folds.splits(3, len(Y)))
    pair = (found.subsets[:, 0] & found.subsets[:, 1])[found.subsets[:, 1]]
    pair &= found.subsets[found.subsets[:, 1]].sum(axis=1) == 2
    np.testing.assert_array_equal(np.isnan(found.r[1]).all(axis=(1, 2)), pair)


@pytest.mark.parametrize("targets", [(1, 2, 2), (60, 2, 2)])
def test_nothing_can_be_predicted_from_what_is_constant_over_a_training_set(rng, targets):
    """In both forms: with fewer features than samples, and with more."""
    Y, subjects = simulate(rng, targets)
    Y[:20, : targets[0]] = 0.3 + np.arange(targets[0])
    halves = [(np.arange(20), np.arange(20, 40)), (np.arange(0, 40, 2), np.arange(1, 40, 2))]
    found = subsets.score(Y, subjects, folds.splits(halves, len(Y)))
    assert np.isnan(found.r[1][0, 0]).all() and not np.isnan(found.r[1][0, 1]).any()


def test_a_target_that_does_not_vary_in_a_test_set_is_undefined_there(rng):
    Y, subjects = simulate(rng, (3, 3, 3))
    Y[:10, 4] = 0.7
    found = subsets.score(Y, subjects, folds.splits(4, len(Y)))
    undefined = np.isnan(found.r[1])
    assert undefined[:, 0, 1].all() and undefined.sum() == len(found.r[1])


def test_units_of_targets_count_as_features_and_not_as_scores(rng):
    Y, subjects = simulate(rng, (2, 3, 3))
    splits = folds.splits(3, len(Y))
    plain = subsets.score(Y, subjects, splits)
    scaled = subsets.score(1e-13 * Y, subjects, splits)
    for a, b in zip(plain.r, scaled.r, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_columns_may_come_in_any_order(rng):
    Y, subjects = simulate(rng, (4, 3, 5))
    splits = folds.splits(3, len(Y))
    plain = subsets.score(Y, subjects, splits)
    order = rng.permutation(len(subjects))
    mixed = subsets.score(Y[:, order], [f"s{x}" for x in subjects[order]], splits)
    assert set(mixed.subjects) == {"s0", "s1", "s2"}
    whole = {}
    for found, names in ((plain, None), (mixed, order)):
        last = np.empty((3, len(subjects)))
        for r, columns in zip(found.r, found.columns, strict=True):
            last[:, columns if names is None else names[columns]] = r[-1]
        whole[names is None] = last
    np.testing.assert_allclose(whole[True], whole[False], atol=1e-6)


def test_targets_do_not_interact_as_held_out_ones(rng):
    """More targets of the last subject change the others' scores, and not those it had."""
    Y, subjects = simulate(rng, (3, 3, 6))
    splits = folds.splits(3, len(Y))
    whole, part = (subsets.score(Y[:, :m], subjects[:m], splits) for m in (12, 9))
    np.testing.assert_allclose(whole.r[2][:, :, :3], part.r[2], atol=1e-6)


def test_members_of_all_subsets():
    found = subsets.members_of(5)
    expected = [x for k in range(2, 6) for x in itertools.combinations(range(5), k)]
    assert [tuple(np.flatnonzero(row)) for row in found] == expected


def test_a_sample_of_subsets_is_part_of_them(rng):
    found = subsets.members_of(9, max_subsets=20, rng=rng)
    sizes = found.sum(axis=1)
    for k in range(2, 10):
        own = found[sizes == k]
        assert len(own) == min(20, math.comb(9, k)) == len(np.unique(own, axis=0))
    assert (np.diff(sizes) >= 0).all()
    draws = [subsets.members_of(9, max_subsets=20, rng=np.random.default_rng(x)) for x in (3, 3, 4)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


def test_scores_of_a_sample_are_those_of_all(rng):
    Y, subjects = simulate(rng, (3, 2, 4, 2, 3))
    splits = folds.splits(3, len(Y))
    every = subsets.score(Y, subjects, splits)
    chosen = subsets.members_of(5, max_subsets=4, rng=rng)
    some = subsets.score(Y, subjects, splits, chosen=chosen)
    assert len(some.subsets) == 4 + 4 + 4 + 1
    for i in range(5):
        held = every.subsets[every.subsets[:, i]]
        known = {tuple(m): r for m, r in zip(held, every.r[i], strict=True)}
        for members, r in zip(some.subsets[some.subsets[:, i]], some.r[i], strict=True):
            np.testing.assert_allclose(r, known[tuple(members)], atol=1e-6)


def test_progress_sees_every_chunk(rng, monkeypatch):
    Y, subjects = simulate(rng, (3, 2, 4, 2))
    splits = folds.splits(3, len(Y))
    whole = subsets.score(Y, subjects, splits)
    monkeypatch.setattr(subsets, "CHUNK_BYTES", 1)
    seen = []

    def progress(chunks):
        for chunk in chunks:
            seen.extend(chunk)
            yield chunk

    parts = subsets.score(Y, subjects, splits, progress=progress)
    # All pools but that of everyone, who would predict nobody.
    assert len(seen) == len(set(seen)) == 2**4 - 2
    for a, b in zip(whole.r, parts.r, strict=True):
        np.testing.assert_array_equal(a, b)


def test_input_is_not_changed(rng):
    Y, subjects = simulate(rng, (3, 2, 4))
    before = Y.copy()
    subsets.score(Y, subjects, folds.splits(3, len(Y)))
    np.testing.assert_array_equal(Y, before)


def refusal(message):
    return pytest.raises(ValueError, match=message)


def test_refusals_of_subjects(rng):
    Y, subjects = simulate(rng, (3, 3, 3))
    splits = folds.splits(3, len(Y))
    with refusal("over subjects needs at least 3, got 2"):
        subsets.score(Y[:, :6], subjects[:6], splits)
    with refusal("subjects must have one label per column of Y: 9, got 8"):
        subsets.score(Y, subjects[:8], splits)
    Y[3, 4] = np.nan
    with refusal("Y must be finite: it holds NaN"):
        subsets.score(Y, subjects, splits)


def test_refusals_of_splits(rng):
    Y, subjects = simulate(rng, (3, 3, 3))
    split = lambda train, test: folds.Split(np.asarray(train), np.asarray(test))
    for bad, message in (
        ((), "splits must hold at least one split, got none"),
        ((split([0, 1], [2]),), "Split 0 must train and test on at least 2 samples, got 2 and 1"),
        ((split([0, 1], [2, 40]),), "Split 0 must have indices in 0..39, got 0..40"),
        ((split([-1, 1], [2, 3]),), "Split 0 must have indices in 0..39, got -1..3"),
        ((split([1, 1], [2, 3]),), "Split 0 must not train on a sample more than once"),
    ):
        with refusal(message):
            subsets.score(Y, subjects, bad)


@pytest.mark.parametrize("alphas", [(), (-1.0,), (np.nan, 1.0)])
def test_refusals_of_penalties(rng, alphas):
    Y, subjects = simulate(rng, (3, 3, 3))
    with refusal("alphas must be >= 0 and finite"):
        subsets.score(Y, subjects, folds.splits(3, len(Y)), alphas=alphas)


def test_refusals_of_samples():
    with refusal("max_subsets must be >= 1, got 0"):
        subsets.members_of(5, max_subsets=0, rng=np.random.default_rng(0))
    with refusal("rng must be given with max_subsets"):
        subsets.members_of(5, max_subsets=3)
    with refusal("36 subjects have 68719476699"):
        subsets.members_of(36)


@pytest.mark.parametrize("s,per_subject,num_sizes", [(7, 4, 10), (27, 5, 6), (36, 10, 8)])
def test_balanced_subsets_hold_every_subject(rng, s, per_subject, num_sizes):
    found = subsets.balanced_members(s, per_subject=per_subject, num_sizes=num_sizes, rng=rng)
    sizes = found.sum(axis=1)
    expected = range(2, s + 1) if num_sizes >= s - 1 else subsets.spread_sizes(s, num_sizes)
    assert sorted(set(sizes.tolist())) == list(expected)
    assert expected[0] == 2 and expected[-1] == s
    assert len(np.unique(found, axis=0)) == len(found)
    for k in expected:
        times = found[sizes == k].sum(axis=0)
        if math.comb(s - 1, k - 1) <= per_subject:
            assert len(found[sizes == k]) == math.comb(s, k)
        else:
            assert times.min() >= per_subject
            assert times.max() <= 3 * per_subject


def test_chosen_subsets_have_the_scores_that_they_have_among_all(rng):
    Y, subjects = simulate(rng, (3, 2, 4, 3))
    splits = folds.splits(3, len(Y))
    every = subsets.score(Y, subjects, splits)
    chosen = every.subsets[[1, 4, 8, 10]]
    found = subsets.score(Y, subjects, splits, chosen=chosen)
    for i, r in enumerate(found.r):
        held = every.subsets[every.subsets[:, i]].tolist()
        rows = [held.index(x) for x in chosen[chosen[:, i]].tolist()]
        np.testing.assert_allclose(r, every.r[i][rows], atol=1e-6)


def test_balanced_and_chosen_refusals(rng):
    draw = lambda s=5, per=2, sizes=3: subsets.balanced_members(
        s, per_subject=per, num_sizes=sizes, rng=rng
    )
    with pytest.raises(ValueError, match="at least 3, got 2"):
        draw(s=2)
    with pytest.raises(ValueError, match="per_subject must be >= 1 and num_sizes >= 2, got 0 and"):
        draw(per=0)
    with pytest.raises(ValueError, match="got 2 and 1"):
        draw(sizes=1)
    Y, subjects = simulate(rng, (2, 2, 2))
    with pytest.raises(ValueError, match="chosen must hold subsets of at least 2 of 3 subjects"):
        subsets.score(Y, subjects, folds.splits(3, len(Y)), chosen=np.eye(3, dtype=bool))
