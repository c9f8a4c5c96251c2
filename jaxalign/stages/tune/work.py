"""What a training takes, from the model's sizes and the widths of its steps; and room for it."""

import functools
import shutil

from jaxalign.errors import InputError
from jaxalign.io.run_dir import Artefact
from jaxalign.models import memory, zoo
from jaxalign.pricing import training
from jaxalign.pricing.training import How
from jaxalign.pricing.work import Layout, Priced, Work, gib, quantity
from jaxalign.stages import Job
from jaxalign.stages.tune.config import Config
from jaxalign.stages.tune.given import Given

# States on disk while one is being written, and bytes of a line of the log and of other files.
STATES = 3
LINE_BYTES, FILES_BYTES = 120, 2_000_000


def how(config: Config) -> How:
    """Return how networks are trained."""
    return How(
        config.lora_rank, config.keep_for_gradients, config.compute_dtype, config.micro_batches
    )


def useful(config: Config, model: zoo.Model, given: Given) -> list[float]:
    """Return the operations of each step that count for a share of the peak: without padding.

    Args:
      config: settings.
      model: that is tuned.
      given: the training.
    """
    network = zoo.abstract(model.design, model.config)
    of = functools.cache(
        lambda width: training.useful(model.config, network, how(config), given.batch, width)
    )
    seen = given.seen
    return [
        of(width) * tokens / (given.batch * width)
        for width, tokens in zip(map(int, seen.width), map(int, seen.tokens), strict=True)
    ]


def of_training(config: Config, model: zoo.Model, given: Given) -> Priced:
    """Return the work of a training.

    Args:
      config: settings.
      model: that is tuned.
      given: the training.
    """

    @functools.cache
    def count(layout: Layout) -> Work:
        network, way = zoo.abstract(model.design, model.config), how(config)
        rows, widths = given.batch // config.micro_batches, given.widths()
        total = sum(
            number * config.micro_batches * training.flop(model.config, network, way, rows, width)
            for width, number in widths.items()
        )
        trained = way.num_trained(network)
        state = training.STATE_BYTES * trained
        own = 2 if config.checkpoint_dtype == "bfloat16" else 4
        kept = own * model.num_parameters + (4 * trained if config.lora_rank else 0)
        shape = (rows, max(widths))
        program = ("network", model.config, way, layout)
        return Work(
            flop={config.compute_dtype: total},
            device_bytes=training.device_bytes(model.config, network, way, shape, layout),
            host_bytes=float(state + 16 * sum(map(int, given.seen.tokens))),
            disk_bytes=float(
                len(given.checkpoints) * (kept + FILES_BYTES)
                + STATES * state
                + LINE_BYTES * given.num_steps
            ),
            read_bytes=4.0 * model.num_parameters,
            num_tokens=int(given.seen.tokens.sum()),
            passes=given.num_steps * config.micro_batches,
            programs=frozenset((*program, width) for width in widths),
        )

    return count


def cost(given: Given) -> str:
    """Say what a training is made of."""
    tokens, targets = (int(x.sum()) for x in (given.seen.tokens, given.seen.targets))
    counts = given.rows.counts
    notes = [
        f"{given.num_steps} steps of {given.batch} rows, {tokens} tokens, {targets} learned",
        f"{len(given.checkpoints)} models kept",
    ]
    for number, what in (
        (counts.cut, "rows cut"),
        (counts.dropped, "rows left out as too long"),
        (counts.without_target, "rows of which nothing is left to learn"),
    ):
        if number:
            notes.append(f"{number} {what}")
    return ", ".join(notes)


def check_room(job: Job, artefact: Artefact, priced: Priced) -> None:
    """Refuse, before anything is computed, a training that fits neither memory nor disk.

    Args:
      job: on which devices it is made, and where it goes.
      artefact: that is not finished.
      priced: from `of_training`.

    Raises:
      InputError: naming what is too small, and both sizes.
    """
    devices = job.mesh.devices.flat
    layout = Layout(*(job.mesh.shape[x] for x in ("data", "model")), True)
    layout = layout._replace(is_cpu=devices[0].platform == "cpu")
    taken, name = priced(layout), f"tune {artefact.name}"
    advice = "more tune.micro_batches, tune.keep_for_gradients=inputs, adapters or more devices"
    free = memory.host_bytes()
    if taken.process_bytes(layout) > free:
        raise InputError(
            f"{name}: training takes {gib(taken.process_bytes(layout))} of memory, and the host "
            f"has {gib(free)}: {advice} help."
        )
    for device in job.own_mesh.devices.flat:
        left = memory.device_bytes(device)
        if left is not None and taken.device_bytes > left:
            raise InputError(
                f"{name}: a step takes {gib(taken.device_bytes)} of device {device.id}, which has "
                f"{gib(left)}: {advice} help."
            )
    there = next(x for x in (job.root, *job.root.parents) if x.exists())
    held = sum(file.stat().st_size for file in artefact.path.rglob("*") if file.is_file())
    if taken.disk_bytes - held > (room := shutil.disk_usage(there).free):
        raise InputError(
            f"{name}: states and models take {quantity(taken.disk_bytes, 'B')}, and {there} has "
            f"{quantity(room, 'B')}: fewer tune.checkpoints, or tune.checkpoint_dtype=bfloat16."
        )
