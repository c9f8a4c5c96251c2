"""The Python interface: scores of arrays under any protocol."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float
from scipy import special

from jaxalign.core import cv, features, metrics, scoring
from jaxalign.core.features import Labels
from jaxalign.core.folds import Fold, Split, folds_hash
from jaxalign.core.protocol import Protocol
from jaxalign.core.scoring import AlignmentScore
from jaxalign.data import protocols
from jaxalign.errors import InputError


class ShuffledFoldsWarning(UserWarning):
    """A protocol tests samples whose neighbours it trains on."""


def list_protocols() -> tuple[str, ...]:
    """Return the names of all protocols."""
    return tuple(protocols.PROTOCOLS)


def score_arrays(
    X: Any,
    Y: Any,
    *,
    protocol: str | Protocol = "jaxalign",
    groups: Any = None,
    subjects: Any = None,
    runs: Any = None,
    targets: Any = None,
    test: Any = None,
    delays: Sequence[int] | Mapping[str, Sequence[int]] = (0,),
    ceiling: Any = None,
    mesh: Mesh | None = None,
) -> AlignmentScore:
    """Score features against responses under a protocol.

    What X and Y are depends on the protocol's kind. "encoding": features [n p], or of several
    layers [L n p], and responses [n v], in the order of presentation. "reading_time": surprisal of
    each word [n] or [n 1], NaN where there is none, and reading times [n s], NaN where they were
    not recorded; `groups` is the sentence of each word, whose first word is left out. "next_word":
    logits or log-probabilities [n V], and the ids of the tokens that came [n]. "average": mappings
    from the data sets of `protocol.parts` to X and to Y; so may the other arguments be.

    Args:
      X: see above.
      Y: see above.
      protocol: a name (`list_protocols`), or one's own.
      groups: story or passage of each sample, which folds of groups need and blocks keep whole.
      subjects: of each column of Y.
      runs: run of each sample, where gaps and delays end, and within which some protocols
        standardise. None: all are one run; but groups then have no gap between them.
      targets: name of each column of Y, where columns of the same name are comparable between
        subjects: allows a leave-one-subject-out ceiling.
      test: mask of the test samples, for protocols whose test set comes with the data.
      delays: of features, in samples, after components are taken.
      ceiling: of the whole, or of each target [v], for protocols whose ceiling is found otherwise.
      mesh: devices that divide the targets among them.

    Returns:
      The score; see `AlignmentScore`. Where a protocol divides by the ceiling and there is none,
      `score` is NaN and `raw` is there. Under a shuffled protocol, which lets neighbours of test
      samples be trained on, `contiguous` is the raw score in contiguous folds of the same data, and
      the difference is a warning.

    Raises:
      InputError: if an argument is not what it must be.
    """
    chosen = protocols.find(protocol) if isinstance(protocol, str) else protocol
    if chosen.kind == "average":
        given = {"groups": groups, "subjects": subjects, "runs": runs, "targets": targets}
        given |= {"test": test, "delays": delays, "ceiling": ceiling, "mesh": mesh}
        return _average(X, Y, chosen, given)
    try:
        if chosen.kind == "reading_time":
            return _reading_time(X, Y, chosen, groups, ceiling)
        if chosen.kind == "next_word":
            return _next_word(X, Y, chosen)
        layers, responses = _matrices(X, Y)
        labels = {"groups": groups, "runs": runs, "test": test}
        labels = {name: _labels(name, x, len(responses)) for name, x in labels.items()}
        columns = {"subjects": subjects, "targets": targets}
        columns = {name: _labels(name, x, responses.shape[1]) for name, x in columns.items()}
        return _encoding(layers, responses, chosen, labels, columns, delays, ceiling, mesh)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"score_arrays: {error}") from error


def _encoding(layers, Y, protocol, labels, columns, delays, ceiling, mesh) -> AlignmentScore:
    groups, runs, test = labels["groups"], labels["runs"], labels["test"]
    subjects, targets = columns["subjects"], columns["targets"]
    test = None if test is None else test.astype(bool)
    folds = scoring.make_folds(protocol, len(Y), groups=groups, runs=runs, test=test)
    if protocol.scaling.within_runs != "none":
        Y = features.standardize(Y, np.zeros(len(Y), int) if runs is None else runs)

    def results(protocol, folds) -> list[cv.Nested]:
        return [
            scoring.evaluate(
                scoring.design(X, protocol, run=runs, delays=delays),
                Y,
                protocol,
                folds,
                mesh=mesh,
            )
            for X in layers
        ]

    known = np.nan if ceiling is None else _ceiling(ceiling, Y.shape[1])
    by_subjects = protocol.ceiling == "leave_one_subject_out"
    if ceiling is None and by_subjects and subjects is not None and targets is not None:
        known = scoring.subject_ceiling(Y, folds, subjects, targets, runs)
    contiguous = np.nan
    if protocol.is_shuffled:
        other = scoring.unshuffled(protocol)
        blocks = scoring.make_folds(other, len(Y), groups=groups, runs=runs)
        contiguous = scoring.combine(results(other, blocks), other, blocks, subjects=subjects).raw
    found = scoring.combine(
        results(protocol, folds),
        protocol,
        folds,
        subjects=subjects,
        ceiling=known,
        contiguous=contiguous,
    )
    if protocol.is_shuffled:
        warnings.warn(scoring.caution(found), ShuffledFoldsWarning, stacklevel=3)
    return found


def _matrices(X, Y) -> tuple[Float[np.ndarray, "L n p"], Float[np.ndarray, "n v"]]:
    layers, responses = np.asarray(X), np.asarray(Y)
    layers = layers[None] if layers.ndim == 2 else layers
    responses = responses[:, None] if responses.ndim == 1 else responses
    if layers.ndim != 3 or responses.ndim != 2 or layers.shape[1] != len(responses):
        raise InputError(
            "X must be [n p] or [L n p] and Y [n v], with the same n samples: got "
            f"{np.shape(X)} and {np.shape(Y)}."
        )
    for name, values in (("X", layers), ("Y", responses)):
        if values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise InputError(
                f"{name} must hold finite numbers, got {values.dtype}"
                f"{' with NaN or infinity' if values.dtype.kind in 'fiu' else ''}: leave such "
                "samples or targets out."
            )
    return layers.astype(np.float64), responses.astype(np.float64)


def _labels(name: str, labels: Any, size: int) -> Labels | None:
    if labels is None:
        return None
    array = np.asarray(labels)
    if array.shape != (size,):
        what = "column of Y" if name in ("subjects", "targets") else "sample"
        raise InputError(
            f"{name} must have one entry per {what} ({size}), got shape {array.shape}."
        )
    if name == "test" and array.dtype != bool:
        raise InputError(f"test must be a mask of True and False, got {array.dtype}.")
    return array


def _ceiling(ceiling, num_targets):
    array = np.asarray(ceiling, np.float64)
    if array.shape not in ((), (num_targets,)):
        raise InputError(
            f"ceiling must be a number or one per target ({num_targets}), got shape {array.shape}."
        )
    return array if array.ndim else float(array)


def _reading_time(X, Y, protocol, sentences, ceiling) -> AlignmentScore:
    """Correlate surprisal with mean reading times, without the first words of sentences."""
    surprisal = np.asarray(X, np.float64)
    surprisal = surprisal[:, 0] if surprisal.ndim == 2 and surprisal.shape[1] == 1 else surprisal
    times = np.asarray(Y, np.float64)
    times = times[:, None] if times.ndim == 1 else times
    n = len(times)
    if surprisal.shape != (n,):
        raise InputError(
            f"X must hold the surprisal of each word of Y ({n}), got shape {np.shape(X)}."
        )
    labels = _labels("groups", sentences, n)
    if labels is None:
        raise InputError(f"protocol {protocol.name} needs groups: the sentence of each word.")
    first = np.zeros(n, bool)
    first[[own[0] for own in features.members(labels).values()]] = True
    recorded = ~np.isnan(times)
    mean = np.where(recorded, times, 0).sum(axis=1) / np.maximum(recorded.sum(axis=1), 1)
    known = np.isfinite(surprisal) & recorded.any(axis=1)
    rows = np.flatnonzero(known & ~first)
    if len(rows) < 3:
        raise InputError(f"There must be at least 3 words to correlate, found {len(rows)}.")
    r = _pearson_r(surprisal[rows], mean[rows])
    return _plain(protocol, abs(r), rows, int((~known & ~first).sum()), ceiling)


def _pearson_r(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    if metrics.is_constant(a) or metrics.is_constant(b):
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def _next_word(X, Y, protocol) -> AlignmentScore:
    """Average what each token that came costs, in nats."""
    logits, ids = np.asarray(X, np.float64), np.asarray(Y)
    ids = ids[:, 0] if ids.ndim == 2 and ids.shape[1] == 1 else ids
    if logits.ndim != 2 or ids.shape != logits.shape[:1] or ids.dtype.kind not in "iu":
        raise InputError(
            "X must be logits [n V] and Y the ids of the tokens that came [n], integers: got "
            f"{np.shape(X)} and {np.shape(Y)} of {ids.dtype}."
        )
    if not len(ids) or ids.min() < 0 or ids.max() >= logits.shape[1]:
        raise InputError(f"Y must hold ids in 0..{logits.shape[1] - 1}, and at least one.")
    rows = np.arange(len(ids))
    losses = special.logsumexp(logits, axis=1) - logits[rows, ids]
    return _plain(protocol, losses.mean(), rows, int(np.isnan(losses).sum()), None)


def _plain(protocol, raw, rows, num_nan, ceiling) -> AlignmentScore:
    """Return the score of a protocol that fits nothing."""
    known = np.nan if ceiling is None else float(ceiling)
    ratio = raw / known if known > 0 else np.nan
    one, nothing = np.array([raw]), np.full((1, 1), np.nan)
    return AlignmentScore(
        score=float(np.clip(ratio, 0, 1) if protocol.normalize == "clip" else raw),
        raw=float(raw),
        ceiling=known,
        per_target=one,
        per_fold=one,
        alphas=nothing,
        num_nan=num_nan,
        protocol=protocol.name,
        folds_hash=folds_hash([Fold(Split(rows[:0], rows), ())]),
        layers=np.zeros((1, 1), int),
        per_layer=one,
        r2_per_target=nothing[0],
        contiguous=np.nan,
    )


def _average(X, Y, protocol, given) -> AlignmentScore:
    """Average over data sets, each under its own protocol; `per_target` has one term each."""
    names = [name for terms, _ in protocol.parts for name in terms]
    for argument, value in (("X", X), ("Y", Y)):
        if not isinstance(value, Mapping) or set(value) != set(names):
            found = sorted(value) if isinstance(value, Mapping) else type(value).__name__
            raise InputError(
                f"protocol {protocol.name}: {argument} must map {', '.join(names)} to arrays, got "
                f"{found}."
            )

    def own(name):
        return {
            key: value.get(name, (0,) if key == "delays" else None)
            if isinstance(value, Mapping)
            else value
            for key, value in given.items()
        }

    found = {
        name: score_arrays(X[name], Y[name], protocol=part, **own(name))
        for terms, part in protocol.parts
        for name in terms
    }
    return average(found, protocol)


def average(
    scores: Mapping[str, AlignmentScore], protocol: str | Protocol = "aw2024-average"
) -> AlignmentScore:
    """Average scores of data sets as a protocol of kind "average" does.

    Args:
      scores: of each data set in `protocol.parts`, under the protocol named there.
      protocol: a name, or one's own.

    Returns:
      Means of `score`, `raw`, `ceiling` and `contiguous`; `per_target` and `per_fold` hold the raw
      terms, and there are no penalties.

    Raises:
      InputError: if a data set is missing, or has another protocol.
    """
    chosen = protocols.find(protocol) if isinstance(protocol, str) else protocol
    terms: dict[str, list[float]] = {}
    for names, part in chosen.parts:
        if lost := [name for name in names if name not in scores]:
            raise InputError(f"protocol {chosen.name} needs a score of {lost[0]!r}.")
        own = [scores[name] for name in names]
        if wrong := [x.protocol for x in own if x.protocol != part]:
            raise InputError(
                f"protocol {chosen.name} takes {', '.join(names)} under {part}, got {wrong[0]!r}."
            )
        for field in ("score", "raw", "ceiling", "contiguous"):
            terms.setdefault(field, []).append(float(np.mean([getattr(x, field) for x in own])))
    means = {field: float(np.mean(values)) for field, values in terms.items()}
    raw = np.array(terms["raw"])
    hashes = "".join(scores[name].folds_hash for names, _ in chosen.parts for name in names)
    nothing = np.full((1, 1), np.nan)
    return AlignmentScore(
        **means,
        per_target=raw,
        per_fold=raw,
        alphas=nothing,
        num_nan=sum(scores[name].num_nan for names, _ in chosen.parts for name in names),
        protocol=chosen.name,
        folds_hash=hashes,
        layers=np.zeros((1, 1), int),
        per_layer=np.array([means["raw"]]),
        r2_per_target=nothing[0],
    )
