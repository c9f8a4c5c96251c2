"""What the encoding stage's artefacts take, from the sizes of features, samples and targets."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from jaxalign.core.folds import Fold
from jaxalign.core.scores import scoring
from jaxalign.core.scores.protocol import Protocol
from jaxalign.core.solver import ridge
from jaxalign.core.solver.method import Execution
from jaxalign.core.solver.outline import EXPECTED_PENALTIES, Outline
from jaxalign.data import controls
from jaxalign.data.images import lowlevel, said
from jaxalign.data.schema import Responses
from jaxalign.pricing import solver
from jaxalign.pricing.work import Layout, Priced, Work
from jaxalign.stages.encode import config as config_lib
from jaxalign.stages.encode.config import Config
from jaxalign.stages.encode.inputs import Features

ROWS_BYTES = 3e4  # of rows.parquet, and of the files beside it
# Seconds to read responses, make folds and ceilings of the targets, and write rows, as measured.
AROUND_S = 0.5


class Sizes(NamedTuple):
    """What is scored against what.

    Attributes:
      config: settings.
      folds: of the samples.
      num_samples: rows of the responses.
      num_targets: columns that are fitted, the group's among them.
      apart: contiguous folds in which a protocol with shuffled ones is scored, too; () without.
    """

    config: Config
    folds: Sequence[Fold]
    num_samples: int
    num_targets: int
    apart: Sequence[Fold] = ()

    @property
    def protocol(self) -> Protocol:
        """The protocol, or that of the settings."""
        return config_lib.protocol(self.config)


def count_targets(responses: Responses) -> int:
    """Return the targets of all subjects, and those of the group's mean: what all of them have.

    Args:
      responses: that are scored.
    """
    names: dict[str, set[tuple[str, str]]] = {}
    for subject, *name in zip(responses.subject, responses.roi, responses.target, strict=True):
        names.setdefault(subject, set()).add(tuple(name))
    shared = set.intersection(*names.values()) if len(names) > 1 else ()
    return len(responses.subject) + len(shared)


def num_features(features_of: Features, sizes: Sizes) -> int:
    """Return the columns of the design matrix.

    Args:
      features_of: a network or a control.
      sizes: see there.
    """
    units = features_of.num_units(sizes.config, sizes.protocol)
    if features_of.model in controls.STIMULUS_CONTROLS:
        widths = lowlevel.WIDTHS | {"oasm": sizes.num_samples, "word_vectors": 300}
        widths |= {"instruction_alone": 1, "answer_length": 3, "answer_words": said.NUM_WORDS}
        units = widths.get(features_of.model, 2)
    return units * len(sizes.config.delays)


def of_scores(features_of: Features, sizes: Sizes) -> Priced:
    """Return the work of scoring every layer of a feature set.

    Args:
      features_of: a network or a control.
      sizes: see there.
    """
    layers = len(features_of.layers(sizes.config))

    def count(layout: Layout) -> Work:
        one = _layer(features_of, sizes, layout)
        if sizes.apart:
            one += _layer(features_of, sizes._replace(folds=sizes.apart), layout)
        all_of_them = dataclasses.replace(
            one.times(layers), disk_bytes=layers * one.disk_bytes + ROWS_BYTES
        )
        return all_of_them + Work(host_s=AROUND_S)

    return count


def flop(
    features_of: Features, sizes: Sizes, mesh: Mesh, tried: Mapping[bool, Sequence[float]]
) -> dict[str, float]:
    """Return the operations of layers that were scored, by kind.

    Args:
      features_of: a network or a control.
      sizes: see there.
      mesh: devices that have divided the targets.
      tried: penalties for each target and fold, of each layer that was scored; under True of those
        that were scored in the folds of `apart`.
    """
    is_cpu = mesh.devices.flat[0].platform == "cpu"
    layout, total = Layout(mesh.shape["data"], mesh.shape["model"], is_cpu), Work()
    for is_apart, every in tried.items():
        if every:
            own = sizes._replace(folds=sizes.apart if is_apart else sizes.folds)
            one = _layer(features_of, own, layout, float(np.mean(every)))
            total += one.times(len(every))
    return dict(total.flop)


def of_partition(features_of: Features, others: Sequence[Features], sizes: Sizes) -> Priced:
    """Return the work of joining every layer with controls, at each weight of the bands.

    Args:
      features_of: a network.
      others: the controls.
      sizes: see there.
    """
    config = sizes.config
    bands = 1 + len(others)
    # Equal weights, each band alone, and draws; each round of the refinement tries at most four
    # times two neighbours of each band, of which about half were tried before.
    tried = 1 + bands + config.partition_draws + config.partition_rounds * 4 * bands
    # Of a band no more columns are kept than there are samples.
    columns = [min(num_features(x, sizes), sizes.num_samples) for x in (features_of, *others)]
    layers = len(features_of.layers(config))

    def count(layout: Layout) -> Work:
        one = _fit(sizes, sum(columns), sizes.protocol, layout)
        disk = layers * 3 * one.disk_bytes + ROWS_BYTES
        return dataclasses.replace(one.times(layers * tried), disk_bytes=disk)

    return count


def of_significance(features_of: Features, sizes: Sizes, num_orders: int) -> Priced:
    """Return the work of testing every layer of a network against permuted responses.

    Args:
      features_of: a network.
      sizes: see there.
      num_orders: of the samples, each of which is a target more.
    """
    more = sizes._replace(num_targets=sizes.num_targets * (1 + num_orders))
    layers = len(features_of.layers(sizes.config))

    def count(layout: Layout) -> Work:
        one = _layer(features_of, more, layout)
        # The responses are permuted when they are read, a tile at a time.
        held = 16.0 * sizes.num_samples * (more.num_targets - sizes.num_targets)
        disk = layers * 40.0 * sizes.num_targets + ROWS_BYTES
        return dataclasses.replace(
            one.times(layers), disk_bytes=disk, host_bytes=max(one.host_bytes - held, 0.0)
        )

    return count


def of_comparison(every: Sequence[Features], sizes: Sizes) -> Priced:
    """Return the work of comparing a model's instructions.

    Each layer is fitted once more for what single images add to its scores, less than scoring it
    took, which is counted; and one instruction is joined with each other, one layer of both.

    Args:
      every: the model under each instruction.
      sizes: see there.
    """
    config = sizes.config
    tried = 1
    if (config.partition_draws or config.partition_rounds) and not each_side(sizes.protocol):
        tried = 3 + config.partition_draws + config.partition_rounds * 8

    def count(layout: Layout) -> Work:
        total = Work()
        for x in every if config.swaps else ():
            total += _layer(x, sizes, layout).times(len(x.layers(config)))
        if config.beside:
            width = 2 * num_features(every[0], sizes)
            total += _fit(sizes, width, sizes.protocol, layout).times(tried * (len(every) - 1))
        return dataclasses.replace(total, disk_bytes=len(every) * 200.0 * sizes.num_targets)

    return count


def each_side(protocol: Protocol) -> bool:
    """Whether training and test samples are scaled apart, which bands of features cannot be."""
    return "each_side" in (protocol.scaling.features, protocol.scaling.responses)


def _layer(
    features_of: Features, sizes: Sizes, layout: Layout, tried: float = EXPECTED_PENALTIES
) -> Work:
    """Return the work of scoring one layer, reading it and its components included."""
    protocol = sizes.protocol
    if features_of.model in controls.STIMULUS_CONTROLS:
        protocol = scoring.without_pca(protocol)
    found = _fit(sizes, num_features(features_of, sizes), protocol, layout, tried)
    held = 8.0 * features_of.source.settings["num_stimuli"] * features_of.source.width
    return dataclasses.replace(found, host_bytes=found.host_bytes + held) + _components(
        features_of, sizes, protocol
    )


def _components(features_of: Features, sizes: Sizes, protocol: Protocol) -> Work:
    """Return the work of the principal components of every training set."""
    c, u = protocol.scaling.pca, features_of.source.width
    if not 0 < c <= u:
        return Work()
    products = problems = 0.0
    for fold in sizes.folds:
        small, large = sorted((len(fold.outer.train), u))
        products += 2.0 * small**2 * large + 2.0 * u * c * (small + sizes.num_samples)
        problems += ridge.EIGENPROBLEM * float(small) ** 3
    return Work(flop={"factor": products, "eigen": problems})


def _fit(
    sizes: Sizes,
    num_features: int,
    protocol: Protocol,
    layout: Layout,
    tried: float = EXPECTED_PENALTIES,
) -> Work:
    """Return the work of `scoring.evaluate`, which goes fold by fold where features differ."""
    method, scaling = scoring.method_of(protocol), protocol.scaling
    if not protocol.encoding[1].per_target:
        method = method._replace(pool=np.zeros(sizes.num_targets, int))
    apart = scaling.pca or "each_side" in (scaling.features, scaling.responses)
    total = Work()
    for folds in [[x] for x in sizes.folds] if apart else [sizes.folds]:
        outline = Outline(
            num_samples=sizes.num_samples,
            num_features=num_features,
            num_targets=sizes.num_targets,
            folds=folds,
            method=method,
            execution=Execution(search=sizes.config.search),
        )
        total += solver.nested(outline, layout, tried)
    return dataclasses.replace(total, fits=1)
