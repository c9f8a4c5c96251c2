"""How well the other subjects of a subset predict each subject, in subsets of all sizes.

The others' targets, as features, predict those of the subject left out, through the metric that
models are scored with. Of 10 subjects and 10 splits that makes 51,100 regressions, but only 1,022
different pools of predictors. The kernel of a pool is the sum of its subjects' kernels, one
factorisation for each split serves every subject outside the pool, and what it leaves is one matrix
from responses to predictions, applied to all targets at once.
"""

import functools
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.linalg import get_lapack_funcs

from jaxalign.core import features, metrics
from jaxalign.core.folds import Fold, Split
from jaxalign.core.solver import cv, ridge
from jaxalign.core.solver.method import Execution, Method
from jaxalign.core.solver.problem import each

# All subsets of more subjects than this would take days: a sample of them is to be asked for.
MAX_SUBSETS = 2**16
# Bytes of the matrices of pools that wait to be applied.
CHUNK_BYTES = 2**28
# A Cholesky factorisation takes a sixth of the time of an eigenproblem. It is trusted to this
# condition (reciprocal, in the 1-norm), up to which there are no directions to be dropped.
WELL_CONDITIONED = 1e-9
_potrf, _pocon, _potrs = get_lapack_funcs(("potrf", "pocon", "potrs"), dtype=np.float64)


class SubsetScores(NamedTuple):
    """Scores of each subject's targets in the subsets that hold the subject."""

    r: tuple[Float[np.ndarray, "_ k _"], ...]  # [its subsets, k, its targets]; NaN where undefined
    subsets: Bool[np.ndarray, "c s"]  # members of each subset
    columns: tuple[Int[np.ndarray, " _"], ...]  # of each subject in the responses
    subjects: tuple  # their labels


def score(
    Y: Float[np.ndarray, "n v"],
    subjects: features.Labels,
    splits: Sequence[Split],
    *,
    alphas: Sequence[float] = (0.0,),
    chosen: Bool[np.ndarray, "c s"] | None = None,
    progress: Callable[[Sequence], Iterable] = iter,
) -> SubsetScores:
    """Predict each subject from the others, in subsets of 2 subjects, of 3, and so on.

    Held-out Pearson r of a linear regression with intercept whose features are the targets of the
    subset's other subjects, as they are (neither scaled nor reduced).

    Args:
      Y: responses of all subjects to the same samples, without NaN.
      subjects: subject of each column; subjects may differ in number of targets.
      splits: training and test samples.
      alphas: a single penalty (0: least squares, of minimum norm where there are more features
        than samples), or several, of which each training set chooses one for all targets of a
        subject by leaving out single samples.
      chosen: members of each subset, from `members_of` or `balanced_members`; None: every subset.
      progress: wraps the list of chunks of pools, `tqdm.tqdm` for instance.

    Raises:
      ValueError: with fewer than 3 subjects, NaN, shapes or splits that do not fit, a negative
        penalty, or more subsets than can be gone through.

    Source: Schrimpf et al. (2021), PNAS 118(45), Methods, on the estimation of the ceiling.
    """
    Y = _checked(Y, subjects, splits, alphas)
    columns = tuple(features.members(subjects).values())
    if len(alphas) == 1:
        predictors = _shared(Y, columns, splits, float(alphas[0]))
    else:
        regress = _choose_penalty(Y, columns, splits, np.asarray(alphas, float))
        predictors = _given(regress, columns)
    most = max(len(split.test) for split in splits)
    size = max(1, CHUNK_BYTES // (4 * len(splits) * most * len(Y)))
    run = lambda pools: progress([pools[a : a + size] for a in range(0, len(pools), size)])
    return _collect(predictors, subjects, len(splits), chosen, run)


def score_by(
    regress: Callable[[Int[np.ndarray, " p"]], Float[np.ndarray, "k v"]],
    subjects: features.Labels,
    num_splits: int,
    *,
    chosen: Bool[np.ndarray, "c s"] | None = None,
) -> SubsetScores:
    """Do what `score` does, by another regression.

    Args:
      regress: from the columns of the targets that predict to the scores of all targets on each
        split.
      subjects: subject of each column.
      num_splits: k.
      chosen: see `score`.

    Raises:
      ValueError: with fewer than 3 subjects, or more subsets than can be gone through.
    """
    predictors = _given(regress, features.members(subjects).values())
    return _collect(
        predictors, subjects, num_splits, chosen, lambda pools: [[pool] for pool in pools]
    )


def _collect(predictors, subjects, num_splits, chosen, chunks) -> SubsetScores:
    """Score each subject by each pool of others that, with the subject, is a subset."""
    members = features.members(subjects)
    columns = tuple(members.values())
    if chosen is None:
        chosen = members_of(len(columns))
    elif chosen.shape[1:] != (len(columns),) or not len(chosen) or chosen.sum(axis=1).min() < 2:
        raise ValueError(
            f"chosen must hold subsets of at least 2 of {len(columns)} subjects, got shape "
            f"{chosen.shape}."
        )
    row = chosen.cumsum(axis=0) - 1  # of each subset, among those that hold a subject
    uses = defaultdict(list)  # (subject, row) that each pool predicts
    for c, subset in enumerate(chosen):
        held = np.flatnonzero(subset)
        for subject in held.tolist():
            uses[tuple(held[held != subject].tolist())].append((subject, row[c, subject]))
    r = [
        np.full((chosen[:, i].sum(), num_splits, len(held)), np.nan, np.float32)
        for i, held in enumerate(columns)
    ]
    for chunk in chunks(list(uses)):
        found = []
        for pool, predict in zip(chunk, predictors(chunk), strict=True):
            # Nothing is fetched from the device until all of the chunk is on its way.
            found += [(subject, place, predict(subject)) for subject, place in uses[pool]]
        for subject, place, scores in found:
            r[subject][place] = np.asarray(scores)
    return SubsetScores(tuple(r), chosen, columns, tuple(members))


def members_of(
    num_subjects: int, *, max_subsets: int | None = None, rng: np.random.Generator | None = None
) -> Bool[np.ndarray, "c s"]:
    """Return the members of each subset of at least 2 subjects, or of a sample of them.

    They are ordered by size, and within a size as `itertools.combinations` has them.

    Args:
      num_subjects: at least 3, since a curve needs two sizes.
      max_subsets: different ones to draw of each size, if there are more; None: all.
      rng: draws them.

    Raises:
      ValueError: with fewer than 3 subjects, a sample without `rng`, or too many subsets.
    """
    s = num_subjects
    if s < 3:
        raise ValueError(f"An extrapolation over subjects needs at least 3, got {s}.")
    if max_subsets is not None and max_subsets < 1:
        raise ValueError(f"max_subsets must be >= 1, got {max_subsets}.")
    if max_subsets is not None and rng is None:
        raise ValueError("rng must be given with max_subsets, to draw the subsets.")
    counts = {k: math.comb(s, k) for k in range(2, s + 1)}
    total = sum(min(count, max_subsets or count) for count in counts.values())
    if total > MAX_SUBSETS:
        raise ValueError(
            f"max_subsets must keep the subsets to {MAX_SUBSETS}: {s} subjects have {total}."
        )
    rows = []
    for k, count in counts.items():
        if max_subsets is None or rng is None or count <= max_subsets:
            found = list(itertools.combinations(range(s), k))
        else:
            drawn = set()
            while len(drawn) < max_subsets:
                drawn.add(tuple(sorted(rng.choice(s, k, replace=False).tolist())))
            found = sorted(drawn)
        rows += [np.isin(np.arange(s), subset) for subset in found]
    return np.array(rows)


def balanced_members(
    num_subjects: int, *, per_subject: int, num_sizes: int, rng: np.random.Generator
) -> Bool[np.ndarray, "c s"]:
    """Return subsets in which all subjects take part about equally often, at sizes from 2 to all.

    A sample of the subsets of two out of many subjects would leave most subjects without any. Here
    subjects are put in a random order and cut into subsets, again and again, until each is in
    `per_subject` of them; where the size does not divide the number of subjects, the last subset
    takes its rest from the first ones. A size with fewer subsets than that has all of them.

    Args:
      num_subjects: at least 3.
      per_subject: subsets of each size that each subject is in, at least.
      num_sizes: sizes, spread evenly on a logarithmic scale; all where there are no more.
      rng: draws the orders.

    Raises:
      ValueError: with fewer than 3 subjects, or numbers below 1 (below 2, of sizes).
    """
    s = num_subjects
    if s < 3:
        raise ValueError(f"An extrapolation over subjects needs at least 3, got {s}.")
    if per_subject < 1 or num_sizes < 2:
        raise ValueError(
            f"per_subject must be >= 1 and num_sizes >= 2, got {per_subject} and {num_sizes}."
        )
    rows = []
    for k in spread_sizes(s, num_sizes):
        if math.comb(s - 1, k - 1) <= per_subject:
            subsets = itertools.combinations(range(s), k)
        else:
            drawn = set()
            times = np.zeros(s, int)
            while times.min() < per_subject:
                order = rng.permutation(s)
                for start in range(0, s, k):
                    subset = tuple(sorted(order[np.arange(start, start + k) % s].tolist()))
                    if subset not in drawn:
                        drawn.add(subset)
                        times[list(subset)] += 1
            subsets = sorted(drawn)
        rows += [np.isin(np.arange(s), subset) for subset in subsets]
    return np.array(rows)


def spread_sizes(num_subjects: int, num_sizes: int) -> list[int]:
    """Return sizes of subsets from 2 to all, evenly on a logarithmic scale; all if no more.

    Args:
      num_subjects: the largest.
      num_sizes: how many, at most.
    """
    if num_sizes >= num_subjects - 1:
        return list(range(2, num_subjects + 1))
    spread = np.geomspace(2, num_subjects, num_sizes).round().astype(int)
    return sorted(set(spread.tolist()))


def _checked(Y, subjects, splits, alphas):
    n, v = Y.shape
    if len(subjects) != v:
        raise ValueError(f"subjects must have one label per column of Y: {v}, got {len(subjects)}.")
    if not np.isfinite(Y).all():
        raise ValueError("Y must be finite: it holds NaN or infinity.")
    if not splits:
        raise ValueError("splits must hold at least one split, got none.")
    for number, split in enumerate(splits):
        if len(split.train) < 2 or len(split.test) < 2:
            raise ValueError(
                f"Split {number} must train and test on at least 2 samples, got "
                f"{len(split.train)} and {len(split.test)}."
            )
        if len(np.unique(split.train)) < len(split.train):
            raise ValueError(f"Split {number} must not train on a sample more than once.")
        indices = np.concatenate(split)
        if indices.min() < 0 or indices.max() >= n:
            raise ValueError(
                f"Split {number} must have indices in 0..{n - 1}, got {indices.min()}.."
                f"{indices.max()}."
            )
    if not len(alphas) or not (np.isfinite(alphas).all() and np.min(alphas) >= 0):
        raise ValueError(f"alphas must be >= 0 and finite, got {list(alphas)}.")
    # A constant target keeps nothing of its level, which would else vary by rounding.
    Y = np.where(metrics.is_constant(Y), 0.0, np.asarray(Y, np.float64))
    return Y - Y.mean(axis=0)


def _given(regress, columns):
    """Return what scores the pools of a chunk, pool by pool, by a regression of all targets."""
    columns = tuple(columns)

    def predictors(chunk):
        for pool in chunk:
            r = regress(np.concatenate([columns[i] for i in pool]))
            yield lambda i, r=r: r[:, columns[i]]

    return predictors


def _shared(Y, columns, splits, alpha):
    """Return what scores the pools of a chunk, with one matrix per pool and split for all."""
    n = len(Y)
    peak = np.abs(Y).max(axis=0)
    # A correlation has no unit, and float32 a range.
    unit = (Y / np.where(peak > 0, peak, 1.0)).astype(np.float32)
    held_out = [jax.device_put(unit[:, held]) for held in columns]
    most = max(len(split.test) for split in splits)
    tests = np.zeros((len(splits), most), np.int32)
    weight = np.zeros((len(splits), most), np.float32)
    for number, split in enumerate(splits):
        tests[number, : len(split.test)] = split.test
        weight[number, : len(split.test)] = 1
    tests, weight = jax.device_put(tests), jax.device_put(weight)
    kernel = functools.cache(lambda subject: Y[:, columns[subject]] @ Y[:, columns[subject]].T)

    def smoothers(pool):
        features_of = np.concatenate([columns[subject] for subject in pool])
        dual = len(features_of) >= min(len(split.train) for split in splits)
        if dual:
            smoother = functools.partial(_dual, sum(map(kernel, pool)))
        else:
            smoother = functools.partial(_primal, Y[:, features_of])
        M = np.zeros((len(splits), most, n), np.float32)
        for number, split in enumerate(splits):
            part = smoother(split, alpha)
            M[number, : len(split.test), split.train] = part.T
        return M

    def predictors(chunk):
        for M in each(smoothers, chunk):
            M = jax.device_put(M)
            yield lambda subject, M=M: _held_out_r(M, held_out[subject], tests, weight)

    return predictors


@jax.jit
@jax.default_matmul_precision("highest")
def _held_out_r(
    M: Float[Array, "k T n"],
    Y: Float[Array, "n v"],
    tests: Int[Array, "k T"],
    weight: Float[Array, "k T"],
) -> Float[Array, "k v"]:
    # Columns of M for samples that are not trained on are 0, so that one product does it.
    predicted = (M.reshape(-1, M.shape[-1]) @ Y).reshape(*tests.shape, -1)
    return jax.vmap(metrics.pearson_r)(predicted, Y[tests], weight)


def _primal(X, split, alpha):
    """Return what takes training responses to the predictions of the test samples [T R]."""
    rows, center = X[split.train], X[split.train].mean(axis=0)
    Z, Z_test = rows - center, X[split.test] - center
    gram = Z.T @ Z
    if _is_rounding(np.trace(gram), (rows**2).sum()):
        return np.zeros((len(Z_test), len(Z)))
    return Z_test @ _solve(gram, Z.T, alpha)


def _dual(kernel, split, alpha):
    """Do what `_primal` does, from the kernel of all samples."""
    train, test = split
    products = kernel[train[:, None], train]
    mean = products.mean(axis=0)
    gram = products - mean - (mean - mean.mean())[:, None]
    cross = kernel[test[:, None], train] - mean
    cross -= cross.mean(axis=1, keepdims=True)
    spread = np.trace(gram)
    if _is_rounding(spread, np.trace(products)):
        return np.zeros(cross.shape)
    # Centred rows have no component along the constant direction: whatever eigenvalue it is given
    # (the mean of the others) leaves the solution as it is, and makes the matrix regular.
    gram += spread / (len(train) - 1) / len(train)
    return _solve(gram, cross.T, alpha).T


def _is_rounding(spread, level):
    """Whether features that are constant over a training set leave nothing to predict from."""
    return spread <= metrics.CONSTANT_TOLERANCE**2 * level


def _solve(gram, right, alpha):
    """Solve (gram + alpha I) S = right; of minimum norm where directions are below the cutoff."""
    penalised = gram + alpha * np.eye(len(gram))
    L, failed = _potrf(penalised, lower=1)
    if not failed:
        norm = np.abs(penalised).sum(axis=0).max()
        condition, _ = _pocon(L, norm, uplo="L")
        # The 1-norm and the 2-norm of a symmetric matrix differ by less than its size.
        if condition > max(WELL_CONDITIONED, len(gram) * ridge.CUTOFF):
            return _potrs(L, right, lower=1)[0]
    spectrum, Q = np.linalg.eigh(gram)
    kept = spectrum > max(ridge.CUTOFF * spectrum[-1], 0.0)
    inverse = np.divide(1.0, spectrum + alpha, out=np.zeros_like(spectrum), where=kept)
    return (Q * inverse) @ (Q.T @ right)


def _choose_penalty(Y, columns, splits, alphas):
    """Return a regression of all targets, whose penalty each training set and subject chooses."""
    folds = tuple(Fold(split, ()) for split in splits)
    subject = np.empty(Y.shape[1], int)
    for i, held in enumerate(columns):
        subject[held] = i
    targets = Y.astype(np.float32)
    least = min(len(split.train) for split in splits)
    method = Method(alphas, standardize=False, scheme="loo", pool=subject)

    def regress(pool):
        # The pool's own targets are predicted too, in vain: arrays of one shape for all pools are
        # compiled once. So they are in the dual form, whatever the number of features.
        form = "dual" if len(pool) >= least / 2 else "auto"
        return cv.nested(Y[:, pool], targets, folds, method, execution=Execution(form=form)).r

    return regress
