"""One table of protocols by name, each with all that fixes its scores."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxalign.core.scores.protocol import (
    READING,
    SAMPLING,
    Aggregation,
    Extraction,
    Folds,
    Penalty,
    Protocol,
    Scaling,
)
from jaxalign.errors import InputError

NESTED_RIDGE = "nested-ridge"  # not of the table: what the encoding stage does without a name
_BRAINSCORE = "brain-score/language, metrics/linear_predictivity"
_AW = "Aw et al. (2023), arXiv 2312.00575"
_HUTH = "ridge_utils of the Huth lab (alexhuth/ridge), bootstrap_ridge"
# Ends the name of a protocol under which reading and sampling are not those that it fixes.
OWN_READING = "-own-reading"
_OLS = Penalty(grid=(0.0,))
_ALL_FREE = Extraction(free=READING + SAMPLING)
# The last token of each part, after all parts before; responses have no TRs.
_PARTS = Extraction(free=SAMPLING)
# As in the lab's script of encoding models; features may come from any model.
_LANCZOS = Extraction(downsample="lanczos", free=READING)
# One median over the targets of all subjects for each split, then the mean over splits.
_MEDIAN = Aggregation(
    first="targets", targets="median", subjects="pooled", undefined="skip", layers="maximum"
)
_MEDIAN_2026 = dataclasses.replace(_MEDIAN, undefined="zero")
_MEANS = Aggregation(undefined="skip", layers="maximum")
_MEANS_HUTH = dataclasses.replace(_MEANS, undefined="zero")
_SHUFFLED = Folds(rule="shuffled", num=10, seed=1, train_share=0.9)
_logspace = lambda low, high, num: tuple(np.logspace(low, high, num).tolist())
# 125 chunks of 40 samples held out, 50 times: the defaults of the lab's encoding script.
_BOOTSTRAP = {
    "grid": _logspace(1, 3, 10),
    "squared": True,
    "choose": "chunks",
    "num": 50,
    "chunk": 40,
    "num_chunks": 125,
    "criterion": "correlation",
}
_RIDGE = Protocol(
    name="brainscore-ridge",
    source=f"{_BRAINSCORE} at 272041b, the benchmarks called ridge",
    extraction=_PARTS,
    folds=Folds(rule="shuffled_groups", num=10, seed=1234),
    penalty=Penalty(grid=_logspace(-3, 3, 7), choose="loo", per_target=False),
    epsilon=1e-8,
    aggregation=_MEDIAN_2026,
    ceiling="extrapolated",
    normalize="clip",
)

_ALL = (
    Protocol(
        name="jaxalign",
        source="this project: nothing of a test block enters a choice, and no neighbour of it",
        extraction=Extraction(pooling="mean", free=("context", "pooling")),
        folds=Folds(rule="blocks", num=6, gap=6),
        scaling=Scaling(features="training", within_runs="responses"),
        penalty=Penalty(grid=tuple(10.0 ** (k / 2) for k in range(-2, 15)), choose="blocks"),
        ceiling="leave_one_subject_out",
    ),
    Protocol(
        name="brainscore-linear-2023",
        source=f"{_BRAINSCORE} of 2023 (scipy's pearsonr), and {_AW}, appendix F",
        extraction=_PARTS,
        folds=_SHUFFLED,
        penalty=_OLS,
        aggregation=_MEDIAN,
        ceiling="extrapolated",
        normalize="clip",
    ),
    Protocol(
        name="brainscore-linear-2026",
        source=f"{_BRAINSCORE} at 272041b, the benchmarks called linear-shuffle",
        extraction=_PARTS,
        folds=_SHUFFLED,
        penalty=_OLS,
        epsilon=1e-8,
        aggregation=_MEDIAN_2026,
        ceiling="extrapolated",
        normalize="clip",
    ),
    _RIDGE,
    dataclasses.replace(
        _RIDGE,
        name="brainscore-ridge-8folds",
        source=f"{_RIDGE.source}, of data with 8 stories",
        folds=Folds(rule="shuffled_groups", num=8, seed=1234),
    ),
    # Components are those of the samples given; the authors fit them on words, which on arrays of
    # TRs is not possible. They also leave out the first 20 and the last 15 TRs of each run, before
    # anything that is done here.
    Protocol(
        name="wehbe2014",
        source=f"mtoneva/brain_language_nlp at 0f6677c, and {_AW}, appendix C.1",
        extraction=Extraction(context="window:20", pooling="mean"),
        folds=Folds(rule="trimmed", num=4, gap=5),
        scaling=Scaling(
            pca=10,
            within_runs="both",
            features="each_side",
            responses="each_side",
            intercept=False,
        ),
        penalty=Penalty(
            grid=tuple(10.0**k for k in range(-6, 10)),
            choose="kfold",
            num=10,
            criterion="relative_error",
        ),
        aggregation=_MEANS,
    ),
    Protocol(
        name="himalaya",
        source="himalaya 0.4.11, RidgeCV as it is without settings, on the penalties of "
        "gallantlab/voxelwise_tutorials",
        extraction=_ALL_FREE,
        folds=Folds(rule="kfold", num=5),
        scaling=Scaling(intercept=False),
        penalty=Penalty(grid=_logspace(1, 20, 20), choose="kfold", num=5),
        metric="r2",
        aggregation=_MEANS,
    ),
    Protocol(
        name="huth",
        source=f"{_HUTH}: a penalty for each target",
        extraction=_LANCZOS,
        folds=Folds(rule="test_set"),
        scaling=Scaling(intercept=False),
        penalty=Penalty(**_BOOTSTRAP),
        aggregation=_MEANS_HUTH,
    ),
    Protocol(
        name="huth-single-alpha",
        source=f"{_HUTH}, single_alpha",
        extraction=_LANCZOS,
        folds=Folds(rule="test_set"),
        scaling=Scaling(intercept=False),
        penalty=Penalty(**_BOOTSTRAP, per_target=False),
        aggregation=_MEANS_HUTH,
    ),
    Protocol(
        name="oota2025",
        source="Oota et al. (2025), arXiv 2505.20029, and its authors' code",
        # Responses to single images, which have no words to bring to TRs. Each model is pooled in a
        # way of its own: tokens of a tower, of the Q-Former, of a prompt, or of an answer.
        extraction=Extraction(
            context="none", pooling="mean_all", delays=(0,), free=("downsample", "pooling")
        ),
        folds=Folds(rule="test_set"),
        scaling=Scaling(features="each_side", responses="each_side", intercept=False),
        penalty=Penalty(grid=_logspace(1, 4, 60), choose="kfold", num=5),
        aggregation=Aggregation(undefined="skip", layers="mean"),
        ceiling="extrapolated",
        normalize="per_target",
    ),
    Protocol(
        name="futrell2018-pearsonr",
        source="brain-score/language, benchmarks/futrell2018 at 1c2379e",
        # Rows of the stage behavior say how stories were read.
        extraction=Extraction(one_stream=True, free=READING + SAMPLING),
        kind="reading_time",
        metric="abs_pearson_r",
        ceiling="split_half",
        normalize="clip",
    ),
    Protocol(
        name="wikitext2-nwp",
        source=f"{_AW}, appendix H: mean cross-entropy of the next token, in nats",
        extraction=_ALL_FREE,  # the stage next_word has windows, and no activations
        kind="next_word",
        metric="cross_entropy",
    ),
    Protocol(
        name="aw2024-average",
        source=f"{_AW}, section 4: the unweighted mean over data sets",
        extraction=_ALL_FREE,  # its parts fix it
        kind="average",
        parts=(
            (("Pereira2018.243sentences", "Pereira2018.384sentences"), "brainscore-linear-2023"),
            (("Blank2014",), "brainscore-linear-2023"),
            (("Wehbe2014",), "wehbe2014"),
        ),
    ),
)
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


def own_reading(protocol: Protocol) -> Protocol:
    """Return a protocol that leaves open how stimuli are read, under a name that says so.

    Of reading times and texts this name stands in rows and scores alone: `find` does not take it.
    """
    source = f"{protocol.source}; how stimuli are read is not that of the source"
    return dataclasses.replace(
        protocol,
        name=f"{protocol.name}{OWN_READING}",
        source=source,
        extraction=dataclasses.replace(protocol.extraction, free=READING + SAMPLING),
    )


_OWN = {x.name: x for x in map(own_reading, _ALL) if x.kind == "encoding"}


def find(name: str) -> Protocol:
    """Return a protocol of the table, or one with its name and "-own-reading".

    Raises:
      InputError: if there is none of that name.
    """
    if name not in PROTOCOLS | _OWN:
        raise InputError(
            f"protocol must be one of {', '.join(PROTOCOLS)}, or of them one that fits responses "
            f"with {OWN_READING!r} added, got {name!r}."
        )
    return (PROTOCOLS | _OWN)[name]


def refuse_other_readings(protocol: Protocol, settings: Mapping[str, Any], stage: str) -> None:
    """Refuse settings that are not those that a protocol fixes.

    Args:
      protocol: as it was asked for.
      settings: how stimuli were read, or are brought to samples.
      stage: whose settings they are.

    Raises:
      InputError: if one differs.
    """
    for name, fixed in protocol.extraction.fixed.items():
        if name in settings and settings[name] != fixed:
            raise InputError(
                f"{stage}.{name} must be {fixed!r} under protocol {protocol.name}, got "
                f"{settings[name]!r}: under {protocol.name}{OWN_READING} it may be anything."
            )


def nested_ridge(
    *,
    alphas: Sequence[float],
    num_folds: int,
    gap: int,
    group_seed: int,
    standardize: bool,
    pca: int,
) -> Protocol:
    """Return the protocol of the encoding stage's own settings; see there."""
    folds = Folds(rule="blocks", num=num_folds, gap=gap)
    if group_seed >= 0:
        folds = Folds(rule="shuffled_groups", num=num_folds, seed=group_seed)
    return Protocol(
        name=NESTED_RIDGE,
        source="settings of the encoding stage",
        extraction=_ALL_FREE,
        folds=folds,
        scaling=Scaling(
            pca=pca,
            within_runs="responses",
            features="training" if standardize else "as_given",
        ),
        penalty=Penalty(grid=tuple(sorted({float(x) for x in alphas})), choose="blocks"),
        aggregation=Aggregation(),
        ceiling="leave_one_subject_out",
    )


def with_fewer_folds(protocol: Protocol, num_groups: int) -> str:
    """Say how to score under a protocol where groups are fewer than its folds.

    Args:
      protocol: whose folds are of whole groups.
      num_groups: how many there are.
    """
    if protocol.encoding[0].rule == "shuffled_groups" and num_groups < 2:
        return "give groups, the story or passage of each sample"
    if num_groups < 3:
        return "without groups (encode.groups='none') blocks are contiguous"
    if protocol.name == NESTED_RIDGE:
        return f"encode.num_folds of at most {num_groups} fits"
    family = [x for x in (*_ALL, *_OWN.values()) if x.folds and _is_variant(x, protocol)]
    if fits := [x.name for x in family if x.folds and x.folds.num <= num_groups]:
        return f"protocol {fits[0]} fits"
    fits = f"encode.num_folds={num_groups} without encode.protocol"
    return f"a copy of the protocol with folds.num {num_groups} fits, or in a run {fits}"


def _is_variant(protocol: Protocol, other: Protocol) -> bool:
    """Whether protocols differ in the number of folds alone."""
    plain = lambda x: x.content | {"name": "", "folds": x.content["folds"] | {"num": 0}}
    is_own = lambda x: x.name.endswith(OWN_READING)
    return is_own(protocol) == is_own(other) and plain(protocol) == plain(other)


_FOLDS = {
    "shuffled": "{num} random splits of single samples, {train_share:.0%} to train on, seed {seed}",
    "shuffled_groups": "{num} folds of whole groups, shuffled, seed {seed}",
    "kfold": "{num} contiguous folds without a gap",
    "blocks": "{num} folds of contiguous blocks or whole groups, a gap of {gap} samples",
    "trimmed": "{num} contiguous folds, {gap} samples trimmed at their borders",
    "test_set": "the test set that comes with the data",
}
_CHOICES = {
    "none": "there is nothing to choose",
    "loo": "chosen by leaving out single training samples",
    "gcv": "chosen by generalised cross-validation",
    "kfold": "chosen on {num} contiguous inner folds",
    "blocks": "chosen on inner folds, the other outer blocks",
    "chunks": "chosen on {num} random draws of {num_chunks} chunks of {chunk} samples",
}
_READINGS = {
    "context": "context {}",
    "pooling": "tokens pooled by {}",
    "downsample": "words brought to TRs by {}",
    "delays": "delays of {} TRs where responses are timed",
}
_LAYERS = {
    "maximum": "of several layers the best is reported, on the data it is scored on",
    "mean": "layers are averaged",
    "nested": "the layer is chosen inside the training data",
}


def descriptions(names: Iterable[str]) -> dict[str, str]:
    """Describe the encoding protocols among some names, of which others are no protocols."""
    known = {name: (PROTOCOLS | _OWN).get(name) for name in dict.fromkeys(names)}
    return {name: describe(x) for name, x in known.items() if x and x.kind == "encoding"}


def _reading(extraction: Extraction) -> str:
    """Say what is fixed of an extraction."""
    fixed = {x: y for x, y in extraction.fixed.items() if x in _READINGS}
    if not fixed:
        return "How stimuli are read is left open."
    if "delays" in fixed:
        fixed["delays"] = ", ".join(map(str, fixed["delays"]))
    return f"Reading: {', '.join(_READINGS[x].format(y) for x, y in fixed.items())}."


def describe(protocol: Protocol) -> str:
    """Say in sentences what fixes an encoding protocol's scores."""
    folds, penalty = protocol.encoding
    scaling, rule = protocol.scaling, protocol.aggregation
    grid = penalty.grid
    if grid == (0.0,):
        regression = "least squares of minimum norm"
    else:
        what = "squared penalties" if penalty.squared else "penalties"
        chosen = _CHOICES[penalty.choose].format(**vars(penalty))
        regression = (
            f"ridge regression, {len(grid)} {what} from {grid[0]:g} to {grid[-1]:g}, one "
            f"{'per target' if penalty.per_target else 'for all targets'}, {chosen} by "
            f"{penalty.criterion.replace('_', ' ')}"
        )
    order = ["folds", f"targets ({rule.targets})"]
    order = order[::-1] if rule.first == "targets" else order
    parts = [
        f"Protocol {protocol.name} ({protocol.source}).",
        _reading(protocol.extraction),
        f"Folds: {_FOLDS[folds.rule].format(**vars(folds))}.",
        f"Regression: {regression}, {'with' if scaling.intercept else 'without'} an intercept.",
        f"Features scaled: {scaling.features.replace('_', ' ')}; responses: "
        f"{scaling.responses.replace('_', ' ')}"
        + {"none": "", "responses": " (within runs)", "both": "; both within runs before"}[
            scaling.within_runs
        ]
        + (f"; {scaling.pca} components, fitted in training." if scaling.pca else "."),
        f"Metric: {protocol.metric}, over {', then '.join(order)}, subjects "
        f"{'pooled' if rule.subjects == 'pooled' else 'averaged'}; {_LAYERS[rule.layers]}.",
    ]
    return " ".join(parts)
