import numpy as np
import pytest
from scipy import signal, stats
from scipy.spatial import distance as scipy_distance

from jaxalign.core import similarity
from jaxalign.core.inference import orders as orders_lib
from jaxalign.core.inference.stats import compare

SHAPES = [(30, 8, 5), (20, 200, 3), (12, 12, 1), (200, 5, 90), (5, 300, 300)]


def cka_oracle(X, Y):
    """Kornblith's CKA and the unbiased criterion of Song et al., term by term."""
    n = len(X)
    H = np.eye(n) - 1 / n
    K, L = X @ X.T, Y @ Y.T

    def biased(A, B):
        return np.trace(H @ A @ H @ H @ B @ H)

    def unbiased(A, B):
        A, B = A - np.diag(np.diag(A)), B - np.diag(np.diag(B))
        one = np.ones(n)
        return (
            np.trace(A @ B)
            + (one @ A @ one) * (one @ B @ one) / ((n - 1) * (n - 2))
            - 2 / (n - 2) * (one @ A @ B @ one)
        ) / (n * (n - 3))

    return [f(K, L) / np.sqrt(f(K, K) * f(L, L)) for f in (biased, unbiased)]


@pytest.mark.parametrize("n,p,v", SHAPES)
def test_cka_matches_its_definition(rng, n, p, v):
    X = rng.normal(size=(n, p)) + 10
    Y = X[:, :1] + rng.normal(size=(n, v)) - 3
    found = similarity.linear_cka(similarity.centre(X), similarity.centre(Y))
    expected = cka_oracle(X, Y)
    np.testing.assert_allclose(np.ravel(found), expected, atol=1e-5)


def test_groups_of_targets_are_compared_apart(rng):
    X, Y = rng.normal(size=(25, 40)), rng.normal(size=(25, 6))
    groups = ["b", "a", "b", "a", "a", "c"]
    prepared = similarity.centre(Y, groups)
    assert prepared.names == ["b", "a", "c"]
    found = similarity.linear_cka(similarity.centre(X), prepared)
    for i, name in enumerate(prepared.names):
        expected = cka_oracle(X, Y[:, [g == name for g in groups]])
        np.testing.assert_allclose([found.biased[i], found.debiased[i]], expected, atol=1e-5)


def test_targets_in_several_tiles(rng, monkeypatch):
    X, Y = rng.normal(size=(25, 10)), rng.normal(size=(25, 7))
    whole = similarity.linear_cka(similarity.centre(X), similarity.centre(Y))
    monkeypatch.setattr(similarity, "TILE", 3)
    tiled = similarity.linear_cka(similarity.centre(X), similarity.centre(Y))
    np.testing.assert_allclose(np.ravel(tiled), np.ravel(whole), atol=1e-6)


@pytest.mark.parametrize("scale,offset", [(-1, 0), (1e-20, 0), (1e20, 0), (1, 1e4)])
def test_cka_does_not_depend_on_units_or_rotation(rng, scale, offset):
    X, Y = rng.normal(size=(30, 8)), rng.normal(size=(30, 4))
    Y[:, 0] += X[:, 0]
    rotation = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    before = similarity.linear_cka(similarity.centre(X), similarity.centre(Y))
    changed = similarity.centre(scale * X @ rotation + offset)
    after = similarity.linear_cka(changed, similarity.centre(Y))
    np.testing.assert_allclose(np.ravel(after), np.ravel(before), atol=1e-5)


def test_a_set_is_like_itself_and_both_forms_say_so(rng):
    X = similarity.centre(rng.normal(size=(30, 100)))
    np.testing.assert_allclose(np.ravel(similarity.linear_cka(X, X)), 1, atol=1e-6)


def test_many_units_raise_the_biased_form_alone():
    """Independent data: the biased form approaches 1 with units, the debiased stays about 0."""
    rng = np.random.default_rng(0)
    pairs = [similarity.centre(rng.normal(size=(30, 2000))) for _ in range(60)]
    found = [similarity.linear_cka(a, b) for a, b in zip(pairs[::2], pairs[1::2], strict=True)]
    assert np.mean([x.biased for x in found]) > 0.9
    debiased = np.ravel([x.debiased for x in found])
    assert abs(debiased.mean()) < 3 * debiased.std() / np.sqrt(30)
    assert debiased.min() < 0 < debiased.max()


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_cka_with_constants_is_undefined(rng, value):
    X, Y = rng.normal(size=(30, 4)), rng.normal(size=(30, 2))
    Y[:, 1] = value
    found = similarity.linear_cka(similarity.centre(X), similarity.centre(Y, ["a", "b"]))
    np.testing.assert_array_equal(np.isnan(found.biased), [False, True])
    np.testing.assert_array_equal(np.isnan(found.debiased), [False, True])
    constant = similarity.centre(np.full((30, 4), value))
    found = similarity.linear_cka(constant, similarity.centre(Y[:, :1]))
    assert np.isnan(found.biased).all() and np.isnan(found.debiased).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_debiased_cka_takes_four_samples(rng, n):
    X, Y = (similarity.centre(rng.normal(size=(n, 3))) for _ in range(2))
    found = similarity.linear_cka(X, Y)
    assert np.isnan(found.debiased).all()
    assert np.isnan(found.biased).all() == (n == 1)


def test_cka_refuses_what_does_not_match(rng):
    X, Y = similarity.centre(rng.normal(size=(4, 3))), similarity.centre(rng.normal(size=(5, 3)))
    with pytest.raises(ValueError, match="one row per sample of X: 4, got 5"):
        similarity.linear_cka(X, Y)
    with pytest.raises(ValueError, match="X must be one group, got 3"):
        similarity.linear_cka(similarity.centre(rng.normal(size=(5, 3)), [0, 1, 2]), Y)
    with pytest.raises(ValueError, match="values must have columns"):
        similarity.centre(np.empty((4, 0)))
    with pytest.raises(ValueError, match="values must be finite"):
        similarity.centre(np.array([[1.0], [np.nan]]))


@pytest.mark.parametrize("name,scipy_name", [("pearson", "correlation"), ("cosine", "cosine")])
@pytest.mark.parametrize("n,p", [(12, 30), (3, 2), (40, 5)])
def test_rdm_matches_scipy(rng, name, scipy_name, n, p):
    X = rng.normal(size=(n, p)) + 1
    expected = scipy_distance.pdist(X, scipy_name)
    np.testing.assert_allclose(similarity.rdm(X, name), expected, atol=1e-8)


def rsa(X, Y, *, distance="pearson", comparison="spearman"):
    """Correlate two sets' dissimilarities, as the stage does."""
    a, b = (similarity.comparable(similarity.rdm(x, distance), comparison) for x in (X, Y))
    return a @ b if len(a) else np.nan


@pytest.mark.parametrize("distance", similarity.DISTANCES)
@pytest.mark.parametrize("comparison", similarity.COMPARISONS)
def test_rsa_matches_scipy(rng, distance, comparison):
    X = rng.normal(size=(25, 30))
    Y = np.c_[X[:, :4], rng.normal(size=(25, 4))]
    metric = {"pearson": "correlation", "cosine": "cosine"}[distance]
    a, b = (scipy_distance.pdist(x, metric) for x in (X, Y))
    correlate = {"spearman": stats.spearmanr, "pearson": stats.pearsonr}[comparison]
    found = rsa(X, Y, distance=distance, comparison=comparison)
    assert found == pytest.approx(correlate(a, b).statistic, abs=1e-7)


def test_ties_share_their_rank(rng):
    values = rng.integers(5, size=300).astype(float)
    ranks = stats.rankdata(values)
    expected = (ranks - ranks.mean()) / np.linalg.norm(ranks - ranks.mean())
    np.testing.assert_allclose(similarity.standard_ranks(values), expected, atol=1e-12)


@pytest.mark.slow
def test_patterns_that_repeat_make_ties(rng):
    """Four categories of the same pattern each: rounding must not order equal dissimilarities."""
    kinds, n = 4, 40
    labels = rng.integers(kinds, size=n)
    X = rng.normal(size=(kinds, 50))[labels]
    Y = rng.normal(size=(n, 10))
    exact = similarity.rdm(rng.normal(size=(2, 3)), "pearson")
    assert exact.shape == (1,)
    between = np.corrcoef(X[[np.flatnonzero(labels == k)[0] for k in range(kinds)]])
    first, second = np.triu_indices(n, k=1)
    tied = 1 - between[labels[first], labels[second]]
    tied[labels[first] == labels[second]] = 0
    expected = stats.spearmanr(tied, scipy_distance.pdist(Y, "correlation")).statistic
    assert len(np.unique(similarity.rdm(X, "pearson"))) == 1 + kinds * (kinds - 1) // 2
    assert rsa(X, Y) == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("distance", similarity.DISTANCES)
def test_one_target_has_no_rdm(rng, distance):
    assert np.isnan(similarity.rdm(rng.normal(size=(10, 1)), distance)).all()
    X, Y = rng.normal(size=(10, 4)), rng.normal(size=(10, 1))
    assert np.isnan(rsa(X, Y, distance=distance))


@pytest.mark.parametrize("distance,value", [("pearson", 0.1), ("pearson", 0.0), ("cosine", 0.0)])
def test_a_sample_without_a_pattern_leaves_its_pairs_undefined(rng, distance, value):
    X = rng.normal(size=(5, 6))
    X[2] = value
    undefined = np.isnan(similarity.rdm(X, distance))
    first, second = np.triu_indices(5, k=1)
    np.testing.assert_array_equal(undefined, (first == 2) | (second == 2))
    assert np.isnan(rsa(X, rng.normal(size=(5, 6)), distance=distance))


def test_constant_patterns_differ_by_cosine_in_sign_alone():
    X = np.array([[0.1, 0.1], [0.3, 0.3], [-2.0, -2.0]])
    np.testing.assert_allclose(similarity.rdm(X, "cosine"), [0, 2, 2])


@pytest.mark.parametrize("comparison", similarity.COMPARISONS)
@pytest.mark.parametrize("n", [1, 2])
def test_fewer_than_three_samples_have_nothing_to_correlate(rng, comparison, n):
    X, Y = rng.normal(size=(2, n, 4))
    assert np.isnan(rsa(X, Y, comparison=comparison))


@pytest.mark.slow
def test_an_rdm_that_does_not_vary_is_undefined():
    """Orthogonal patterns are all equally far apart."""
    X = np.eye(6)
    assert np.isnan(rsa(X, X, distance="cosine"))


def test_units_of_patterns_do_not_matter(rng):
    X = rng.normal(size=(6, 5))
    for scale in (1e-200, 1e200):
        np.testing.assert_allclose(
            similarity.rdm(scale * X, "cosine"), similarity.rdm(X, "cosine"), atol=1e-8
        )


def test_patterns_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="patterns must be finite"):
        similarity.rdm(np.array([[1.0, np.inf]]), "pearson")


def test_unknown_names_are_refused(rng, unchecked):
    X = rng.normal(size=(5, 3))
    with pytest.raises(ValueError, match="distance must be one of pearson, cosine, got 'l2'"):
        similarity.rdm(X, "l2")
    with pytest.raises(ValueError, match="comparison must be one of spearman, pearson, got 'k'"):
        similarity.comparable(X[0], "k")


@pytest.mark.slow
def test_moved_samples_are_compared_as_if_all_were_computed_anew(rng):
    X, Y = rng.normal(size=(24, 9)) + 1, rng.normal(size=(24, 7))
    groups = [0, 1, 0, 1, 1, 0, 0]
    run = [0] * 10 + [1] * 14
    drawn = orders_lib.draw_shifts(run, num=5, rng=rng)
    orders = orders_lib.shift_orders(run, drawn)
    x, y = similarity.centre(X), similarity.centre(Y, groups)
    found = similarity.cka_in_orders(x, y, similarity.gram_pairs(y), orders)
    anew = [similarity.linear_cka(similarity.centre(X[order]), y) for order in orders]
    np.testing.assert_allclose(found.biased, [a.biased for a in anew], atol=2e-6)
    np.testing.assert_allclose(found.debiased, [a.debiased for a in anew], atol=2e-6)
    rdm = lambda part: similarity.comparable(similarity.rdm(part, "pearson"), "spearman")
    others = np.stack([rdm(Y[:, np.equal(groups, g)]) for g in (0, 1)])
    found = similarity.dots_in_orders(rdm(X), others, orders)
    np.testing.assert_allclose(found, [others @ rdm(X[order]) for order in orders], atol=2e-6)


@pytest.mark.slow
def test_shifts_tell_slow_series_from_related_ones(rng):
    """Independent autoregressions are alike, but no more than shifted ones; p is uniform.

    Bounds are those of 60 binomial draws, to 1e-3 on each side.
    """
    n, repeats = 80, 60
    run = [0] * n
    slow = lambda units: signal.lfilter([1], [1, -0.9], rng.normal(size=(n + 60, units)), axis=0)
    values, p = [], []
    for _ in range(repeats):
        x, y = (similarity.centre(slow(units)[60:]) for units in (12, 6))
        shifts = orders_lib.draw_shifts(run, num=19, rng=rng)
        orders = np.vstack([np.arange(n), orders_lib.shift_orders(run, shifts)])
        cka = similarity.cka_in_orders(x, y, similarity.gram_pairs(y), orders).biased
        values.append(cka[0, 0])
        p.append(compare(cka[0], cka[1:], rounding=1e-6).p[0])
    assert np.mean(values) > 0.4
    for level in (0.1, 0.5):
        low, high = stats.binom.ppf([1e-3, 1 - 1e-3], repeats, level)
        assert low <= (np.array(p) <= level + 1e-9).sum() <= high
