"""What fixes a score: a protocol as data, checked when built."""

import dataclasses
from typing import Any, Literal, get_args

import numpy as np

from jaxalign.core.solver.search import Criterion

Kind = Literal["encoding", "reading_time", "next_word", "average"]
FoldRule = Literal["shuffled", "shuffled_groups", "kfold", "blocks", "trimmed", "test_set"]
Choice = Literal["none", "loo", "gcv", "kfold", "blocks", "chunks"]
Sides = Literal["as_given", "training", "each_side"]
Metric = Literal["pearson_r", "abs_pearson_r", "r2", "cross_entropy"]
Ceiling = Literal["none", "leave_one_subject_out", "split_half", "extrapolated"]
# Settings of an extraction: of the stage extract, and of what brings features to the samples.
READING = ("context", "one_stream", "pooling", "tap")
READING += ("joining", "bos", "suffix", "chat", "system")
SAMPLING = ("downsample", "delays")
# No ratio to a lower ceiling is formed, unless a protocol says otherwise: it is noise of any size.
CEILING_FLOOR = 0.05

# What belongs to each kind: metrics, and ceilings.
_METRICS = {
    "encoding": ("pearson_r", "r2"),
    "reading_time": ("abs_pearson_r",),
    "next_word": ("cross_entropy",),
}
_CEILINGS = {
    "encoding": ("none", "leave_one_subject_out", "extrapolated"),
    "reading_time": ("none", "split_half"),
}


def _check_choice(name: str, value: object, kind) -> None:
    allowed = get_args(kind)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extraction:
    """How a model reads the stimuli, and how its activations come to the samples.

    Attributes:
      context, one_stream, pooling, tap, joining, bos, suffix, chat, system: settings of these names
        of the stage extract.
      downsample: words to TRs, of timed responses alone.
      delays: in TRs, of timed responses alone.
      free: which of these the protocol leaves open. Its source says nothing about them, or leaves
        them to the model; what stands here is then what is taken where nobody says otherwise.
    """

    context: str = "accumulate:slide"
    one_stream: bool = False
    pooling: str = "last"
    tap: str = "residual"
    joining: str = "text"
    bos: str = ""
    suffix: str = ""
    chat: bool = False
    system: str = ""
    downsample: str = "mean"
    delays: tuple[int, ...] = (1, 2, 3, 4)
    free: tuple[str, ...] = ()

    def __post_init__(self):
        if unknown := set(self.free) - set(READING + SAMPLING):
            raise ValueError(
                f"extraction.free must be among {', '.join(READING + SAMPLING)}, got "
                f"{min(unknown)!r}."
            )

    @property
    def fixed(self) -> dict[str, Any]:
        """What the protocol fixes, by setting."""
        return {x: getattr(self, x) for x in READING + SAMPLING if x not in self.free}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Folds:
    """Which samples are tested, by training on which.

    Attributes:
      rule: "shuffled" draws single samples, again and again (scikit-learn's ShuffleSplit);
        "shuffled_groups" draws whole groups (GroupKFold with shuffle); "kfold" cuts contiguous
        blocks without a gap (KFold); "blocks" cuts blocks of whole groups, or contiguous ones, with
        a gap (`folds.grouped_folds`, `folds.contiguous_folds`); "trimmed" is
        `folds.trimmed_folds`; "test_set" tests on samples that come with the data.
      num: folds; 0 for "test_set".
      seed: of a shuffled rule.
      train_share: of the samples that "shuffled" trains on.
      gap: samples dropped between training and test, or trimmed.
    """

    rule: FoldRule
    num: int = 0
    seed: int = 0
    train_share: float = 0.9
    gap: int = 0

    def __post_init__(self):
        _check_choice("folds.rule", self.rule, FoldRule)
        least = {"test_set": 0, "blocks": 3}.get(self.rule, 2)
        if self.num < least or (self.rule == "test_set" and self.num):
            raise ValueError(
                f"folds.num must be >= {least} for {self.rule!r}"
                f"{' and no more' if self.rule == 'test_set' else ''}, got {self.num}."
            )
        if self.gap < 0:
            raise ValueError(f"folds.gap must be >= 0, got {self.gap}.")
        if not 0 < self.train_share < 1:
            raise ValueError(f"folds.train_share must lie in 0..1, got {self.train_share}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaling:
    """What is done to features and responses before the regression.

    Attributes:
      pca: components of the features, fitted on each training set, before delays; 0: none.
      within_runs: mean 0 and variance 1 within each run, for "responses", or for "both" them and
        features (after delays).
      features: "training" divides by the standard deviations of each training set; "each_side"
        gives the training set and the test set mean 0 and variance 1, each by its own statistics.
      responses: "as_given", or "each_side".
      intercept: leave a constant free of penalty, which centres by the means of training sets.
    """

    pca: int = 0
    within_runs: Literal["none", "responses", "both"] = "none"
    features: Sides = "as_given"
    responses: Sides = "as_given"
    intercept: bool = True

    def __post_init__(self):
        _check_choice("scaling.features", self.features, Sides)
        _check_choice("scaling.within_runs", self.within_runs, Literal["none", "responses", "both"])
        if self.responses not in ("as_given", "each_side"):
            raise ValueError(
                f"scaling.responses must be one of as_given, each_side, got {self.responses!r}."
            )
        if self.pca < 0:
            raise ValueError(f"scaling.pca must be >= 0, got {self.pca}.")
        if self.features == "training" and not self.intercept:
            raise ValueError("scaling.features 'training' needs an intercept: it centres too.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalty:
    """Penalties of the ridge, and what chooses among them inside each training set.

    Attributes:
      grid: to choose from; (0.0,) is least squares of minimum norm.
      squared: the grid holds roots: what multiplies the squared weights is alpha squared.
      choose: "none" where there is one, and no layer to choose; "loo" leaves out single samples and
        "gcv" is generalised cross-validation, both in closed form; "kfold" cuts contiguous blocks
        of the training set; "blocks" takes the other outer blocks; "chunks" holds out random
        chunks, again and again.
      num: inner folds of "kfold"; how often, for "chunks".
      chunk, num_chunks, seed: samples of a chunk, how many are held out, seed of their draws.
      criterion: squared error; the same over the target's variance in the inner test set (1 - R2);
        or correlation.
      per_target: choose for each target; if not, one for all of them.
    """

    grid: tuple[float, ...]
    squared: bool = False
    choose: Choice = "none"
    num: int = 0
    chunk: int = 0
    num_chunks: int = 0
    seed: int = 0
    criterion: Criterion = "squared_error"
    per_target: bool = True

    def __post_init__(self):
        _check_choice("penalty.choose", self.choose, Choice)
        _check_choice("penalty.criterion", self.criterion, Criterion)
        values = np.array(self.grid, np.float64)
        if not len(values) or not np.isfinite(values).all() or (np.diff(values) <= 0).any():
            raise ValueError(f"penalty.grid must ascend, got {self.grid}.")
        if self.grid != (0.0,) and values[0] <= 0:
            raise ValueError(f"penalty.grid must be positive (or 0 alone), got {self.grid}.")
        if self.choose == "none" and len(values) > 1:
            raise ValueError(
                f"penalty.choose must say how: there are {len(values)} to choose from."
            )
        if self.grid == (0.0,) and self.choose in ("loo", "gcv"):
            raise ValueError(f"penalty.choose {self.choose!r} is not for least squares.")
        if self.choose in ("kfold", "chunks") and self.num < (2 if self.choose == "kfold" else 1):
            raise ValueError(f"penalty.num is too small for {self.choose!r}, got {self.num}.")
        if self.choose == "chunks" and min(self.chunk, self.num_chunks) < 1:
            raise ValueError(
                "penalty.chunk and penalty.num_chunks must be >= 1, got "
                f"{self.chunk} and {self.num_chunks}."
            )
        if self.choose == "gcv" and self.criterion != "squared_error":
            raise ValueError("penalty.choose 'gcv' is of squared errors.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Aggregation:
    """How scores of single folds and targets become one number.

    Attributes:
      first: whether targets or folds are summarised first; folds are always averaged.
      targets: "mean" or "median".
      subjects: "pooled" takes the targets of all subjects together; "mean" summarises those of
        each subject, and averages subjects.
      undefined: "skip" leaves an undefined score out of each summary; "drop_target" leaves out the
        target with one in any fold; "zero" takes it for 0, as other packages do.
      layers: "maximum" takes the layer with the highest score, on the data it is scored on;
        "mean" averages over layers; "nested" lets each fold choose a layer for each subject by
        its score on the inner splits.
    """

    first: Literal["targets", "folds"] = "folds"
    targets: Literal["mean", "median"] = "mean"
    subjects: Literal["mean", "pooled"] = "mean"
    undefined: Literal["skip", "drop_target", "zero"] = "drop_target"
    layers: Literal["maximum", "mean", "nested"] = "nested"

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_choice(f"aggregation.{field.name}", getattr(self, field.name), field.type)
        if self.first == "targets" and (
            self.subjects != "pooled" or self.undefined == "drop_target"
        ):
            raise ValueError(
                "aggregation.first 'targets' goes with pooled subjects, and drops no target."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything that fixes a score.

    Attributes:
      name: key of the table.
      source: where it is written down.
      kind: "encoding" predicts responses from features; "reading_time" correlates surprisal with
        reading times; "next_word" is a model's loss; "average" is the mean over data sets.
      extraction: how the model reads the stimuli.
      folds, scaling, penalty: of "encoding" alone.
      metric: what is reported of each fold and target.
      epsilon: added to either norm of a correlation.
      aggregation: see there.
      ceiling: which ceiling belongs to it. "leave_one_subject_out" correlates subjects whose
        targets are comparable, "extrapolated" predicts subjects from one another, and "split_half"
        is of reading times; see `core/ceilings/of_protocol.py` and `core/behavior/surprisal.py`.
      normalize: "none" reports the raw score; "clip" divides by the ceiling and cuts to 0..1;
        "per_target" divides each target by its own ceiling.
      ceiling_floor: ceilings below it are not divided by: the ratio to a ceiling that is hardly
        above 0 is noise of any size. Such ratios are undefined, and counted.
      parts: of "average", (data sets whose mean is one term, protocol of each).
    """

    name: str
    source: str
    kind: Kind = "encoding"
    extraction: Extraction = Extraction()
    folds: Folds | None = None
    scaling: Scaling = Scaling()
    penalty: Penalty | None = None
    metric: Metric = "pearson_r"
    epsilon: float = 0.0
    aggregation: Aggregation = Aggregation()
    ceiling: Ceiling = "none"
    normalize: Literal["none", "clip", "per_target"] = "none"
    ceiling_floor: float = CEILING_FLOOR
    parts: tuple[tuple[tuple[str, ...], str], ...] = ()

    def __post_init__(self):
        for name, kind in (("kind", Kind), ("metric", Metric), ("ceiling", Ceiling)):
            _check_choice(name, getattr(self, name), kind)
        if (self.kind == "encoding") != (self.folds is not None and self.penalty is not None):
            raise ValueError(f"{self.name}: folds and penalty belong to kind 'encoding' alone.")
        if (self.kind == "average") != bool(self.parts):
            raise ValueError(f"{self.name}: parts belong to kind 'average' alone.")
        for name, table in (("metric", _METRICS), ("ceiling", _CEILINGS)):
            value = getattr(self, name)
            allowed = table.get(self.kind, ("none",) if name == "ceiling" else get_args(Metric))
            if value not in allowed:
                raise ValueError(
                    f"{self.name}: {name} of kind {self.kind!r} must be one of "
                    f"{', '.join(allowed)}, got {value!r}."
                )
        if self.ceiling == "leave_one_subject_out" and self.metric != "pearson_r":
            raise ValueError(f"{self.name}: ceiling 'leave_one_subject_out' is of correlations.")
        if not 0 < self.ceiling_floor < 1:
            raise ValueError(
                f"{self.name}: ceiling_floor must lie in 0..1, got {self.ceiling_floor}."
            )
        if self.epsilon and self.metric != "pearson_r":
            raise ValueError(f"{self.name}: epsilon belongs to norms of correlations.")
        if self.kind != "encoding":
            return
        folds, penalty = self.encoding
        chosen_inside = penalty.choose in ("kfold", "chunks", "blocks")
        if penalty.choose == "blocks" and folds.rule not in ("blocks", "shuffled_groups"):
            raise ValueError(f"{self.name}: inner blocks need outer folds of blocks or groups.")
        if penalty.criterion == "relative_error" and not chosen_inside:
            raise ValueError(f"{self.name}: a relative error needs inner test sets.")
        if self.aggregation.layers == "nested" and penalty.choose == "none":
            raise ValueError(f"{self.name}: nested layers need something inside that chooses.")

    @property
    def content(self) -> dict[str, Any]:
        """What fixes a score, as plain JSON: all but where it is written down.

        How stimuli are read and brought to samples is not there: whoever reads them says so.
        """
        found = dataclasses.asdict(self)
        return {x: found[x] for x in found if x not in ("source", "extraction")}

    @property
    def is_shuffled(self) -> bool:
        """Whether neighbouring samples are trained and tested on."""
        return self.folds is not None and self.folds.rule == "shuffled"

    @property
    def encoding(self) -> tuple[Folds, Penalty]:
        """What only an encoding protocol has.

        Raises:
          ValueError: if it is of another kind.
        """
        if self.folds is None or self.penalty is None:
            raise ValueError(f"{self.name} must be of kind 'encoding', got {self.kind!r}.")
        return self.folds, self.penalty
