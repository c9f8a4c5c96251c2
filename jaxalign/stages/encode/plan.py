"""Planning of the encoding stage: checks, and one step per network, control and partition."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging

from jaxalign.core import features, leaks
from jaxalign.core import folds as folds_lib
from jaxalign.core.scores import scoring
from jaxalign.core.scores.protocol import READING
from jaxalign.data import controls, same_stimulus
from jaxalign.data.datasets import Dataset
from jaxalign.data.schema import Responses, Stimuli
from jaxalign.errors import InputError
from jaxalign.io.run_dir import Artefact
from jaxalign.literature import protocols
from jaxalign.results import targets
from jaxalign.stages import Job, Step, Upstream, artefacts
from jaxalign.stages import responses as responses_lib
from jaxalign.stages.artefacts import (
    Activations,
    Comparison,
    Partition,
    Scores,
    Significance,
)
from jaxalign.stages.encode import config as config_lib
from jaxalign.stages.encode import fingerprints, inputs, instructed, make, permute, reference
from jaxalign.stages.encode import work as work_lib
from jaxalign.stages.encode.config import Config
from jaxalign.stages.encode.inputs import Features


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan one set of rows per network and control.

    Raises:
      InputError: if responses are missing or malformed, or a layer, ROI or control is not there.
    """
    stores = artefacts.networks(upstream)
    simulated = responses_lib.planted("encode", config.rois, upstream)
    if simulated:
        planned = _planned_samples(job.dataset.stimuli)
        of_planted = simulated[0].settings
        num_targets = (of_planted["num_subjects"] + 1) * of_planted["num_targets"]
    elif stand_in := job.dataset.stand_in:
        if config.rois:
            raise InputError(
                f"encode.rois must be () for {job.dataset.name}, which is not here: the published "
                f"size is that of all targets, got {config.rois}."
            )
        planned, num_targets = stand_in.samples(), stand_in.size.num_targets
    else:
        planned = job.dataset.responses
        kept, left_out = targets.checked(planned, config.rois, stage="encode")
        num_targets = work_lib.count_targets(kept)
        for subject in left_out:
            logging.warning(
                "encode: subject %s is left out: every target is constant (%d of %d subjects)",
                subject,
                len(left_out),
                len(set(planned.subject)),
            )
    config = config_lib.resolved(config, is_timed=planned.is_timed)
    folds = _checked_folds(config, planned, job.dataset)
    shortest = min(len(fold.outer.train) for fold in folds)
    for control in (*config.controls, *config.partition):
        controls.check(control, job.dataset.stimuli)
    num_orders = permute.check(config, planned) if config.permutations else 0
    fixed = fingerprints.of_targets(config, job, planned, is_planted=bool(simulated))
    is_apart = config.protocol and config_lib.protocol(config).is_shuffled
    apart = inputs.contiguous(config, planned, job.dataset) if is_apart else None
    sizes = work_lib.Sizes(config, folds, len(planned.run), num_targets, apart[1] if apart else ())
    if simulated and config.ceilings == config_lib.PUBLISHED:
        raise InputError("encode.ceilings must be 'computed' for simulated responses.")
    published = fingerprints.of_ceilings(config, job)
    shared = _Shared(config, job, fixed, simulated, sizes, published)
    if not any(_has(x, y) for x in stores.values() for y in controls.OF_ANSWERS):
        _refuse_of_answers(config)
    steps = reference.plan(config, job, planned, simulated, fixed)
    ceilings = [step.artefact for step in steps]
    alone_of: dict[str, Artefact] = {}
    for name, source in stores.items():
        _check_network(config, name, source, shortest)
        set_of = functools.partial(_feature_set, upstream, source)
        network = Features(source.model, "", source)
        others = tuple(set_of("partition", x) for x in config.partition)
        lacking = [x for x in controls.OF_ANSWERS if not _has(source, x)]
        if lost := [x for x in config.partition if x in lacking]:
            raise InputError(
                f"encode.partition must not have {lost[0]!r}, which {name} has nothing to make of: "
                "it is given no instruction, or answers none."
            )
        fit = [x for x in config.controls if x not in lacking]
        alone = (network, *(set_of("controls", x) for x in fit))
        for features_of in (*alone, *others):
            _check_units(config, features_of)
        costs = [_cost(config, x, len(planned.run), len(folds)) for x in alone]
        scored = [_scores(shared, x, ceilings, cost) for x, cost in zip(alone, costs, strict=True)]
        steps += scored
        alone_of[name] = scored[0].artefact
        if config.partition:
            steps.append(_partition(shared, network, others, scored[0].artefact))
        if config.permutations:
            steps.append(_significance(shared, network, num_orders, costs[0]))
    return steps + (_comparisons(shared, stores, alone_of) if config.compares else [])


class _Shared(NamedTuple):
    """What all steps of a plan have in common."""

    config: Config
    job: Job
    fixed: dict  # what fixes targets and folds
    planted: tuple[Artefact, ...]  # responses, where nobody was recorded
    sizes: work_lib.Sizes
    published: dict  # what fixes published ceilings


def _has(source: Activations, control: str) -> bool:
    """Whether a network was asked, and answered, what a control is made of."""
    if control == "instruction_alone":
        return bool(source.reading["instruction"]) and source.label != source.model
    return source.settings.get("answers", "none") != "none"


def _refuse_of_answers(config: Config) -> None:
    """Refuse controls that are made of answers, where no network was asked anything."""
    for where in ("controls", "partition"):
        if found := [x for x in getattr(config, where) if x in controls.OF_ANSWERS]:
            raise InputError(
                f"encode.{where} must not have {found[0]!r} unless a network is given instructions "
                "(extract.instructions), and answers them."
            )


def _scores(shared: _Shared, features_of: Features, ceilings, cost: str) -> Step:
    config, job, fixed, planted, sizes = shared[:5]
    name = features_of.source.label
    artefact = Artefact(
        workdir=job.root,
        stage="encode",
        kind=Scores.kind,
        name=name + (f" {features_of.model}" if features_of.control_of else ""),
        settings=fingerprints.of_scores(config, job, fixed, features_of) | shared.published,
        inputs=(*features_of.inputs, *planted, *ceilings),
        cost=cost,
    )
    run = functools.partial(make.encode, config, job, features_of)
    taken = work_lib.of_scores(features_of, sizes)
    return Step(artefact=artefact, make=run, work=taken, together=True)


def _partition(
    shared: _Shared, network: Features, others: Sequence[Features], alone: Artefact
) -> Step:
    """Plan a network with all controls of the partition.

    The regression on the network alone is read from its scores, `alone`. These are no input:
    ceilings are part of them, and have no part in this.
    """
    config, job, fixed, planted, sizes = shared[:5]
    sources = [x for features_of in (network, *others) for x in features_of.inputs]
    artefact = Artefact(
        workdir=job.root,
        stage="encode",
        kind=Partition.kind,
        name=f"{network.source.label} with {' + '.join(config.partition)}",
        settings=fingerprints.of_partition(config, job, fixed, network, others),
        inputs=(*sources, *planted),
        cost=f"{alone.cost}, for each weight of the bands",
    )
    run = functools.partial(make.join, config, job, network, others, alone)
    taken = work_lib.of_partition(network, others, sizes)
    return Step(artefact=artefact, make=run, work=taken, needs=(alone,), together=True)


def _significance(shared: _Shared, network: Features, num_orders: int, cost: str) -> Step:
    config, job, fixed, planted, sizes = shared[:5]
    artefact = Artefact(
        workdir=job.root,
        stage="encode",
        kind=Significance.kind,
        name=f"{network.source.label} permuted",
        settings=fingerprints.of_significance(config, job, fixed, network, num_orders),
        inputs=(*network.inputs, *planted),
        cost=f"{cost}, and sweeps of {num_orders} orders",
    )
    run = functools.partial(permute.test, config, job, network)
    taken = work_lib.of_significance(network, sizes, num_orders)
    return Step(artefact=artefact, make=run, work=taken, together=True)


def _comparisons(
    shared: _Shared, stores: Mapping[str, Activations], alone: Mapping[str, Artefact]
) -> list[Step]:
    """Plan what the instructions of each model give beside one another."""
    config, job, fixed, planted, sizes = shared[:5]
    asked: dict[str, list[str]] = {}
    for label, source in stores.items():
        if source.reading["instruction"] and label != source.model:
            asked.setdefault(source.model, []).append(label)
    several = {model: labels for model, labels in asked.items() if len(labels) > 1}
    if not several:
        raise InputError(
            "encode.beside and encode.swaps must be left as they are unless a model is given two "
            "instructions or more (extract.instructions)."
        )
    steps = []
    for model, labels in several.items():
        every = [Features(model, "", stores[x]) for x in labels]
        texts = [x.source.reading["instruction"] for x in every]
        if config.beside and config.beside not in texts:
            raise InputError(
                f"encode.beside must be an instruction that {model} is given, one of {texts}, got "
                f"{config.beside!r}."
            )
        artefact = Artefact(
            workdir=job.root,
            stage="encode",
            kind=Comparison.kind,
            name=f"{model}: {len(labels)} instructions",
            settings=fingerprints.of_comparison(config, job, fixed, every) | shared.published,
            inputs=(*(x.source.artefact for x in every), *planted),
            cost=f"{len(labels)} instructions, {config.swaps} swaps",
        )
        scored = tuple(alone[x] for x in labels)
        run = functools.partial(instructed.compare, config, job, every, scored)
        taken = work_lib.of_comparison(every, sizes)
        steps.append(Step(artefact=artefact, make=run, work=taken, needs=scored, together=True))
    return steps


def _feature_set(upstream: Upstream, source: Activations, where: str, control: str) -> Features:
    """Return what a control is made of that stands next to the network of `source`."""
    name = source.label
    stores, needed = {name: source}, ""
    needs_network = (*controls.UNTRAINED_CONTROLS, "static_embedding")
    if control in needs_network and name in artefacts.imported(upstream):
        raise InputError(
            f"encode.{where} must not have {control!r}, which needs the network itself: of {name} "
            "there are only activations that were imported."
        )
    if control in controls.UNTRAINED_CONTROLS:
        stores, needed = artefacts.untrained(upstream), "untrained_seed must be >= 0"
    elif control == "static_embedding":
        stores, needed = artefacts.static(upstream), "static_embedding must be True"
    if name not in stores:
        raise InputError(f"encode.{where} has {control!r}, so extract.{needed}.")
    return Features(control, source.model, stores[name])


def _check_network(config: Config, name: str, source: Activations, shortest: int) -> None:
    """Refuse settings that do not fit a network, and a reading that the protocol does not allow.

    Activations that were imported were read by others, who say how (docs/datasets/own.md).
    """
    if source.artefact.kind != Activations.IMPORTED:
        reading = {name: source.settings[name] for name in READING}
        protocols.refuse_other_readings(config_lib.protocol(config), reading, "extract")
    width = source.width
    if config.pca > min(width, shortest - 1):
        raise InputError(
            f"encode.pca must be at most {min(width, shortest - 1)} for {name} ({width} units, "
            f"{shortest} training samples), got {config.pca}."
        )
    source.check_layers("encode", config.layers)


def _check_units(config: Config, features_of: Features) -> None:
    """Refuse to draw more units than there are."""
    width = features_of.source.width
    if features_of.model not in controls.STIMULUS_CONTROLS and config.units > width:
        of = f"{features_of.model} of " if features_of.control_of else ""
        name = features_of.control_of or features_of.model
        raise InputError(
            f"encode.units must be at most {width}, the width of {of}{name}, got {config.units}."
        )


def _planned_samples(stimuli: Stimuli) -> Responses:
    """Return the samples that the simulate stage will make, without targets."""
    return Responses(
        values=np.zeros((len(stimuli), 0)),
        run=stimuli.run,
        subject=[],
        roi=[],
        target=[],
        units="",
        stimulus_id=stimuli.stimulus_id,
    )


def _checked_folds(
    config: Config, responses: Responses, dataset: Dataset
) -> tuple[folds_lib.Fold, ...]:
    """Refuse settings that do not fit the samples, and samples that do not fit the stimuli."""
    if responses.is_timed and config.groups != "none":
        raise InputError(
            f"encode.groups must be 'none' for timed responses, got {config.groups!r}."
        )
    if not responses.is_timed and config.delays != (0,):
        raise InputError(
            f"encode.delays must be (0,) for responses to single stimuli, got {config.delays}."
        )
    dataset.check_samples(responses, max(config.delays))
    short = [run for run, place in features.members(responses.run).items() if len(place) < 2]
    moved = ("shifted", "shuffled") if config.shuffle == "run" else ("shifted",)
    if short and (found := [x for x in moved if x in config.controls]):
        raise InputError(
            f"encode.controls has {found[0]!r}, so every run must have at least 2 samples: run "
            f"{short[0]!r} has 1."
        )
    kept, protocol = inputs.groups(config, responses, dataset), config_lib.protocol(config)
    items = dataset.items(responses)
    try:
        folds = inputs.make_folds(config, protocol, responses, kept=kept, items=items)
        if items is not None:
            found = scoring.repeated(protocol, folds, items)
            if found.num_repeated:
                logging.warning("encode: %s", leaks.remark(protocol.name, found))
    except scoring.TooFewGroupsError as error:
        fits = protocols.with_fewer_folds(error.protocol, error.num_groups)
        raise InputError(f"encode: {error}: {fits}.") from error
    except ValueError as error:
        which = "" if items is None else same_stimulus.example(responses, items)
        raise InputError(f"encode: {error}{which}") from error
    if protocol.is_shuffled and not inputs.contiguous(config, responses, dataset):
        logging.warning(
            "encode: %d samples do not suffice for contiguous folds: what scores of %s are in such "
            "folds stays undefined",
            len(responses.run),
            protocol.name,
        )
    return folds


def _cost(config: Config, features_of: Features, n: int, k: int) -> str:
    layers = len(features_of.layers(config))
    return f"{layers} layers x {k + k * (k - 1) // 2} training sets, {n} samples"
