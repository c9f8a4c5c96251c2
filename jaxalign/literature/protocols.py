"""One table of protocols by name, each with all that fixes its scores."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxalign.core.scores.protocol import Aggregation, Extraction, Folds, Penalty, Protocol, Scaling
from jaxalign.errors import InputError

NESTED_RIDGE = "nested-ridge"  # not of the table: what the encoding stage does without a name
_BRAINSCORE = "brain-score/language, metrics/linear_predictivity"
_AW = "Aw et al. (2023), arXiv 2312.00575"
_HUTH = "ridge_utils of the Huth lab (alexhuth/ridge), bootstrap_ridge"
_OLS = Penalty(grid=(0.0,))
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
        extraction=Extraction(pooling="mean"),
        folds=Folds(rule="blocks", num=6, gap=6),
        scaling=Scaling(features="training", within_runs="responses"),
        penalty=Penalty(grid=tuple(10.0 ** (k / 2) for k in range(-2, 15)), choose="blocks"),
        ceiling="leave_one_subject_out",
    ),
    Protocol(
        name="brainscore-linear-2023",
        source=f"{_BRAINSCORE} of 2023 (scipy's pearsonr), and {_AW}, appendix F",
        folds=_SHUFFLED,
        penalty=_OLS,
        aggregation=_MEDIAN,
        ceiling="extrapolated",
        normalize="clip",
    ),
    Protocol(
        name="brainscore-linear-2026",
        source=f"{_BRAINSCORE} at 272041b, the benchmarks called linear-shuffle",
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
        extraction=Extraction(context="window:20", pooling="mean", delays=(1, 2, 3, 4)),
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
        folds=Folds(rule="kfold", num=5),
        scaling=Scaling(intercept=False),
        penalty=Penalty(grid=_logspace(1, 20, 20), choose="kfold", num=5),
        metric="r2",
        aggregation=_MEANS,
    ),
    Protocol(
        name="huth",
        source=f"{_HUTH}: a penalty for each target",
        extraction=Extraction(downsample="lanczos"),
        folds=Folds(rule="test_set"),
        scaling=Scaling(intercept=False),
        penalty=Penalty(**_BOOTSTRAP),
        aggregation=_MEANS_HUTH,
    ),
    Protocol(
        name="huth-single-alpha",
        source=f"{_HUTH}, single_alpha",
        extraction=Extraction(downsample="lanczos"),
        folds=Folds(rule="test_set"),
        scaling=Scaling(intercept=False),
        penalty=Penalty(**_BOOTSTRAP, per_target=False),
        aggregation=_MEANS_HUTH,
    ),
    Protocol(
        name="oota2025",
        source="Oota et al. (2025), arXiv 2505.20029, and its authors' code",
        extraction=Extraction(context="none", pooling="mean_all", delays=(0,)),
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
        kind="reading_time",
        metric="abs_pearson_r",
        ceiling="split_half",
        normalize="clip",
    ),
    Protocol(
        name="wikitext2-nwp",
        source=f"{_AW}, appendix H: mean cross-entropy of the next token, in nats",
        kind="next_word",
        metric="cross_entropy",
    ),
    Protocol(
        name="aw2024-average",
        source=f"{_AW}, section 4: the unweighted mean over data sets",
        kind="average",
        parts=(
            (("Pereira2018.243sentences", "Pereira2018.384sentences"), "brainscore-linear-2023"),
            (("Blank2014",), "brainscore-linear-2023"),
            (("Wehbe2014",), "wehbe2014"),
        ),
    ),
)
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


def find(name: str) -> Protocol:
    """Return a protocol of the table.

    Raises:
      InputError: if there is none of that name.
    """
    if name not in PROTOCOLS:
        raise InputError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}.")
    return PROTOCOLS[name]


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
_LAYERS = {
    "maximum": "of several layers the best is reported, on the data it is scored on",
    "mean": "layers are averaged",
    "nested": "the layer is chosen inside the training data",
}


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
