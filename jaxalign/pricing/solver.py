"""Arithmetic and memory of a cross-validated ridge, by the form in which it is solved.

The formulas follow `core/solver`: what is factorised is in float64, on one device; what is done for
each target in float32, on all.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

from jaxalign.core.folds import Split
from jaxalign.core.solver import columns, ridge
from jaxalign.core.solver import sets as sets_lib
from jaxalign.core.solver.outline import (
    CPU_TILE,
    EXPECTED_FUNCTIONS,
    EXPECTED_PENALTIES,
    TILE,
    Outline,
)
from jaxalign.core.solver.problem import workers
from jaxalign.core.solver.search import HISTORY
from jaxalign.core.solver.squares import FEWEST_PAIRS
from jaxalign.pricing.work import LANES, Layout, Work

# Programs that are compiled for one shape of problem; the last two on accelerators alone.
PROGRAMS = ("normalize", "choose", "best", "score")
FACTORISATIONS = ("inner", "outer")
# Of what a TPU computes for one fold, so much stays in the memory of its units: half of a v5e's.
ON_CHIP = 64 * 2.0**20


class _Sets(NamedTuple):
    """Training sets that are factorised together, and the test sets that they predict."""

    num: int  # training sets
    tests: int  # test sets
    R: int  # samples of the longest training set
    T: int  # of the longest test set
    form: str

    def directions(self, p: int) -> int:
        return self.R if self.form == "dual" else p


def nested(outline: Outline, layout: Layout, tried: float = EXPECTED_PENALTIES) -> Work:
    """Return the work of `cv.nested` on the features of one layer.

    Args:
      outline: its sizes; `execution.mesh` is replaced by the layout's.
      layout: of the devices.
      tried: penalties for each target and fold by the adaptive search; `Nested.num_computed` has
        what it was.
    """
    outline = _on(outline, layout)
    calls = _calls(outline)
    number = -(-outline.num_targets // outline.tile)
    factor = eigen = 0.0
    if outline.form == "sums":
        factor, eigen = _statistics(outline)
    elif any(x.form == "dual" for x in calls) and not outline.method.standardize:
        factor = 2.0 * outline.num_samples**2 * outline.num_features
    for one in calls:
        products, problems = _factorised(outline, one)
        factor, eigen = factor + products, eigen + problems
    sweep = _score(outline, calls[-1])
    if outline.form == "sums":  # products of targets with features
        sweep += 2.0 * outline.num_samples * outline.num_features
    if len(calls) > 1:
        pooled = outline.method.pool is not None
        if outline.method.scheme != "folds":
            sweep += _in_sample(outline, calls[0])
        elif outline.at_once:
            sweep += _at_once(outline, calls[0])
        elif outline.is_adaptive and not pooled:
            sweep += _adaptive(outline, calls[0], tried)
        else:
            sweep += _grid(outline, calls[0])
    device, host = _bytes(outline, calls, layout)
    k, v, method = len(outline.folds), outline.num_targets, outline.method
    sizes = (outline.num_samples, outline.num_features, outline.tile, k, len(method.alphas))
    return Work(
        flop={"sweep": number * outline.tile * sweep, "factor": factor, "eigen": eigen},
        device_bytes=device,
        host_bytes=host,
        disk_bytes=7.0 * k * v * 8 + 24 * k + 3000,
        fits=1,
        programs=frozenset(
            ("solver", name, calls, sizes, layout, method.criterion, method.scheme)
            for name in PROGRAMS + FACTORISATIONS * (not layout.is_cpu)
        ),
    )


def scores(outline: Outline, layout: Layout) -> float:
    """Return what of the sweep's operations goes into held-out scores; see `nested`."""
    outline = _on(outline, layout)
    number = -(-outline.num_targets // outline.tile)
    return number * outline.tile * _score(outline, _calls(outline)[-1])


def _on(outline: Outline, layout: Layout) -> Outline:
    execution = outline.execution._replace(
        mesh=layout.mesh if layout.size > 1 else None,
        tile=outline.execution.tile or (CPU_TILE if layout.is_cpu else TILE),
    )
    return dataclasses.replace(outline, execution=execution)


def _calls(outline: Outline) -> tuple[_Sets, ...]:
    """Return the inner training sets, if there are any, and the outer ones."""
    inner, outer = _inner(outline), [[fold.outer] for fold in outline.folds]
    return tuple(_sets(outline, x) for x in (inner, outer) if x)


def _inner(outline: Outline) -> list[list[Split]]:
    """Return the test sets of each inner training set, as `Problem.inner` groups them."""
    if outline.method.scheme != "folds":
        return [[Split(fold.outer.train, fold.outer.train)] for fold in outline.folds]
    found: dict[bytes, list[Split]] = {}
    for fold in outline.folds:
        for split in fold.inner:
            found.setdefault(split.train.tobytes(), []).append(split)
    return list(found.values())


def _sets(outline: Outline, groups: list[list[Split]]) -> _Sets:
    R = max(len(x[0].train) for x in groups)
    T = max(len(split.test) for x in groups for split in x)
    form = outline.form
    if form == "auto":
        shared = not outline.method.standardize and len(groups) > 1
        form = ridge.choose_form(R, outline.num_features, shared=shared)
    return _Sets(len(groups), sum(map(len, groups)), R, T, form)


def _statistics(outline: Outline) -> tuple[float, float]:
    n, p = outline.num_samples, outline.num_features
    return 4.0 * n * p**2, float(ridge.EIGENPROBLEM * p**3)


def _factorised(outline: Outline, sets: _Sets) -> tuple[float, float]:
    """Return products, and eigenproblems, of factorising some training sets."""
    p, R, T = outline.num_features, sets.R, sets.T
    size = p if sets.form != "dual" else R
    eigen = float(sets.num * ridge.EIGENPROBLEM * size**3)
    if sets.form == "sums":
        return 2.0 * sets.num * p**3 + 4.0 * sets.tests * p**3, eigen
    products = 2.0 * sets.tests * T * size**2
    if sets.form == "primal":
        products += 4.0 * sets.num * R * p**2
    elif outline.method.standardize:
        products += 2.0 * sets.num * R**2 * p + 2.0 * sets.tests * T * R * p
    return products, eigen


# Of one target from here on.


def _trained(outline: Outline, sets: _Sets) -> float:
    p = outline.num_features
    if sets.form == "sums":
        blocks = len(outline.blocks)
        return sets.num * (4.0 * blocks * p + 2.0 * p**2)
    return 2.0 * sets.num * sets.R * sets.directions(p)


def _projected(outline: Outline, sets: _Sets) -> float:
    """Return products of the responses of one test set with its loadings."""
    p = outline.num_features
    if sets.form == "sums":
        return 4.0 * len(outline.blocks) * p + 2.0 * p**2
    return 2.0 * sets.T * sets.directions(p)


def _predicted(outline: Outline, sets: _Sets) -> float:
    """Return products for the predictions of one test set."""
    p = outline.num_features
    return 2.0 * p**2 if sets.form == "sums" else 2.0 * sets.T * sets.directions(p)


def _observed(outline: Outline, sets: _Sets, num_alphas: int) -> float:
    r = sets.directions(outline.num_features)
    return _projected(outline, sets) + 4.0 * r * num_alphas


def _adaptive(outline: Outline, sets: _Sets, tried: float) -> float:
    a, r = len(outline.method.alphas), sets.directions(outline.num_features)
    one = _predicted(outline, sets) + 2.0 * r * a
    if sets.form != "sums":  # products with the predictions of every penalty take one more
        one += _predicted(outline, sets)
    nothing = _projected(outline, sets) if sets.form == "sums" else 0.0
    each = _observed(outline, sets, a) + tried * one + nothing
    return _trained(outline, sets) + sets.tests * each


def _at_once(outline: Outline, sets: _Sets) -> float:
    a, r = len(outline.method.alphas), sets.directions(outline.num_features)
    each = _observed(outline, sets, a) + 2.0 * r**2 + 2.0 * r * a
    each += 2.0 * a * FEWEST_PAIRS  # of directions that are close
    each += 2.0 * (a + 1) * len(outline.folds)  # averages over test sets
    if sets.form == "sums":
        each += _projected(outline, sets)  # of nothing
    if outline.method.criterion == "relative_error":
        each += _observed(outline, sets, 1)
    return _trained(outline, sets) + sets.tests * each


def _grid(outline: Outline, sets: _Sets) -> float:
    a, criterion = len(outline.method.alphas), outline.method.criterion
    m = min(a, EXPECTED_FUNCTIONS)
    length = outline.num_features if sets.form == "sums" else sets.T
    each = m * _predicted(outline, sets) + 2.0 * a * m * length
    if sets.form == "sums":
        each += _projected(outline, sets)  # of nothing
        if criterion != "correlation":
            each += _projected(outline, sets) + 2.0 * a * outline.num_features
    if criterion == "correlation" or sets.form != "sums":
        each += _observed(outline, sets, a)
    if criterion == "relative_error":
        each += _observed(outline, sets, 1)
    return _trained(outline, sets) + sets.tests * each


def _in_sample(outline: Outline, sets: _Sets) -> float:
    r, a = sets.directions(outline.num_features), len(outline.method.alphas)
    return _trained(outline, sets) + sets.num * 2.0 * sets.R * r * (a + 2)


def _score(outline: Outline, sets: _Sets) -> float:
    each = _predicted(outline, sets)
    if sets.form == "sums":
        each += _projected(outline, sets)
    return _trained(outline, sets) + sets.tests * each


def _bytes(outline: Outline, calls: Sequence[_Sets], layout: Layout) -> tuple[float, float]:
    """Return the peak memory of a device, and what the host holds beside it."""
    n, p = outline.num_samples, outline.num_features
    held = sum(4.0 * _design(x, p) for x in calls)
    if outline.at_once:  # the Gram matrices of test sets, over differences of eigenvalues
        held += 4.0 * calls[0].tests * calls[0].directions(p) ** 2
    sweep = held + max(_program_bytes(outline, calls, layout))
    features, device_features = _feature_bytes(outline, calls)
    one = max(_factorisation_bytes(outline, x) for x in calls)
    targets = 16.0 * n * outline.num_targets
    if layout.is_cpu:
        largest = max(x.directions(p) for x in calls)
        at_a_time = min(workers(largest), max(x.num for x in calls))
        return sweep, features + device_features + at_a_time * one + targets
    return max(sweep, held + device_features + one), features + targets


def _feature_bytes(outline: Outline, calls: Sequence[_Sets]) -> tuple[float, float]:
    """Return what features take as they are given and read, and where they are factorised."""
    n, p = outline.num_samples, outline.num_features
    given, block = 8.0 * n * p, 8.0 * min(n * p, columns.BLOCK)
    if outline.form == "sums":
        return given, 16.0 * n * p + 24.0 * (len(outline.blocks) + 1) * p * p
    whole = max(block, max(8.0 * n * p * (x.form == "primal") for x in calls))
    kernel = 16.0 * n * n * (not outline.method.standardize)
    return given + block, whole + kernel * any(x.form == "dual" for x in calls)


def _factorisation_bytes(outline: Outline, sets: _Sets) -> float:
    """Return what the factorisation of one training set takes beside features."""
    n, p, r = outline.num_samples, outline.num_features, sets.directions(outline.num_features)
    directions = 8.0 * 4 * r**2
    if sets.form != "dual":
        return directions + 16.0 * sets.R * p
    if not outline.method.standardize:
        return directions + 8.0 * sets.R * n
    return directions + 16.0 * sets.R * min(p, max(columns.BLOCK // n, 1))


def _program_bytes(outline: Outline, calls: Sequence[_Sets], layout: Layout) -> list[float]:
    """Return the peak memory of the sweep over each kind of training sets, without designs."""
    n, p, a = outline.num_samples, outline.num_features, len(outline.method.alphas)
    w, k = outline.tile // outline.num_devices, len(outline.folds)
    blocks = len(outline.blocks) if outline.form == "sums" else 0
    values = 4.0 * n * w + 4.0 * blocks * p * w
    found = []
    for i, one in enumerate(calls):
        rotated = 4.0 * one.num * w * one.directions(p)
        if i == len(calls) - 1:
            inside = 4.0 * w * (3 * one.T + 2 * one.directions(p))
            inside -= min(inside, ON_CHIP) * layout.is_tpu
        elif outline.at_once:
            inside = 4.0 * w * (2 * one.T + 4 * one.directions(p))
            inside -= min(inside, ON_CHIP) * layout.is_tpu
            inside += 4.0 * (one.tests + k) * a * w
        elif outline.is_adaptive:
            # Of each target what is known at every penalty, along the directions so far; a TPU
            # writes over it in its place.
            each, copies = (-(-a // LANES) * LANES, 1) if layout.is_tpu else (a, 2)
            inside = 4.0 * one.tests * w * each * (2 + copies * HISTORY) + 4.0 * k * w * 3 * a
        else:
            piece = min(sets_lib.PIECE, one.T if one.form != "sums" else p)
            m = min(a, EXPECTED_FUNCTIONS)
            inside = 4.0 * w * piece * (2 * a + m) + 4.0 * one.tests * a * w
        found.append(values + rotated + inside)
    return found


def _design(sets: _Sets, p: int) -> float:
    """Return the numbers of all designs."""
    r = sets.directions(p)
    columns = p if sets.form == "sums" else sets.R
    loadings = p * p if sets.form == "sums" else sets.T * r
    return float(sets.num * r * columns + sets.tests * loadings)
