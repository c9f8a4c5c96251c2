"""Scores of arrays under any protocol."""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Shaped
from scipy import special

from jaxalign.core import features, leaks
from jaxalign.core.behavior import surprisal
from jaxalign.core.ceilings import of_protocol
from jaxalign.core.ceilings.ceiling import Ceiling
from jaxalign.core.folds import Fold, Split, folds_hash
from jaxalign.core.leaks import RepeatedStimuliWarning
from jaxalign.core.scores import alignment, scoring
from jaxalign.core.scores.alignment import AlignmentScore, Reference
from jaxalign.core.scores.protocol import Protocol
from jaxalign.core.solver import cv
from jaxalign.core.solver.method import ADAPTIVE
from jaxalign.data import labels as labels_lib
from jaxalign.errors import InputError
from jaxalign.literature import protocols


class ShuffledFoldsWarning(UserWarning):
    """A protocol tests samples whose neighbours it trains on."""


class CeilingWarning(UserWarning):
    """A score in relation to its ceiling was cut, or is undefined because the ceiling is near 0."""


def score_arrays(
    X: Any,
    Y: Any,
    *,
    protocol: str | Protocol = "jaxalign",
    groups: Any = None,
    items: Any = None,
    subjects: Any = None,
    runs: Any = None,
    targets: Any = None,
    test: Any = None,
    delays: Sequence[int] | Mapping[str, Sequence[int]] = (0,),
    ceiling: Any = None,
    max_subsets: int | None = None,
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
      items: what each sample presents (an id, a text), where stimuli are presented again. Folds of
        blocks then do not train on what they test. A protocol that fixes its folds is refused where
        most test samples are trained on, and warned of where some are (`num_repeated`). None: it is
        not known; features of test samples that equal those of training samples are warned of.
      subjects: of each column of Y.
      runs: run of each sample, where gaps and delays end, and within which some protocols
        standardise. None: all are one run; but groups then have no gap between them. Of reading
        times the story of each word, over which the interval of the ceiling is.
      targets: name of each column of Y, where columns of the same name are comparable between
        subjects: allows a leave-one-subject-out ceiling.
      test: mask of the test samples, for protocols whose test set comes with the data.
      delays: of features, in samples, after components are taken (which are those of samples: of
        TRs, not of words, where a sample is a TR). They are the caller's, as is all that made X:
        what a protocol fixes about reading and samples (docs/protocols.md) is not checked here.
      ceiling: of the whole, or of each target [v]; or a `core.ceilings.ceiling.Ceiling`, which has
        an interval. None: the protocol's own is computed, where that is possible. A
        leave-one-subject-out ceiling needs `subjects` and `targets`; an extrapolated one three
        `subjects`, whose targets may differ (it may take minutes: NaN leaves it out); a split-half
        one two readers.
      max_subsets: subsets of subjects to draw of each size for an extrapolated ceiling, at random;
        None: every subset, which more than 15 subjects have too many of.
      mesh: devices that divide the targets among them.

    Returns:
      The score; see `AlignmentScore`. Where a protocol divides by the ceiling and there is none,
      `score` is NaN and `raw` is there. Under a shuffled protocol, which lets neighbours of test
      samples be trained on, `contiguous` is the raw score in contiguous folds of the same data, and
      the difference is a warning.

    Raises:
      InputError: if an argument is not what it must be.

    Example:
      >>> import jaxalign
      >>> import numpy as np
      >>> rng = np.random.default_rng(0)
      >>> X = rng.standard_normal((120, 8))  # features of 120 samples
      >>> Y = X @ rng.standard_normal((8, 3)) + rng.standard_normal((120, 3))  # of three targets
      >>> stories = np.repeat(np.arange(12), 10)  # which folds keep whole
      >>> found = jaxalign.score_arrays(X, Y, protocol="jaxalign", groups=stories)
      >>> bool(found.raw > 0.8), found.per_target.shape
      (True, (3,))
    """
    chosen = protocols.find(protocol) if isinstance(protocol, str) else protocol
    if chosen.kind == "average":
        given = {
            "groups": groups,
            "items": items,
            "subjects": subjects,
            "runs": runs,
            "targets": targets,
        }
        given |= {"test": test, "delays": delays, "ceiling": ceiling}
        given |= {"max_subsets": max_subsets, "mesh": mesh}
        return _average(X, Y, chosen, given)
    try:
        if chosen.kind == "reading_time":
            return _reading_time(X, Y, chosen, groups, runs, ceiling)
        if chosen.kind == "next_word":
            return _next_word(X, Y, chosen)
        layers, responses = _matrices(X, Y)
        labels = {"groups": groups, "items": items, "runs": runs, "test": test}
        labels = {name: _labels(name, x, len(responses)) for name, x in labels.items()}
        columns = {"subjects": subjects, "targets": targets}
        columns = {name: _labels(name, x, responses.shape[1]) for name, x in columns.items()}
        data = _Data(layers, responses, **labels, **columns, delays=delays)
        return _encoding(data, chosen, _Known(ceiling, max_subsets), mesh)
    except InputError:
        raise
    except scoring.TooFewGroupsError as error:
        fits = protocols.with_fewer_folds(error.protocol, error.num_groups)
        raise InputError(f"score_arrays: {error}: {fits}.") from error
    except ValueError as error:
        raise InputError(f"score_arrays: {error}") from error


class _Data(NamedTuple):
    """Features of all layers and responses, and what is known of samples and targets."""

    layers: Float[np.ndarray, "L n p"]
    Y: Float[np.ndarray, "n v"]
    groups: Shaped[np.ndarray, " n"] | None
    items: Shaped[np.ndarray, " n"] | None
    runs: Shaped[np.ndarray, " n"] | None
    test: Shaped[np.ndarray, " n"] | None
    subjects: Shaped[np.ndarray, " v"] | None
    targets: Shaped[np.ndarray, " v"] | None
    delays: Any


class _Known(NamedTuple):
    """The ceiling that is given, or how many subsets of subjects it is found from."""

    ceiling: Any
    max_subsets: int | None


def _encoding(data, protocol, known, mesh) -> AlignmentScore:
    groups, runs, subjects = data.groups, data.runs, data.subjects
    n = len(data.Y)
    known_of = {"runs": runs, "items": data.items}
    folds = scoring.make_folds(protocol, n, groups=groups, test=data.test, **known_of)
    num_repeated = _repeated(data, protocol, folds)
    if protocol.scaling.within_runs != "none":
        run = np.zeros(n, int) if runs is None else runs
        data = data._replace(Y=features.standardize(data.Y, run))
    ceiling = _reference(data, protocol, folds, known, mesh)

    def results(protocol, folds) -> list[cv.Nested]:
        execution = ADAPTIVE._replace(mesh=mesh)
        designs = [scoring.design(X, protocol, run=runs, delays=data.delays) for X in data.layers]
        return [scoring.evaluate(x, data.Y, protocol, folds, execution=execution) for x in designs]

    found = results(protocol, folds)
    contiguous = np.nan
    if protocol.is_shuffled:
        make = lambda other, whole: scoring.make_folds(other, n, groups=whole, **known_of)
        if apart := scoring.contiguous(protocol, groups, make):
            contiguous = scoring.combine(results(*apart), *apart, subjects=subjects).raw
    score = scoring.combine(
        found,
        protocol,
        folds,
        subjects=subjects,
        ceiling=ceiling,
        contiguous=contiguous,
    )._replace(
        num_repeated=num_repeated,
        target_subjects=() if subjects is None else subjects.astype(str),
        target_names=() if data.targets is None else data.targets.astype(str),
    )
    if protocol.is_shuffled:
        warnings.warn(scoring.caution(score), ShuffledFoldsWarning, stacklevel=3)
    _warn_of_ceiling(score, protocol)
    return score


def _repeated(data, protocol, folds) -> int:
    """Count test samples that are trained on; warn of those, and of features that look so."""
    if data.items is not None:
        found = scoring.repeated(protocol, folds, data.items)
        if found.num_repeated:
            message = f"{leaks.remark(protocol.name, found)}."
            warnings.warn(message, RepeatedStimuliWarning, stacklevel=4)
        return found.num_repeated
    labels = np.zeros(len(data.Y), int)
    for X in data.layers:  # equal in all of them
        _, labels = np.unique(np.c_[labels, leaks.same_rows(X)], axis=0, return_inverse=True)
    found = leaks.count(folds, labels.ravel())
    if found.num_repeated:
        warnings.warn(
            f"X: features of {found} equal those of a sample that is trained on, as if stimuli "
            "were presented again: then responses can be looked up, and the score is not one of "
            "new stimuli. Say by items which samples present the same stimulus; "
            "items=range(len(X)) says that all differ.",
            RepeatedStimuliWarning,
            stacklevel=4,
        )
    return found.num_repeated


def _warn_of_ceiling(score: AlignmentScore, protocol: Protocol) -> None:
    for remark in alignment.remarks(score, protocol):
        warnings.warn(remark, CeilingWarning, stacklevel=4)


def _reference(data, protocol, folds, known, mesh) -> Reference:
    """Return the ceiling that is given, or compute that of the protocol."""
    Y, runs, subjects, targets = data.Y, data.runs, data.subjects, data.targets
    v = Y.shape[1]
    if known.ceiling is not None:
        return _given(known.ceiling, v, protocol, subjects)
    if subjects is None:
        return alignment.reference(np.nan, v, protocol.aggregation)
    recorded = of_protocol.Recorded(Y, subjects, targets, runs)
    if protocol.ceiling == "leave_one_subject_out" and targets is not None:
        return of_protocol.leave_one_subject_out(recorded, folds, protocol)
    if protocol.ceiling == "extrapolated" and len(set(subjects.tolist())) >= 3:
        options = {"max_subsets": known.max_subsets, "mesh": mesh}
        return of_protocol.extrapolated(recorded, folds, protocol, **options)
    return alignment.reference(np.nan, v, protocol.aggregation)


def _given(ceiling, num_targets, protocol, subjects) -> Reference:
    """Summarise a ceiling as scores are; of an interval the ends."""
    rule = protocol.aggregation
    parts = ceiling[:3] if isinstance(ceiling, Ceiling) else (ceiling,)
    found = []
    for part in parts:
        array = np.asarray(part, np.float64)
        if array.shape not in ((), (num_targets,)):
            raise InputError(
                f"ceiling must be a number or one per target ({num_targets}), got shape "
                f"{array.shape}."
            )
        value = array if array.ndim else float(array)
        found.append(alignment.reference(value, num_targets, rule, subjects))
    whole, *ends = found
    low, high = (end.value for end in ends) if ends else (np.nan, np.nan)
    return whole._replace(low=low, high=high)


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


def _labels(name: str, labels: Any, size: int) -> Shaped[np.ndarray, " m"] | None:
    if labels is None:
        return None
    array = np.asarray(labels)
    what = "column of Y" if name in ("subjects", "targets") else "sample"
    if array.shape != (size,):
        raise InputError(
            f"{name} must have one entry per {what} ({size}), got shape {array.shape}."
        )
    labels_lib.refuse_missing(name, labels, what)
    if name == "test" and array.dtype != bool:
        raise InputError(f"test must be a mask of True and False, got {array.dtype}.")
    return array


def _reading_time(X, Y, protocol, sentences, stories, ceiling) -> AlignmentScore:
    """Correlate surprisal with mean reading times, without the first words of sentences."""
    bits = np.asarray(X, np.float64)
    bits = bits[:, 0] if bits.ndim == 2 and bits.shape[1] == 1 else bits
    times = np.asarray(Y, np.float64)
    times = times[:, None] if times.ndim == 1 else times
    n = len(times)
    if times.ndim != 2 or bits.shape != (n,):
        raise InputError(
            "X must hold the surprisal of each word [n], and Y reading times [n s]: got "
            f"{np.shape(X)} and {np.shape(Y)}."
        )
    labels = _labels("groups", sentences, n)
    if labels is None:
        raise InputError(f"protocol {protocol.name} needs groups: the sentence of each word.")
    story = _labels("runs", stories, n)
    story = np.zeros(n, int) if story is None else story
    first = np.ones(n, bool)
    first[1:] = (labels[1:] != labels[:-1]) | (story[1:] != story[:-1])
    begun = Counter(zip(story[first].tolist(), labels[first].tolist(), strict=True))
    if twice := [sentence for (_, sentence), count in begun.items() if count > 1]:
        raise InputError(
            f"groups: the words of a sentence must be adjacent, but {twice[0]!r} begins twice; "
            "number sentences through all stories, or give runs: the story of each word."
        )
    mean = surprisal.mean_over_participants(times)
    known = np.isfinite(bits) & np.isfinite(mean)
    rows = np.flatnonzero(known & ~first)
    if len(rows) < 3:
        raise InputError(f"There must be at least 3 words to correlate, found {len(rows)}.")
    signed = surprisal.correlation(bits[rows], mean[rows], story[rows])
    low, high = sorted(float(np.copysign(1, signed.value)) * np.array([signed.low, signed.high]))
    if ceiling is not None:
        found = _given(ceiling, 1, protocol, None)
    elif protocol.ceiling == "split_half":
        # Of all words, those that begin sentences too, as Brain-Score has it.
        half = surprisal.split_half_ceiling(times, story)
        found = Reference(half.value, half.low, half.high, np.array([half.value]))
    else:
        found = alignment.reference(np.nan, 1, protocol.aggregation)
    score = alignment.without_fit(
        protocol,
        abs(signed.value),
        interval=(low, high),
        ceiling=found,
        num_nan=int((~known & ~first).sum()),
        folds_hash=_hash(rows),
    )
    _warn_of_ceiling(score, protocol)
    return score


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
    return alignment.without_fit(
        protocol,
        losses.mean(),
        num_nan=int(np.isnan(losses).sum()),
        folds_hash=_hash(rows),
    )


def _hash(rows) -> str:
    """Hash the samples that count, as if they were tested without training."""
    return folds_hash([Fold(Split(rows[:0], rows), ())])


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

    def of_data_set(name):
        return {
            key: value.get(name, (0,) if key == "delays" else None)
            if isinstance(value, Mapping)
            else value
            for key, value in given.items()
        }

    found = {
        name: score_arrays(X[name], Y[name], protocol=part, **of_data_set(name))
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
      terms, and there are no penalties. Nothing has an interval: data sets share subjects.

    Raises:
      InputError: if a data set is missing, or has another protocol.

    Example:
      >>> import jaxalign
      >>> import numpy as np
      >>> from jaxalign.core.scores.protocol import Protocol
      >>> rng = np.random.default_rng(0)
      >>> X, Y = rng.standard_normal((60, 2)), rng.standard_normal((60, 3))
      >>> stories = np.repeat(np.arange(6), 10)
      >>> one = jaxalign.score_arrays(X, X @ [[1.0], [2.0]], groups=stories)
      >>> other = jaxalign.score_arrays(X, Y, groups=stories)
      >>> parts = ((("one", "other"), "jaxalign"),)
      >>> both = Protocol(name="both", source="mine", kind="average", parts=parts)
      >>> mean = jaxalign.average({"one": one, "other": other}, both)
      >>> bool(np.isclose(mean.raw, (one.raw + other.raw) / 2))
      True
    """
    chosen = protocols.find(protocol) if isinstance(protocol, str) else protocol
    terms: dict[str, list[float]] = {}
    for names, part in chosen.parts:
        if lost := [name for name in names if name not in scores]:
            raise InputError(f"protocol {chosen.name} needs a score of {lost[0]!r}.")
        found = [scores[name] for name in names]
        if wrong := [x.protocol for x in found if x.protocol != part]:
            raise InputError(
                f"protocol {chosen.name} takes {', '.join(names)} under {part}, got {wrong[0]!r}."
            )
        for field in ("score", "unclipped", "raw", "ceiling", "contiguous"):
            terms.setdefault(field, []).append(float(np.mean([getattr(x, field) for x in found])))
    means = {field: float(np.mean(values)) for field, values in terms.items()}
    raw, ceilings = np.array(terms["raw"]), np.array(terms["ceiling"])
    hashes = "".join(scores[name].folds_hash for names, _ in chosen.parts for name in names)
    nothing = np.full((1, 1), np.nan)
    return AlignmentScore(
        score=means["score"],
        raw=means["raw"],
        ceiling=means["ceiling"],
        contiguous=means["contiguous"],
        per_target=raw,
        per_fold=raw,
        alphas=nothing,
        num_nan=sum(scores[name].num_nan for names, _ in chosen.parts for name in names),
        num_repeated=sum(scores[name].num_repeated for names, _ in chosen.parts for name in names),
        protocol=chosen.name,
        folds_hash=hashes,
        layers=np.zeros((1, 1), int),
        per_layer=np.array([means["raw"]]),
        r2_per_target=nothing[0],
        raw_low=np.nan,
        raw_high=np.nan,
        ceiling_low=np.nan,
        ceiling_high=np.nan,
        ceiling_per_target=ceilings,
        unclipped=means["unclipped"],
        num_below_floor=sum(
            scores[name].num_below_floor for names, _ in chosen.parts for name in names
        ),
    )
