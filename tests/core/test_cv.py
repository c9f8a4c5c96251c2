import itertools

import hypothesis
import numpy as np
import pytest
import ridge_oracle
from hypothesis import strategies as st
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from jaxalign.core import cv

N = 60
ALPHAS = 10.0 ** np.arange(-3, 10)
# Beyond, the errors of neighbouring penalties are equal in float32.
DISTINCT_ALPHAS = ALPHAS[:8]
GROUP_SIZES = (3, 9, 5, 1, 14, 6, 2, 8, 7, 5)

settings = hypothesis.settings(max_examples=80, deadline=None, derandomize=True, database=None)


def equal_folds():
    return cv.contiguous_folds(["a"] * N, 5, gap=0)


def gapped_folds():
    return cv.contiguous_folds(["a"] * 23 + ["b"] * 37, 5, gap=3)


def grouped_folds():
    groups = [f"g{i}" for i, size in enumerate(GROUP_SIZES) for _ in range(size)]
    return cv.contiguous_folds(["a"] * N, 4, gap=1, groups=groups)


def make_targets(rng, X):
    """Targets of falling signal, two of pure noise, one with a large baseline, one small."""
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    signal = X @ rng.normal(size=(X.shape[1], 10)) / np.sqrt(X.shape[1])
    gain = np.array([10.0, 3.0, 2.0, 1.0, 1.0, 0.5, 0.0, 0.0, 2.0, 2.0])
    Y = gain * signal + rng.normal(size=signal.shape)
    Y[:, 8] = 1e4 + Y[:, 8] / Y[:, 8].std()
    Y[:, 9] *= 1e-5
    return Y


def make_features(rng, p):
    """Features whose variance falls off, as that of activations does."""
    rotation, _ = np.linalg.qr(rng.normal(size=(p, p)))
    return rng.normal(size=(N, p)) / np.arange(1, p + 1) @ rotation * np.sqrt(p)


def make_problem(rng, p=10):
    X = make_features(rng, p)
    return X, make_targets(rng, X)


def duplicated(X, rng):
    X[:, 1] = X[:, 4] = X[:, 0]


def nearly_duplicated(X, rng):
    X[:, 1] = X[:, 0] + 1e-7 * rng.normal(size=len(X))


def low_rank(X, rng):
    X[:] = rng.normal(size=(len(X), 3)) @ rng.normal(size=(3, X.shape[1]))


def of_unequal_scale(X, rng):
    X *= np.logspace(-1, 2, X.shape[1])


def off_centre(X, rng):
    X += 1e3


def constant(X, rng):
    X[:, 2], X[:, 5] = 0.1, 0.0
    return [2, 5]


def tiny(X, rng):
    X[:, [2, 5]] = 1e-33 * rng.normal(size=(len(X), 2))
    return [2, 5]


def plain(X, rng):
    pass


COLUMNS = [
    plain,
    duplicated,
    nearly_duplicated,
    low_rank,
    of_unequal_scale,
    off_centre,
    constant,
    tiny,
]


def assert_matches_oracle(X, Y, folds, *, standardize, dead=(), alphas=ALPHAS):
    """Compare with the float64 oracle; `dead` columns must count for nothing."""
    result = cv.nested(X, Y, folds, alphas, standardize=standardize)
    live = np.delete(X, dead, axis=1)
    num_decided = 0
    for i, fold in enumerate(folds):
        errors, null = ridge_oracle.inner_errors(live, Y, fold, alphas, standardize=standardize)
        # Penalties whose errors differ by less than this are as good as equal in float32.
        best, second = np.sort(errors, axis=0)[:2]
        decided = second > best * (1 + 1e-4)
        num_decided += decided.sum()
        np.testing.assert_array_equal(
            result.alphas[i, decided], alphas[errors.argmin(axis=0)[decided]]
        )
        inner_r2 = 1 - best / null
        np.testing.assert_allclose(result.inner_r2[i], inner_r2, atol=1e-4)

        r, r2 = ridge_oracle.held_out(live, Y, fold, result.alphas[i], standardize=standardize)
        np.testing.assert_allclose(result.r[i], r, rtol=0, atol=1e-4)
        np.testing.assert_allclose(result.r2[i], r2, rtol=1e-4, atol=1e-4)
    assert num_decided > 0.5 * result.alphas.size
    np.testing.assert_array_equal(result.num_constant, len(dead))


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("p", [10, 90])
@pytest.mark.parametrize("columns", COLUMNS)
def test_scores_match_the_oracle_for_any_columns(rng, columns, p, standardize):
    X = make_features(rng, p)
    dead = columns(X, rng) or []
    Y = make_targets(rng, np.delete(X, dead, axis=1))
    assert_matches_oracle(X, Y, gapped_folds(), standardize=standardize, dead=dead)


@pytest.mark.parametrize("p, standardize", [(47, False), (48, True)])
def test_scores_match_the_oracle_where_samples_equal_features(rng, p, standardize):
    X, Y = make_problem(rng, p)
    folds = equal_folds()
    assert {len(fold.outer.train) for fold in folds} == {48}
    assert_matches_oracle(X, Y, folds, standardize=standardize)


def test_scores_match_the_oracle_on_unequal_groups(rng):
    X, Y = make_problem(rng)
    folds = grouped_folds()
    assert len({len(fold.outer.test) for fold in folds}) > 1
    assert_matches_oracle(X, Y, folds, standardize=True)


def test_one_target_matches_the_oracle(rng):
    X, Y = make_problem(rng)
    assert_matches_oracle(X, Y[:, 2:3], gapped_folds(), standardize=True)


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize(
    "p, make_folds", [(10, gapped_folds), (48, equal_folds), (90, gapped_folds)]
)
def test_scores_at_a_given_penalty_match_the_oracle(rng, p, make_folds, alpha):
    X, Y = make_problem(rng, p)
    folds = make_folds()
    result = cv.nested(X, Y, folds, np.array([alpha]))
    for i, fold in enumerate(folds):
        r, r2 = ridge_oracle.held_out(X, Y, fold, np.full(10, alpha), standardize=True)
        np.testing.assert_allclose(result.r[i], r, rtol=0, atol=1e-4)
        np.testing.assert_allclose(result.r2[i], r2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("p", [10, 90])
def test_scores_match_a_grid_search_of_sklearn(rng, p):
    X, Y = make_problem(rng, p)
    folds = gapped_folds()
    result = cv.nested(X, Y, folds, ALPHAS)
    fold = folds[1]
    for j in range(2):
        search = GridSearchCV(
            make_pipeline(StandardScaler(), Ridge()),
            {"ridge__alpha": ALPHAS},
            scoring="neg_mean_squared_error",
            cv=[tuple(split) for split in fold.inner],
            refit=False,
        ).fit(X, Y[:, j])
        alpha = search.best_params_["ridge__alpha"]
        assert result.alphas[1, j] == alpha
        model = make_pipeline(StandardScaler(), Ridge(alpha))
        model.fit(X[fold.outer.train], Y[fold.outer.train, j])
        predicted, y = model.predict(X[fold.outer.test]), Y[fold.outer.test, j]
        assert result.r[1, j] == pytest.approx(stats.pearsonr(predicted, y)[0], abs=1e-4)
        assert result.r2[1, j] == pytest.approx(model.score(X[fold.outer.test], y), abs=1e-4)


def test_targets_do_not_interact(rng):
    X, Y = make_problem(rng)
    before = cv.nested(X, Y, gapped_folds(), ALPHAS)
    Y[:, 0] = 1e6 * rng.normal(size=N)
    Y[:, 1] = 0.3
    after = cv.nested(X, Y, gapped_folds(), ALPHAS)
    for name in ("r", "r2", "alphas", "inner_r2"):
        np.testing.assert_array_equal(getattr(after, name)[:, 2:], getattr(before, name)[:, 2:])


def test_each_target_scores_as_if_alone(rng):
    X, Y = make_problem(rng)
    together = cv.nested(X, Y, gapped_folds(), ALPHAS)
    alone = cv.nested(X, Y[:, 2:3], gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(alone.alphas[:, 0], together.alphas[:, 2])
    np.testing.assert_allclose(alone.r[:, 0], together.r[:, 2], atol=1e-6)
    np.testing.assert_allclose(alone.r2[:, 0], together.r2[:, 2], atol=1e-5)


def test_permuting_targets_permutes_scores(rng):
    X, Y = make_problem(rng)
    order = rng.permutation(Y.shape[1])
    plain = cv.nested(X, Y, gapped_folds(), ALPHAS)
    permuted = cv.nested(X, Y[:, order], gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(permuted.alphas, plain.alphas[:, order])
    np.testing.assert_allclose(permuted.r, plain.r[:, order], atol=1e-6)
    np.testing.assert_allclose(permuted.r2, plain.r2[:, order], atol=1e-5)


@pytest.mark.parametrize("p", [10, 90])
def test_permuting_features_changes_nothing(rng, p):
    X, Y = make_problem(rng, p)
    plain = cv.nested(X, Y, gapped_folds(), ALPHAS)
    permuted = cv.nested(X[:, rng.permutation(p)], Y, gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(permuted.alphas, plain.alphas)
    np.testing.assert_allclose(permuted.r, plain.r, atol=1e-5)


@pytest.mark.parametrize("p", [10, 90])
def test_scale_and_offset_of_features_do_not_matter_when_standardized(rng, p):
    X, Y = make_problem(rng, p)
    plain = cv.nested(X, Y, gapped_folds(), ALPHAS)
    rescaled = cv.nested(X * np.logspace(-2, 2, p) - 7, Y, gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(rescaled.alphas, plain.alphas)
    np.testing.assert_allclose(rescaled.r, plain.r, atol=1e-5)


def test_scale_of_features_matters_when_not_standardized(rng):
    X, Y = make_problem(rng)
    alphas = np.array([10.0])
    plain = cv.nested(X, Y, gapped_folds(), alphas, standardize=False)
    # Features c times as large under a penalty c squared times as large are the same problem.
    scaled = cv.nested(10 * X, Y, gapped_folds(), 100 * alphas, standardize=False)
    np.testing.assert_allclose(scaled.r, plain.r, atol=1e-5)
    other = cv.nested(10 * X, Y, gapped_folds(), alphas, standardize=False)
    assert np.abs(other.r2 - plain.r2).max() > 1e-2


# 1e-13: a magnetometer in tesla. 1e-5: an electrode in volts.
@pytest.mark.parametrize("scale, offset", [(-1, 0), (3, 1e4), (1e-5, 1), (1e-13, 0), (1e12, 0)])
def test_affine_change_of_targets_leaves_scores_unchanged(rng, scale, offset):
    X, Y = make_problem(rng)
    Y = (Y - Y.mean(axis=0)) / Y.std(axis=0)
    alphas = DISTINCT_ALPHAS
    plain = cv.nested(X, Y, gapped_folds(), alphas)
    changed = cv.nested(X, scale * Y + offset, gapped_folds(), alphas)
    np.testing.assert_array_equal(changed.alphas, plain.alphas)
    np.testing.assert_allclose(changed.r, plain.r, atol=1e-5)
    np.testing.assert_allclose(changed.r2, plain.r2, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(changed.inner_r2, plain.inner_r2, atol=1e-5)


def test_an_infinite_penalty_scores_as_the_training_mean(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    result = cv.nested(X, Y, folds, np.array([1e9]))
    for i, fold in enumerate(folds):
        y = Y[fold.outer.test]
        error = ((y - Y[fold.outer.train].mean(axis=0)) ** 2).sum(axis=0)
        expected = 1 - error / ((y - y.mean(axis=0)) ** 2).sum(axis=0)
        np.testing.assert_allclose(result.r2[i], expected, atol=1e-4)
    np.testing.assert_allclose(result.inner_r2, 0, atol=1e-5)


def test_a_noiseless_signal_is_recovered_in_full(rng):
    X = rng.normal(size=(N, 10))
    result = cv.nested(X, X @ rng.normal(size=(10, 10)), gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(result.alphas, ALPHAS[0])
    np.testing.assert_allclose(result.r, 1, atol=1e-5)
    np.testing.assert_allclose(result.r2, 1, atol=1e-5)
    np.testing.assert_allclose(result.inner_r2, 1, atol=1e-5)


def test_unrelated_features_predict_nothing(rng):
    X = rng.normal(size=(N, 10))
    result = cv.nested(X, rng.normal(size=(N, 400)), gapped_folds(), ALPHAS)
    # 2000 correlations over 12 samples each, 0.29 wide.
    assert abs(result.r.mean()) < 0.03


def test_held_out_responses_do_not_choose_the_penalty(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    alphas = DISTINCT_ALPHAS
    before = cv.nested(X, Y, folds, alphas)
    Y[folds[2].outer.test] = rng.permutation(Y[folds[2].outer.test])
    after = cv.nested(X, Y, folds, alphas)
    np.testing.assert_array_equal(after.alphas[2], before.alphas[2])
    np.testing.assert_allclose(after.inner_r2[2], before.inner_r2[2], atol=1e-4)
    assert (after.alphas != before.alphas).any()


def test_samples_within_the_gap_do_not_reach_the_fit(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    # One penalty, as other folds' inner tests do hold these samples.
    alphas = np.array([10.0])
    before = cv.nested(X, Y, folds, alphas)
    used = np.r_[folds[0].outer.train, folds[0].outer.test]
    gap = np.setdiff1d(np.arange(N), used)
    assert len(gap) == 3
    X[gap] += 100 * rng.normal(size=(3, 10))
    Y[gap] += 100 * rng.normal(size=(3, 1)) * Y.std(axis=0)
    after = cv.nested(X, Y, folds, alphas)
    np.testing.assert_allclose(after.r[0], before.r[0], atol=1e-4)
    np.testing.assert_allclose(after.r2[0], before.r2[0], rtol=1e-4, atol=1e-4)
    assert np.abs(after.r[3] - before.r[3]).max() > 0.1


def test_a_fold_scores_alike_alone_and_among_others(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    together = cv.nested(X, Y, folds, ALPHAS)
    alone = cv.nested(X, Y, [folds[1]], ALPHAS)
    np.testing.assert_array_equal(alone.alphas[0], together.alphas[1])
    np.testing.assert_allclose(alone.r[0], together.r[1], atol=1e-5)
    np.testing.assert_allclose(alone.inner_r2[0], together.inner_r2[1], atol=1e-5)


def test_order_of_penalties_does_not_matter(rng):
    X, Y = make_problem(rng)
    plain = cv.nested(X, Y, gapped_folds(), ALPHAS)
    shuffled = cv.nested(X, Y, gapped_folds(), rng.permutation(ALPHAS))
    np.testing.assert_array_equal(shuffled.alphas, plain.alphas)
    np.testing.assert_array_equal(shuffled.r, plain.r)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inputs_are_not_changed(rng, dtype):
    X, Y = (array.astype(dtype) for array in make_problem(rng))
    alphas = ALPHAS[::-1].copy()
    before = X.copy(), Y.copy(), alphas.copy()
    cv.nested(X, Y, gapped_folds(), alphas)
    for array, old in zip((X, Y, alphas), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e4 / 3, 1e6 + 0.1])
def test_a_constant_target_has_no_score(rng, value):
    X, Y = make_problem(rng)
    Y[:, 0] = value
    result = cv.nested(X, Y, gapped_folds(), ALPHAS)
    for scores in (result.r, result.r2, result.inner_r2):
        assert np.isnan(scores[:, 0]).all()
        assert np.isfinite(scores[:, 1:]).all()


def test_a_target_that_is_constant_in_one_test_block_has_no_score_there(rng):
    X, Y = make_problem(rng)
    folds = gapped_folds()
    Y[folds[3].outer.test, 0] = 0.7
    result = cv.nested(X, Y, folds, ALPHAS)
    expected = np.zeros((5, 10), bool)
    expected[3, 0] = True
    np.testing.assert_array_equal(np.isnan(result.r), expected)
    np.testing.assert_array_equal(np.isnan(result.r2), expected)


@pytest.mark.parametrize("p", [10, 90])
@pytest.mark.parametrize("value", [0.0, 0.1, 0.37, -1e4 / 3])
def test_a_target_that_is_constant_in_training_has_no_correlation(rng, value, p):
    X, Y = make_problem(rng, p)
    folds = gapped_folds()
    Y[folds[3].outer.train, 0] = value
    result = cv.nested(X, Y, folds, ALPHAS)
    # The prediction is a constant: what varies in it is the rounding of the mean.
    assert np.isnan(result.r[3, 0])
    assert np.isfinite(result.r[3, 1:]).all()


@pytest.mark.parametrize("p", [10, 90])
def test_constant_features_have_no_correlation_and_score_as_the_mean(rng, p):
    _, Y = make_problem(rng)
    folds = gapped_folds()
    result = cv.nested(np.full((N, p), 0.1), Y, folds, ALPHAS)
    assert np.isnan(result.r).all()
    assert np.isfinite(result.r2).all()
    np.testing.assert_array_equal(result.inner_r2, 0)
    np.testing.assert_array_equal(result.num_constant, p)


def test_ties_go_to_the_larger_penalty(rng):
    X, Y = make_problem(rng)
    Y[:, 0] = 2.5
    of_constant_target = cv.nested(X, Y, gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(of_constant_target.alphas[:, 0], ALPHAS[-1])
    of_constant_features = cv.nested(np.ones((N, 10)), Y, gapped_folds(), ALPHAS)
    np.testing.assert_array_equal(of_constant_features.alphas, ALPHAS[-1])


def test_rows_must_agree(rng, unchecked):
    X, Y = make_problem(rng)
    with pytest.raises(ValueError, match="one row per sample of X: X has 60, Y has 59"):
        cv.nested(X, Y[1:], gapped_folds(), ALPHAS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_features_and_targets_must_be_finite(rng, which, value):
    problem = make_problem(rng)
    problem[which][7, 3] = value
    with pytest.raises(ValueError, match="X and Y must be finite"):
        cv.nested(*problem, gapped_folds(), ALPHAS)


@pytest.mark.parametrize("alphas", [[], [0.0, 1.0], [1.0, -1.0], [1.0, np.nan]])
def test_penalties_must_be_positive(rng, alphas):
    with pytest.raises(ValueError, match="alphas must be positive"):
        cv.nested(*make_problem(rng), gapped_folds(), np.array(alphas))


@st.composite
def series(draw):
    """Draw runs, perhaps groups, a number of folds and a gap that leave enough samples."""
    lengths = draw(st.lists(st.integers(1, 25), min_size=1, max_size=4))
    runs = [f"run{i}" for i, length in enumerate(lengths) for _ in range(length)]
    groups = None
    if draw(st.booleans()):
        starts = draw(st.lists(st.booleans(), min_size=len(runs), max_size=len(runs)))
        groups = np.cumsum(starts).tolist()
    return runs, groups, draw(st.integers(3, 6)), draw(st.integers(0, 4))


@settings
@hypothesis.given(series())
def test_folds_keep_the_books(problem):
    runs, groups, num_folds, gap = problem
    try:
        folds = cv.contiguous_folds(runs, num_folds, gap=gap, groups=groups)
    except ValueError as error:
        # Whether a refusal is due is another test's question.
        hypothesis.assume("must leave samples" not in str(error))
        raise
    place = np.arange(len(runs))
    labels = np.array(runs)
    near = (np.abs(place[:, None] - place) <= gap) & (labels[:, None] == labels)

    def allowed(*blocks):
        tested = np.concatenate(blocks)
        return np.setdiff1d(np.flatnonzero(~near[:, tested].any(axis=1)), tested)

    blocks = [fold.outer.test for fold in folds]
    np.testing.assert_array_equal(np.concatenate(blocks), place)
    assert all(len(block) for block in blocks)
    for i, fold in enumerate(folds):
        np.testing.assert_array_equal(fold.outer.train, allowed(blocks[i]))
        others = [j for j in range(num_folds) if j != i]
        for j, split in zip(others, fold.inner, strict=True):
            np.testing.assert_array_equal(split.test, blocks[j])
            np.testing.assert_array_equal(split.train, allowed(blocks[i], blocks[j]))
    if groups is None:
        assert max(map(len, blocks)) - min(map(len, blocks)) <= 1
    else:
        fold_of = np.repeat(range(num_folds), [len(block) for block in blocks])
        assert len(set(zip(groups, fold_of.tolist(), strict=True))) == len(set(groups))


@settings
@hypothesis.given(st.integers(1, 40), st.integers(3, 8), st.integers(0, 8))
def test_folds_are_refused_only_where_samples_are_missing(n, num_folds, gap):
    # Borders nearest to equal cuts, the lower of two equally near.
    edges = np.ceil(np.arange(num_folds + 1) * n / num_folds - 0.5).astype(int).tolist()
    reach = [set(range(a - gap, b + gap)) for a, b in itertools.pairwise(edges)]
    fewest = min(len(set(range(n)) - a - b) for a, b in itertools.combinations(reach, 2))
    try:
        cv.contiguous_folds(["a"] * n, num_folds, gap=gap)
    except ValueError:
        assert n < num_folds or fewest < 2
    else:
        assert n >= num_folds and fewest >= 2


def test_a_gap_trims_the_same_run_only():
    runs = ["a"] * 10 + ["b"] * 10 + ["c"] * 10
    folds = cv.contiguous_folds(runs, 3, gap=4)
    # The blocks are the runs: nothing is trimmed at their borders.
    np.testing.assert_array_equal(folds[1].outer.train, np.r_[0:10, 20:30])
    one_run = cv.contiguous_folds(["a"] * 30, 3, gap=4)
    np.testing.assert_array_equal(one_run[1].outer.train, np.r_[0:6, 24:30])
    np.testing.assert_array_equal(one_run[0].inner[0].train, np.r_[24:30])


def test_blocks_end_at_the_nearest_border_of_groups():
    groups = list("aaaabbbbbccccccdddd")
    folds = cv.contiguous_folds(["r"] * len(groups), 3, gap=0, groups=groups)
    assert ["".join(dict.fromkeys(groups[i] for i in fold.outer.test)) for fold in folds] == [
        "a",
        "bc",
        "d",
    ]


def test_the_hash_of_folds_changes_with_any_split():
    folds = gapped_folds()
    hashes = {cv.folds_hash(folds), cv.folds_hash(folds[::-1]), cv.folds_hash(folds[1:])}
    first = folds[0]
    swapped = cv.Split(first.outer.test, first.outer.train)
    hashes.add(cv.folds_hash([first._replace(outer=swapped), *folds[1:]]))
    hashes.add(cv.folds_hash([first._replace(inner=first.inner[1:]), *folds[1:]]))
    moved = cv.Split(first.inner[0].train[1:], first.inner[0].test)
    hashes.add(cv.folds_hash([first._replace(inner=(moved, *first.inner[1:])), *folds[1:]]))
    hashes.add(cv.folds_hash(cv.contiguous_folds(["a"] * 23 + ["b"] * 37, 5, gap=2)))
    assert len(hashes) == 7
    assert all(len(text) == 12 and int(text, 16) >= 0 for text in hashes)


def test_the_hash_of_folds_is_of_their_values():
    folds = gapped_folds()
    narrow = [
        cv.Fold(
            *(
                cv.Split(*(indices.astype(np.int32) for indices in fold.outer)),
                tuple(cv.Split(*(a.astype(np.int32) for a in split)) for split in fold.inner),
            )
        )
        for fold in folds
    ]
    assert cv.folds_hash(narrow) == cv.folds_hash(folds)


@pytest.mark.parametrize(
    "n, num_folds, gap, groups, message",
    [
        (20, 2, 0, None, "num_folds must be >= 3, got 2"),
        (20, 4, -1, None, "gap must be >= 0, got -1"),
        (4, 5, 0, None, r"num_folds must leave samples for every block: 5 blocks of 4 samples\."),
        (20, 3, 0, ["a"] * 10 + ["b"] * 10, r"3 blocks of 20 samples in 2 groups\."),
        (9, 3, 3, None, "gap must leave samples to train on: 3 leaves 0 of 9 with 3 blocks"),
        (6, 3, 0, list("aabbaa"), "Samples of one group must be adjacent"),
    ],
)
def test_impossible_folds_are_refused(n, num_folds, gap, groups, message):
    with pytest.raises(ValueError, match=message):
        cv.contiguous_folds(["a"] * n, num_folds, gap=gap, groups=groups)


def test_what_a_test_block_presents_is_not_trained_on():
    items = ["a", "b", "c", "d", "e", "f", "a", "x", "y"]
    folds = cv.contiguous_folds(["r"] * 9, 3, gap=0, items=items)
    for fold in folds:
        for split in (fold.outer, *fold.inner):
            tested = {items[i] for i in split.test}
            assert not tested & {items[i] for i in split.train}
    assert folds[0].outer.train.tolist() == [3, 4, 5, 7, 8]


def test_samples_of_a_run_must_be_adjacent():
    with pytest.raises(ValueError, match="Samples of one run must be adjacent"):
        cv.contiguous_folds(["a", "b", "a", "b", "a", "a"], 3, gap=0)


def test_every_group_may_be_a_block():
    folds = cv.contiguous_folds(["r"] * 14, 3, gap=0, groups=[*"xxxxxxxxxxyyzz"])
    assert [fold.outer.test.tolist() for fold in folds] == [list(range(10)), [10, 11], [12, 13]]
