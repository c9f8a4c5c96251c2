"""Settings of the encoding stage."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Annotated

from jaxalign.checks import (
    Count,
    Names,
    NotNegative,
    Penalties,
    Rule,
    among,
    at_least,
    check,
    differ,
    fraction,
    one_of,
    positive,
)
from jaxalign.core import clock
from jaxalign.core.scores.protocol import SAMPLING, Protocol
from jaxalign.core.solver import banded
from jaxalign.data.controls import CONTROLS, DEFAULT, PARTITION
from jaxalign.errors import InputError
from jaxalign.literature import protocols

# What every protocol by name fixes; what it says of reading and samples is in its `extraction`.
FIXED = ("alphas", "num_folds", "gap", "groups", "group_seed", "standardize", "pca", "units")
GROUPS = ("none", "passage", "dataset")
SEARCH = ("adaptive", "grid", "bound")
SHUFFLE = ("run", "all")
ORDERS = ("shift", "block", "row")
COMPUTED, PUBLISHED = CEILINGS = ("computed", "published")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the encoding stage."""

    # A protocol by name (literature/protocols.py), which fixes what `FIXED` lists and, unless its
    # name ends in "-own-reading", how stimuli are read and brought to samples; "": the settings.
    protocol: str = ""
    test_runs: tuple[str, ...] = ()  # of protocols that need a test set
    # Published for the protocol on these data; 0: none is known.
    protocol_ceiling: Annotated[float, at_least(0)] = 0.0
    # Subsets of subjects, of each size, from which a protocol's extrapolated ceiling is found where
    # none is published; 0: it stays undefined.
    max_subsets: NotNegative = 0
    alphas: Penalties = tuple(10.0 ** (k / 2) for k in range(-2, 15))
    # "grid": compute the inner error of every penalty; "bound": of those that could be best;
    # "adaptive": whichever costs less.
    search: Annotated[str, one_of(SEARCH)] = "adaptive"
    num_folds: Annotated[int, at_least(3)] = 6
    gap: NotNegative = 0  # samples dropped from training on either side of a test block
    # "passage": folds never divide a passage; "dataset": nor what the data set says belongs
    # together, such as passages on one topic.
    groups: Annotated[str, one_of(GROUPS)] = "none"
    # Draws which groups make a fold, as scikit-learn's GroupKFold does; -1: those that follow each
    # other, which are of one experiment each where a data set has one after another.
    group_seed: Annotated[int, at_least(-1)] = -1
    # Words to TRs: "mean" or "sum" within the TR, or "lanczos". Left as it is, or `delays`: what
    # the protocol fixes, if it does.
    downsample: Annotated[str, one_of(clock.DOWNSAMPLES)] = "mean"
    # In TRs; responses to single stimuli take (0,).
    delays: Annotated[
        tuple[int, ...],
        Rule(
            "be different and >= 0",
            lambda x: len(x) and min(x) >= 0 and len(set(x)) == len(x),
        ),
    ] = (0,)
    standardize: bool = True  # features to unit variance over each training set
    # Components of a network's features, fitted on each outer training set before delays, and
    # scaled as features are; 0: the features themselves.
    pca: NotNegative = 0
    # Units of a network, drawn at random of each layer, that its features are; all folds have the
    # same ones, and so have controls made of the same layer. 0: all.
    units: NotNegative = 0
    controls: Annotated[Names, among(CONTROLS)] = DEFAULT
    # Share of a run by which `shifted` is late, circularly.
    shift: Annotated[float, fraction] = 1 / 3
    # `shuffled` permutes the samples within each run, or with "all" all.
    shuffle: Annotated[str, one_of(SHUFFLE)] = "run"
    oasm_sigma: Annotated[float, positive] = 1.0  # of `oasm`, in samples; published: 0.1 to 4.8
    # File that `frequency` reads: see data/word_tables.py. "": the data set says it of its words.
    frequency_table: str = ""
    word_vectors: str = ""  # file that `word_vectors` reads
    # Controls that each network is joined with, all of them together, a band for each: what they
    # and the network explain alone and share, in rows of their own. (): no such rows.
    partition: Annotated[Names, among(PARTITION)] = ()
    # How many weights of these bands are drawn, and rounds that refine them: see
    # core/solver/banded.py.
    partition_draws: NotNegative = banded.NUM_DRAWS
    partition_rounds: NotNegative = banded.ROUNDS
    # Orders of the responses that each network's scores are tested against, each fitted anew; 0: no
    # test. Time series are "shift"ed circularly in each run, or cut into "block"s of neighbours, of
    # `order_block` samples; "row" is for samples that are independent.
    permutations: NotNegative = 0
    orders: Annotated[str, one_of(ORDERS)] = "shift"
    order_block: NotNegative = 0
    layers: Annotated[tuple[int, ...], differ] = ()  # of every network; (): all
    rois: Names = ()  # (): all
    ceiling_splits: Count = 100  # random halves of the participants
    # Of subjects' targets: "computed" from the other subjects, or the roots of those that the data
    # set has "published" (NSD's ncsnr), by which each target's score is then divided.
    ceilings: Annotated[str, one_of(CEILINGS)] = COMPUTED
    # Of models that were given several instructions. The one whose variance is divided from that of
    # each other one; "": none.
    beside: str = ""
    # Draws of the test of the best instruction against the second: which images' predictions are
    # swapped; 0: no test.
    swaps: NotNegative = 0

    def __post_init__(self):
        check(self, "encode")
        if self.protocol:
            self._check_protocol()
        if self.partition and protocol(self).encoding[1].choose != "blocks":
            raise InputError(
                "encode.partition needs a protocol that chooses penalties on inner blocks, got "
                f"{self.protocol}."
            )
        if self.ceilings == PUBLISHED and (self.protocol_ceiling or self.max_subsets):
            raise InputError(
                "encode.ceilings must be 'computed' where encode.protocol_ceiling or "
                "encode.max_subsets gives one, got 'published'."
            )
        if self.compares and protocol(self).metric != "pearson_r":
            raise InputError(
                "encode.beside and encode.swaps need a protocol whose metric is a correlation, got "
                f"{self.protocol}."
            )
        if self.group_seed >= 0 and (self.groups == "none" or self.gap):
            raise InputError(
                "encode.group_seed needs encode.groups, and leaves no gap: got groups "
                f"{self.groups!r}, gap {self.gap}."
            )
        if self.orders == "block" and not self.order_block:
            raise InputError(f"encode.order_block must be >= 1, got {self.order_block}.")
        num_components = protocol(self).scaling.pca
        if self.units and num_components:
            raise InputError(
                f"encode.units must be 0 where there are components instead of units: got "
                f"{self.units} and a PCA to {num_components}."
            )
        for control, (setting, path) in files(self).items():
            if control in (*self.controls, *self.partition) and not path:
                raise InputError(f"encode.{setting} must name the file that {control!r} reads.")

    @property
    def compares(self) -> bool:
        """Whether instructions of a model are compared with one another."""
        return bool(self.beside or self.swaps)

    def _check_protocol(self):
        kind = protocols.find(self.protocol).kind
        if kind != "encoding":
            raise InputError(
                f"encode.protocol must be of kind 'encoding', but {self.protocol} is of {kind!r}."
            )
        changed = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }
        for name in FIXED:
            if name in changed:
                raise InputError(
                    f"encode.{name} must be left as it is, for protocol {self.protocol} fixes it: "
                    f"got {changed[name]}."
                )
        protocols.refuse_other_readings(protocol(self), changed, "encode")


def files(config: Config) -> dict[str, tuple[str, str]]:
    """Return controls that read a file, with the setting that names it and its value."""
    found = {"word_vectors": ("word_vectors", config.word_vectors)}
    if config.frequency_table:
        found["frequency"] = ("frequency_table", config.frequency_table)
    return found


def protocol(config: Config) -> Protocol:
    """Return the protocol asked for, or that of the settings."""
    if config.protocol:
        return protocols.find(config.protocol)
    return protocols.nested_ridge(
        alphas=config.alphas,
        num_folds=config.num_folds,
        gap=config.gap,
        group_seed=config.group_seed,
        standardize=config.standardize,
        pca=config.pca,
    )


def tables(config: Config, names: Sequence[str]) -> dict[str, pathlib.Path]:
    """Return the files that some controls read, by control."""
    return {x: pathlib.Path(path) for x, (_, path) in files(config).items() if x in names}


def resolved(config: Config, *, is_timed: bool) -> Config:
    """Return settings with what the protocol fixes about samples in place of defaults."""
    if not is_timed:  # there are no TRs
        return config
    fixed = protocol(config).extraction.fixed
    return dataclasses.replace(config, **{x: fixed[x] for x in SAMPLING if x in fixed})
