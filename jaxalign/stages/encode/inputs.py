"""What the encoding stage scores, and on what: feature sets, samples, folds and targets."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core import features, leaks
from jaxalign.core import folds as folds_lib
from jaxalign.core.scores import scoring
from jaxalign.core.scores.protocol import Protocol
from jaxalign.data import controls, samples, words
from jaxalign.data.datasets import Dataset
from jaxalign.data.images import said
from jaxalign.data.presentations import SignalToNoise
from jaxalign.data.schema import Responses
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.results import normalized
from jaxalign.results import targets as targets_lib
from jaxalign.stages import Job
from jaxalign.stages import responses as responses_lib
from jaxalign.stages.artefacts import Activations
from jaxalign.stages.encode import config as config_lib
from jaxalign.stages.encode.config import Config


class Prepared(NamedTuple):
    """What all features of a data set are scored on, and how."""

    config: Config
    job: Job
    protocol: Protocol
    responses: Responses
    left_out: list[str]  # subjects
    folds: tuple[folds_lib.Fold, ...]
    num_repeated: int  # test samples that present what is trained on
    targets: targets_lib.Targets
    Y: Float[np.ndarray, "n v"]  # the targets as the protocol takes them
    lexicon: controls.Lexicon  # of those controls that look up words

    @property
    def onto(self) -> samples.Placement:
        """Where features of stimuli go."""
        lead = max(self.config.delays)
        return samples.Placement(
            self.job.dataset.stimuli, self.responses, self.config.downsample, lead
        )


class Features(NamedTuple):
    """What is scored: a network, or a control."""

    model: str  # of a control: its kind
    control_of: str
    source: Activations  # the network's store, whose context and pooling the rows name

    @property
    def inputs(self) -> tuple[Artefact, ...]:
        """What is read: nothing for a control of stimuli, which only stands next to a network."""
        is_apart = self.model in controls.STIMULUS_CONTROLS
        return () if is_apart and not self.is_of_answers else (self.source.artefact,)

    @property
    def is_of_answers(self) -> bool:
        """Whether it is made of what the network was asked and said."""
        return self.model in controls.OF_ANSWERS

    @property
    def num_layers(self) -> int:
        """Blocks of the network; 0 for features without layers, or of the embedding alone."""
        return 0 if self.model in controls.WITHOUT_LAYERS else self.source.num_layers

    @property
    def way(self) -> dict[str, str]:
        """How the network read the stimuli, as rows say it; controls of stimuli read nothing."""
        reads = self.model not in controls.STIMULUS_CONTROLS
        return rows_lib.UNKNOWN_READING | (self.source.way if reads else {})

    def layer_columns(self, layer: int) -> dict[str, str]:
        """What a layer is, as rows say it."""
        if self.model in controls.WITHOUT_LAYERS:
            return {}
        return self.source.layer_columns(layer)

    def num_units(self, config: Config, protocol: Protocol) -> int:
        """Return how many features of a layer enter, before delays; 0 of a control of stimuli."""
        if self.model in controls.STIMULUS_CONTROLS:
            return 0
        return protocol.scaling.pca or config.units or self.source.width

    def layers(self, config: Config) -> Sequence[int]:
        """Return the layers that are scored."""
        return (config.layers or self.source.layers) if self.num_layers else (0,)

    def samples(self, layer: int, data: Prepared) -> samples.Samples:
        """Read or compute the features of one layer, on the samples of the responses."""
        config, name, onto = data.config, self.model, data.onto
        if self.is_of_answers:
            values = said.features(name, self.source.answers(), onto.stimuli.stimulus_id)
            return samples.from_stimuli(values, onto)
        if name in controls.STIMULUS_CONTROLS:
            return samples.of_control(
                name, onto, lexicon=data.lexicon, oasm_sigma=config.oasm_sigma
            )
        values, seed = self.source.read_layer(layer), data.job.seed
        if config.units:
            drawn = draw_units(self.source.model, layer, values.shape[1], config.units, seed)
            values = values[:, drawn]
        found = self.source.samples(values, onto)
        if name == "shifted":
            return found._replace(values=features.shift(found.values, found.run, config.shift))
        if name == "shuffled":
            blocks = found.run if config.shuffle == "run" else np.zeros(len(found.values))
            rng = np.random.default_rng(seed)
            return found._replace(values=features.shuffle(found.values, blocks, rng))
        return found


def prepare(config: Config, job: Job, artefact: Artefact, names: Sequence[str] = ()) -> Prepared:
    """Read responses, and make folds and targets of them.

    Args:
      config: settings.
      job: as every stage has it.
      artefact: what is made.
      names: of controls, whose tables of words are read.
    """
    responses, left_out = targets_lib.select(responses_lib.read(job, artefact), config.rois)
    protocol = config_lib.protocol(config)
    items = job.dataset.items(responses)
    kept = groups(config, responses, job.dataset)
    folds = make_folds(config, protocol, responses, kept=kept, items=items)
    num_repeated = 0 if items is None else leaks.count(folds, items).num_repeated
    targets = targets_lib.assemble(responses)
    Y = targets.Y
    if protocol.scaling.within_runs == "none":  # the group's mean is of standardised ones always
        recorded = responses.values
        Y = np.c_[recorded, targets.Y[:, recorded.shape[1] :]]
    paths = config_lib.tables(config, names)
    lexicon = controls.read_lexicon(paths, job.dataset.stimuli)
    if "frequency" in names and "frequency" not in paths:
        given = words.given_frequency(job.dataset.word_facts, job.dataset.stimuli)
        lexicon = lexicon._replace(frequency=given)
    return Prepared(
        config, job, protocol, responses, left_out, folds, num_repeated, targets, Y, lexicon
    )


def ceilings(data: Prepared) -> targets_lib.Ceilings:
    """Return the ceilings of the targets, which are found once for all that a run scores."""
    blocks, seed = [fold.outer.test for fold in data.folds], data.job.seed
    config, responses = data.config, data.responses
    num_splits = data.config.ceiling_splits
    key = responses.hash, folds_lib.folds_hash(data.folds), num_splits, seed, config.ceilings
    if key not in _ceilings:
        _ceilings.clear()  # those of another run in this process
        rng = np.random.default_rng(seed)
        found = targets_lib.ceilings(responses, blocks, num_splits=num_splits, rng=rng)
        if config.ceilings == config_lib.PUBLISHED:
            tested = [responses.stimulus_id[i] for i in np.unique(np.concatenate(blocks))]
            roots = normalized.published_roots(published(data.job.dataset), responses, tested)
            found = targets_lib.with_published(found, roots)
        _ceilings[key] = found
    return _ceilings[key]


def published(dataset: Dataset) -> list[SignalToNoise]:
    """Read the published ratios of signal and noise of every subject.

    Raises:
      InputError: if there are none.
    """
    if not dataset.has_ncsnr:
        raise InputError(
            f"encode.ceilings must be 'computed' for data set {dataset.name}, which has no "
            "published ratios of signal and noise."
        )
    return [dataset.ncsnr(x) for x in dict.fromkeys(dataset.responses.subject)]


_ceilings: dict[tuple, targets_lib.Ceilings] = {}


def make_folds(
    config: Config,
    protocol: Protocol,
    responses: Responses,
    *,
    kept: list[str] | None,
    items: features.Labels | None,
) -> tuple[folds_lib.Fold, ...]:
    """Make the folds of a protocol.

    A protocol by name leaves no gap between single stimuli, which are no stream. Of timed responses
    runs are what is kept together, where a protocol draws groups.

    Args:
      config: settings.
      protocol: that of the settings, or another for the same samples.
      responses: whose samples are divided.
      kept: from `groups`.
      items: from `Dataset.items`.

    Raises:
      InputError: if the test set is not what the protocol needs.
      ValueError: if samples do not suffice; see `scoring.make_folds`.
    """
    runs = None if config.protocol and not responses.is_timed else responses.run
    if responses.is_timed and protocol.encoding[0].rule == "shuffled_groups":
        kept = responses.run
    if unknown := set(config.test_runs) - set(responses.run):
        raise InputError(
            f"encode.test_runs must be among {', '.join(dict.fromkeys(responses.run))}, got "
            f"{min(unknown)!r}."
        )
    test = np.isin(responses.run, config.test_runs) if config.test_runs else None
    if test is None and protocol.encoding[0].rule == "test_set":
        raise InputError(
            f"encode.test_runs must name the runs that are the test set of protocol "
            f"{protocol.name}, got none."
        )
    return scoring.make_folds(
        protocol, len(responses.run), groups=kept, runs=runs, items=items, test=test
    )


def contiguous(
    config: Config, responses: Responses, dataset: Dataset
) -> tuple[Protocol, tuple[folds_lib.Fold, ...]] | None:
    """Return a shuffled protocol with contiguous blocks in place of its folds; see `scoring`.

    Args:
      config: settings, with a protocol whose folds draw single samples.
      responses: whose samples are divided.
      dataset: says what blocks keep together.
    """
    items = dataset.items(responses)
    make = lambda protocol, kept: make_folds(config, protocol, responses, kept=kept, items=items)
    kept = groups(config, responses, dataset)
    return scoring.contiguous(config_lib.protocol(config), kept, make)


def groups(config: Config, responses: Responses, dataset: Dataset) -> list[str] | None:
    """Return what folds keep together of single stimuli; None: nothing, as of timed responses.

    Under a protocol by name that is what the data set says belongs together.
    """
    if responses.is_timed:
        return None
    if config.protocol or config.groups == "dataset":
        return [dataset.groups[name] for name in responses.stimulus_id]
    return samples.passages(dataset.stimuli, responses) if config.groups == "passage" else None


def draw_units(model: str, layer: int, width: int, num: int, seed: int) -> Int[np.ndarray, " u"]:
    """Draw units of a layer, apart for each model and layer; in their order.

    Args:
      model: name of the network, also of controls that are made of its layers.
      layer: number.
      width: units of the layer.
      num: how many are drawn, without replacement; at most `width`.
      seed: of the run.
    """
    key = int(run_dir.hash_text(f"{model}, layer {layer}"), 16)
    rng = np.random.default_rng([seed, key])
    return np.sort(rng.choice(width, num, replace=False))
