"""What fixes each artefact of the encoding stage: its settings, and nothing that plays no part."""

import json
import pathlib
from collections.abc import Sequence

from jaxalign.core.scores import scoring
from jaxalign.data import controls, word_tables, words
from jaxalign.data.images import lowlevel, said
from jaxalign.data.schema import Responses
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.results import targets as targets_lib
from jaxalign.stages import Job
from jaxalign.stages.encode import config as config_lib
from jaxalign.stages.encode import inputs
from jaxalign.stages.encode.config import Config
from jaxalign.stages.encode.inputs import Features

VERSION = 18
# Of the columns of partitions and permutation tests; those of scores have `rows_schema`.
ROWS_OF_NETWORKS = 2
OF_TARGETS = 1  # of permutation tests of single targets
COMPARISON = 1  # of what is compared of instructions
# Controls that come as they are to each TR, or are added up in it, whatever `downsample` says.
NOT_DOWNSAMPLED = ("position", "oasm", *controls.COUNTS)


def of_targets(config: Config, job: Job, planned: Responses, *, is_planted: bool) -> dict:
    """Return what fixes targets and folds, and how they are scored.

    Args:
      config: settings.
      job: as every stage has it.
      planned: responses; of planted ones the samples alone.
      is_planted: whether an input of the artefact holds the responses.

    Raises:
      InputError: if the data set has no groups where they are asked for.
    """
    kept = inputs.groups(config, planned, job.dataset)
    return {
        "version": VERSION,
        "rows_schema": rows_lib.SCHEMA_VERSION,
        "dataset": job.dataset.name,
        "is_timed": planned.is_timed,
        "responses_hash": "" if is_planted else targets_lib.of_rois(planned, config.rois).hash,
        "protocol": config_lib.protocol(config).content,
        "test_runs": sorted(config.test_runs),
        "groups": config.groups,
        "groups_hash": "" if kept is None else run_dir.hash_text(json.dumps(kept)),
    }


def of_scores(config: Config, job: Job, targets: dict, features: Features) -> dict:
    """Return what fixes the scores of a network or a control.

    Args:
      config: settings.
      job: as every stage has it.
      targets: from `of_targets`.
      features: what is scored.

    Raises:
      InputError: if a table of words is not there.
    """
    # Random halves of the subjects make the group's ceiling.
    found = targets | {"ceiling_splits": config.ceiling_splits, "seed": job.seed}
    if config.protocol:
        found["protocol_ceiling"] = config.protocol_ceiling
    return found | _regression(config, job, targets, features)


def of_ceilings(config: Config, job: Job) -> dict:
    """Return what fixes ceilings that the data set publishes; nothing where they are computed.

    Raises:
      InputError: if it publishes none.
    """
    if config.ceilings == config_lib.COMPUTED or job.dataset.stand_in:
        return {}
    parts = [
        f"{x.subject} {x.ratio.tolist()} {x.roi} {x.target} {x.repeats.tolist()}"
        for x in inputs.published(job.dataset)
    ]
    return {"ceilings": run_dir.hash_text("\n".join(parts))}


def of_comparison(config: Config, job: Job, targets: dict, every: Sequence[Features]) -> dict:
    """Return what fixes the comparison of a model's instructions; arguments as of `of_scores`."""
    found = targets | _regression(config, job, targets, every[0])
    found |= {"comparison": COMPARISON, "seed": job.seed, "swaps": config.swaps}
    found |= {"ceiling_splits": config.ceiling_splits}
    found["instructions"] = [x.source.reading["instruction"] for x in every]
    if config.beside:
        found |= {"beside": config.beside, "partition_draws": config.partition_draws}
        found |= {"partition_rounds": config.partition_rounds}
    return found


def of_partition(
    config: Config, job: Job, targets: dict, network: Features, others: Sequence[Features]
) -> dict:
    """Return what fixes the partition of a network and controls; arguments as of `of_scores`.

    Raises:
      InputError: if a table of words is not there.
    """
    return (
        targets
        | _regression(config, job, targets, network)
        | {
            "rows_of_networks": ROWS_OF_NETWORKS,
            "seed": job.seed,
            "partition": [_regression(config, job, targets, x) for x in others],
            "partition_draws": config.partition_draws,
            "partition_rounds": config.partition_rounds,
        }
    )


def of_significance(
    config: Config, job: Job, targets: dict, network: Features, num_orders: int
) -> dict:
    """Return what fixes the permutation tests of a network; arguments as of `of_scores`."""
    found = targets | _regression(config, job, targets, network)
    found |= {"rows_of_networks": ROWS_OF_NETWORKS, "seed": job.seed}
    found |= {"permutations": num_orders, "orders": config.orders, "of_targets": OF_TARGETS}
    return found | ({"order_block": config.order_block} if config.orders == "block" else {})


def _regression(config: Config, job: Job, targets: dict, features: Features) -> dict:
    """Return what fixes a regression on features, and how rows call them."""
    name = features.model
    found: dict[str, object] = {
        "model": name,
        "control_of": features.control_of,
        **features.source.reading,
        "stimuli_hash": job.dataset.stimuli.hash,
        "layers": list(features.layers(config)),
        "delays": list(config.delays),
        "search": config.search,
    }
    if targets["is_timed"] and name not in NOT_DOWNSAMPLED:
        found["downsample"] = config.downsample
    if name in controls.OF_ANSWERS:
        found["said"] = said.VERSION
    if name in controls.OF_IMAGES:
        found["low_level"] = lowlevel.VERSION
    if name in controls.STIMULUS_CONTROLS:
        # They have no components.
        found["protocol"] = scoring.without_pca(config_lib.protocol(config)).content
    elif config.units:
        found |= {"units": config.units, "units_seed": job.seed}
    if name == "shifted":
        found["shift"] = config.shift
    if name == "shuffled":
        found |= {"shuffle": config.shuffle, "shuffle_seed": job.seed}
    if name == "oasm":
        found["oasm_sigma"] = config.oasm_sigma
    if name in config_lib.files(config):
        found["table_hash"] = _table_hash(config, name)
    elif name == "frequency":
        given = words.given_frequency(job.dataset.word_facts, job.dataset.stimuli)
        found["given_hash"] = run_dir.hash_text(json.dumps(given.values.tolist()))
    return found


def _table_hash(config: Config, control: str) -> str:
    setting, path = config_lib.files(config)[control]
    paths = word_tables.files(pathlib.Path(path))
    if lost := [str(x) for x in paths if not x.is_file()]:
        raise InputError(f"encode.{setting} must name a file, found none at {lost[0]!r}.")
    return run_dir.hash_text("".join(map(run_dir.hash_file, paths)))
