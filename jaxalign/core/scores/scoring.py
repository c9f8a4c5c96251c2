"""Apply a protocol to arrays: its folds, its regression, its summary."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn import model_selection

from jaxalign.core import features, leaks
from jaxalign.core import folds as folds_lib
from jaxalign.core.features import Labels
from jaxalign.core.folds import Fold
from jaxalign.core.inference import permutation
from jaxalign.core.leaks import Leak
from jaxalign.core.metrics import mean_defined
from jaxalign.core.scores import alignment, layers
from jaxalign.core.scores.alignment import (
    AlignmentScore,
    Reference,
    reference,
    summarize,
)
from jaxalign.core.scores.protocol import Folds, Protocol
from jaxalign.core.solver import cv
from jaxalign.core.solver.method import ADAPTIVE, Execution, Method

# A function from training samples to the features of all samples [n p].
Design = Callable[[Int[np.ndarray, " R"]], Float[np.ndarray, "n p"]]


class TooFewGroupsError(ValueError):
    """There are fewer groups than folds of whole groups."""

    def __init__(self, protocol: Protocol, num_groups: int):
        self.protocol, self.num_groups = protocol, num_groups
        num = protocol.encoding[0].num
        super().__init__(
            f"protocol {protocol.name} has {num} folds of whole groups, so groups must be at least "
            f"{num}, got {num_groups}"
        )


def make_folds(
    protocol: Protocol,
    num_samples: int,
    *,
    groups: Labels | None = None,
    runs: Labels | None = None,
    items: Labels | None = None,
    test: Bool[np.ndarray, " n"] | None = None,
) -> tuple[Fold, ...]:
    """Return the folds of a protocol; inner ones where its penalties are chosen on them.

    Args:
      protocol: of kind "encoding".
      num_samples: how many samples there are, in the order of presentation.
      groups: story or passage of each sample; "shuffled_groups" needs them, "blocks" keeps them
        whole, and the other rules do not look at them.
      runs: run of each sample, which a gap does not cross; None: each group, or all are one.
      items: what each sample presents, where it may be presented again. Without groups, blocks are
        of whole stimuli. Blocks, and groups with inner blocks, do not train on what they test;
        folds that others fixed stay as they are, see `repeated`.
      test: True for the samples of the test set that comes with the data.

    Raises:
      ValueError: if what the rule needs is not there, or a fold would be empty.
    """
    rule, penalty = protocol.encoding
    if (rule.rule == "test_set") != (test is not None):
        raise ValueError(
            f"protocol {protocol.name} "
            + ("needs a test set." if test is None else "makes its own folds: give no test set.")
        )
    if rule.rule == "blocks":
        if groups is not None and (count := len(set(np.asarray(groups).tolist()))) < rule.num:
            raise TooFewGroupsError(protocol, count)
        found = _blocks(rule, num_samples, groups, runs, items)
        if penalty.choose == "blocks":
            return found
        outer = [fold.outer for fold in found]
    elif rule.rule == "trimmed":
        outer = folds_lib.trimmed_folds(num_samples, rule.num, trim=rule.gap)
    elif rule.rule == "test_set":
        outer = folds_lib.splits([(~np.asarray(test), np.asarray(test))], num_samples)
    else:
        if rule.rule == "shuffled_groups":
            count = 0 if groups is None else len(set(np.asarray(groups).tolist()))
            if count < rule.num:
                raise TooFewGroupsError(protocol, count)
        by_groups = rule.rule == "shuffled_groups" and groups is not None
        labels = np.asarray(groups) if by_groups else None
        outer = folds_lib.splits(_splitter(rule), num_samples, groups=labels)
        if penalty.choose == "blocks":
            return folds_lib.cross(folds_lib.without_repeats(outer, items))
    if penalty.choose == "kfold":
        inner = model_selection.KFold(penalty.num)
        return folds_lib.nest(outer, inner, num_samples)
    if penalty.choose == "chunks":
        sizes = {"chunk": penalty.chunk, "num_chunks": penalty.num_chunks, "seed": penalty.seed}
        return tuple(
            Fold(split, folds_lib.chunked_splits(split.train, penalty.num, **sizes))
            for split in outer
        )
    return tuple(Fold(split, ()) for split in outer)


def repeated(protocol: Protocol, folds: Sequence[Fold], items: Labels) -> Leak:
    """Count the test samples that present what is trained on: none in folds of blocks.

    Args:
      protocol: of kind "encoding".
      folds: from `make_folds`.
      items: what each sample presents.

    Raises:
      ValueError: if these are most, so that the score would be one of memory.
    """
    found = leaks.count(folds, items)
    if found.num_repeated > leaks.MOST * found.num_tested:
        other = "another test set, " if protocol.encoding[0].rule == "test_set" else ""
        raise ValueError(
            f"{leaks.remark(protocol.name, found)}: average the responses to each stimulus, or "
            f"take {other}protocol jaxalign, which does not train on what it tests."
        )
    return found


def _blocks(rule, num_samples, groups, runs, items):
    num_items = num_samples if items is None else len(np.unique(np.asarray(items)))
    if groups is None and num_items < num_samples:
        if num_items < rule.num:
            raise ValueError(
                f"num_folds must be at most the number of different stimuli: {num_samples} samples "
                f"present {num_items}, got {rule.num}; average the responses to each stimulus."
            )
        groups = items  # a block has all presentations of its stimuli
    if groups is not None:
        return folds_lib.grouped_folds(groups, rule.num, gap=rule.gap, runs=runs, items=items)
    runs = np.zeros(num_samples, int) if runs is None else runs
    return folds_lib.contiguous_folds(runs, rule.num, gap=rule.gap, items=items)


def _splitter(rule: Folds) -> Any:
    if rule.rule == "shuffled":
        return model_selection.ShuffleSplit(
            rule.num, train_size=rule.train_share, random_state=rule.seed
        )
    if rule.rule == "shuffled_groups":
        return model_selection.GroupKFold(rule.num, shuffle=True, random_state=rule.seed)
    return model_selection.KFold(rule.num)


def contiguous(
    protocol: Protocol,
    groups: Labels | None,
    make: Callable[[Protocol, Labels | None], tuple[Fold, ...]],
) -> tuple[Protocol, tuple[Fold, ...]] | None:
    """Return a shuffled protocol with contiguous blocks in place of its folds, and these folds.

    Args:
      protocol: whose folds draw single samples.
      groups: of each sample; fewer than three are no blocks, and may then be divided.
      make: makes the folds of a protocol and of the groups that its blocks keep whole.

    Returns:
      None if samples do not suffice for the blocks. The protocol's own score needs none of them:
      what it would be compared with is then undefined.
    """
    count = 0 if groups is None else len(set(np.asarray(groups).tolist()))
    whole = groups if count >= 3 else None
    other = unshuffled(protocol, num_groups=None if whole is None else count)
    try:
        return other, make(other, whole)
    except ValueError:
        return None


def unshuffled(protocol: Protocol, *, num_groups: int | None = None) -> Protocol:
    """Return a shuffled protocol with as many contiguous blocks in place of its folds.

    Blocks keep groups whole; where there are none, six samples are dropped on either side.

    Args:
      protocol: whose folds draw single samples.
      num_groups: how many groups there are, since blocks cannot be more; None: no groups.
    """
    rule, _ = protocol.encoding
    num = rule.num if num_groups is None else min(rule.num, num_groups)
    return dataclasses.replace(
        protocol,
        name=f"{protocol.name}, contiguous",
        folds=Folds(rule="blocks", num=num, gap=6),
    )


def penalties(protocol: Protocol) -> Float[np.ndarray, " a"]:
    """Return what the squared weights are multiplied with, in the order of the protocol's grid."""
    penalty = protocol.encoding[1]
    grid = np.array(penalty.grid, np.float64)
    return grid**2 if penalty.squared else grid


def without_pca(protocol: Protocol, *, scale: bool = True) -> Protocol:
    """Return a protocol without components; without `scale`, features are not scaled either."""
    scaling = dataclasses.replace(protocol.scaling, pca=0)
    if not scale:
        within = "none" if scaling.within_runs == "none" else "responses"
        scaling = dataclasses.replace(scaling, features="as_given", within_runs=within)
    return dataclasses.replace(protocol, scaling=scaling)


def design(
    values: Float[np.ndarray, "m u"],
    protocol: Protocol,
    *,
    run: Labels | None = None,
    recorded: Int[np.ndarray, " n"] | None = None,
    delays: Sequence[int] = (0,),
) -> Design:
    """Return a function that computes a protocol's features of all samples from training samples.

    Components are fitted on training samples, then delayed.

    Args:
      values: one row per sample, and rows that lead up to a run, for delays.
      protocol: says how many components; none where there are not more features than that.
      run: of each row; None: all are one.
      recorded: rows that have a response; None: all.
      delays: in rows.
    """
    rows = np.arange(len(values)) if recorded is None else recorded
    runs = np.zeros(len(values), int) if run is None else np.asarray(run)
    num_components = protocol.scaling.pca

    def finish(values):
        X = features.delay(values, runs, delays)[rows] if tuple(delays) != (0,) else values[rows]
        both = protocol.scaling.within_runs == "both"
        return features.standardize(X, runs[rows]) if both else X

    if not 0 < num_components <= values.shape[1]:
        X = finish(values)
        return lambda train: X
    return lambda train: finish(features.principal_components(values, rows[train], num_components))


def evaluate(
    design: Design,
    Y: Float[np.ndarray, "n v"],
    protocol: Protocol,
    folds: Sequence[Fold],
    *,
    pool: Int[np.ndarray, " v"] | None = None,
    execution: Execution = ADAPTIVE,
) -> cv.Nested:
    """Run the regression of a protocol on one set of features.

    Args:
      design: from `design`.
      Y: responses, one column per target; standardised within runs already, where that belongs to
        the protocol.
      protocol: of kind "encoding".
      folds: from `make_folds`.
      pool: a group (0, 1, ...) for each target, of which each chooses one penalty where the
        protocol has one for all; None: all are of one.
      execution: how it is computed.

    Raises:
      ValueError: see `cv.nested`.
    """
    penalty, scaling = protocol.encoding[1], protocol.scaling
    method = method_of(protocol)
    if not penalty.per_target:
        method = method._replace(pool=np.zeros(Y.shape[1], int) if pool is None else pool)
    each_side = "each_side" in (scaling.features, scaling.responses)
    if not each_side and not scaling.pca:
        found = cv.nested(design(folds[0].outer.train), Y, folds, method, execution=execution)
    else:
        parts = []
        for fold in folds:
            X, responses = design(fold.outer.train), Y
            if scaling.features == "each_side":
                X = scaled_apart(X, fold)
            if scaling.responses == "each_side":
                responses = scaled_apart(Y, fold)
            parts.append(cv.nested(X, responses, [fold], method, execution=execution))
        found = cv.Nested(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    grid = np.array(penalty.grid, np.float64)
    return found._replace(alphas=grid[np.searchsorted(penalties(protocol), found.alphas)])


def method_of(protocol: Protocol) -> Method:
    """Return what the solver is asked for under a protocol of kind "encoding"."""
    penalty, scaling = protocol.encoding[1], protocol.scaling
    return Method(
        penalties(protocol),
        standardize=scaling.features == "training",
        criterion=penalty.criterion,
        scheme=penalty.choose if penalty.choose in ("loo", "gcv") else "folds",
        intercept=scaling.intercept,
    )


def why_not_permuted(protocol: Protocol) -> str:
    """Say why responses cannot be permuted under a protocol; "" if they can."""
    _, penalty = protocol.encoding
    scaling, rule = protocol.scaling, protocol.aggregation
    reasons = {
        "its metric is not a correlation": protocol.metric != "pearson_r" or protocol.epsilon > 0,
        "test samples are scaled by themselves": "each_side"
        in (scaling.features, scaling.responses),
        "all targets share a penalty": not penalty.per_target,
        "targets are summarised before folds": rule.first != "folds" or rule.targets != "mean",
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def permuted(
    design: Design,
    Y: Float[np.ndarray, "n v"],
    protocol: Protocol,
    folds: Sequence[Fold],
    orders: Int[np.ndarray, "q n"],
    *,
    execution: Execution = ADAPTIVE,
) -> Iterable[Float[np.ndarray, "_ _"]]:
    """Score responses as they are, and permuted, by the regression of a protocol.

    Args:
      design: from `design`.
      Y: see `evaluate`.
      protocol: one that `why_not_permuted` allows.
      folds: from `make_folds`.
      orders: of the samples, from `core/inference/orders.py`.
      execution: how it is computed.

    Returns:
      See `permutation.permuted_scores`.

    Raises:
      ValueError: see `permutation.permuted_scores`; or if the protocol is another.
    """
    if reason := why_not_permuted(protocol):
        raise ValueError(f"Responses cannot be permuted under {protocol.name}: {reason}.")
    method = method_of(protocol)

    def scores(folds):
        X = design(folds[0].outer.train)
        return permutation.permuted_scores(X, Y, folds, orders, method, execution=execution)

    if not protocol.scaling.pca:
        return scores(folds)
    # Components are those of each training set.
    return [np.mean([np.concatenate(list(scores([x])), axis=1) for x in folds], axis=0)]


def scaled_apart(values: Float[np.ndarray, "n _"], fold: Fold) -> Float[np.ndarray, "n _"]:
    """Give training and test samples mean 0 and variance 1, each by their own statistics.

    Args:
      values: features or responses.
      fold: says which samples are of which side; those of neither are a third.
    """
    side = np.zeros(len(values), int)  # 0: of neither
    side[fold.outer.train], side[fold.outer.test] = 1, 2
    return features.standardize(values, side)


def scores_of(result: cv.Nested, protocol: Protocol) -> Float[np.ndarray, "k v"]:
    """Return what a protocol reports of each fold and target; NaN where undefined."""
    if protocol.metric == "r2":
        return result.r2
    values = result.r
    if protocol.epsilon:
        for norm in (result.predicted_norm, result.recorded_norm):
            values = values * (norm / (norm + protocol.epsilon))
    return values


def combine(
    results: Sequence[cv.Nested],
    protocol: Protocol,
    folds: Sequence[Fold],
    *,
    subjects: Labels | None = None,
    ceiling: Reference | float | Float[np.ndarray, " v"] = np.nan,
    contiguous: float = np.nan,
) -> AlignmentScore:
    """Make one score of the results of all layers.

    Args:
      results: from `evaluate`, one per layer.
      protocol: of kind "encoding".
      folds: on which they were found.
      subjects: of each target; see `summarize`.
      ceiling: of the whole, or of each target, or both with an interval; NaN: none is known.
      contiguous: of a shuffled protocol, its raw score in contiguous folds.
    """
    rule = protocol.aggregation
    scores = np.stack([scores_of(result, protocol) for result in results])  # [L k v]
    per_layer = np.array([summarize(x, rule, subjects).score for x in scores])
    if rule.layers == "mean" and len(results) > 1:
        counted = np.full(scores.shape[1:], -1)
        take = lambda values: mean_defined(values, axis=0)
    else:
        choice = _choose_layers(results, per_layer, rule, subjects)
        counted = choice.layer
        take = lambda values: layers.take(values, choice)
    chosen = take(scores)
    summary = summarize(chosen, rule, subjects)
    is_correlation = protocol.metric == "pearson_r"
    raw_low, raw_high = alignment.interval(chosen, rule, subjects, is_correlation=is_correlation)
    alphas = np.stack([result.alphas for result in results])
    known = ceiling
    if not isinstance(known, Reference):
        known = reference(known, chosen.shape[1], rule, subjects)
    unclipped, num_below_floor = _normalized(protocol, chosen, summary, known, subjects)
    return AlignmentScore(
        score=alignment.clip(unclipped, protocol),
        raw=summary.score,
        raw_low=raw_low,
        raw_high=raw_high,
        ceiling=known.value,
        per_target=summary.per_target,
        per_fold=summary.per_fold,
        alphas=alphas if counted.min() < 0 else take(alphas),
        num_nan=int(np.isnan(chosen).sum()),
        protocol=protocol.name,
        folds_hash=folds_lib.folds_hash(folds),
        layers=counted,
        per_layer=per_layer,
        r2_per_target=summarize(
            take(np.stack([result.r2 for result in results])), rule, subjects
        ).per_target,
        contiguous=contiguous,
        ceiling_low=known.low,
        ceiling_high=known.high,
        ceiling_per_target=known.per_target,
        unclipped=unclipped,
        num_below_floor=num_below_floor,
    )


def _choose_layers(results, per_layer, rule, subjects) -> layers.Choice:
    """Choose the layer that counts for each fold and target."""
    if rule.layers == "maximum":
        best = layers.choose(per_layer)
        return layers.Choice(*(np.full(results[0].r.shape, x) for x in best))
    return layers.choose_for_groups(np.stack([x.inner_score for x in results]), subjects)


def _normalized(protocol, chosen, summary, known, subjects) -> tuple[float, int]:
    """Return the score before it is cut, and the number of targets with too low a ceiling."""
    if protocol.normalize != "per_target":
        is_low, ratio = alignment.divide(summary.score, known.value, protocol)
        return float(ratio), int(is_low) * chosen.shape[1]
    whole = np.isnan(known.per_target).all()
    ceilings = np.full(chosen.shape[1], known.value) if whole else known.per_target
    rule = protocol.aggregation
    if rule.undefined == "zero":
        # A score that is undefined counts as 0, but one without a ceiling is left out.
        chosen, rule = np.nan_to_num(chosen), dataclasses.replace(rule, undefined="skip")
    is_low, ratios = alignment.divide(chosen, ceilings, protocol)
    return summarize(ratios, rule, subjects).score, int(is_low.sum())


def caution(found: AlignmentScore) -> str:
    """Say how much of a shuffled protocol's score is due to neighbours of test samples."""
    said = (
        f"{found.protocol} draws single samples, so that neighbours of test samples are trained "
        f"on: raw score {found.raw:.3f}, in contiguous folds of the same data "
    )
    if np.isnan(found.contiguous):
        return said + "undefined, as samples are too few for them, or vary too little."
    return f"{said}{found.contiguous:.3f} (difference {found.raw - found.contiguous:+.3f})."
