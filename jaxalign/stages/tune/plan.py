"""Which trainings are made, from what, at what cost; and the models that they offer."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

from absl import logging

from jaxalign.data.text import texts, tokenizer_files
from jaxalign.errors import InputError
from jaxalign.io import place, run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.models import planned, zoo
from jaxalign.stages import Job, Step, Upstream
from jaxalign.stages.artefacts import Tuning
from jaxalign.stages.tune import given as given_lib
from jaxalign.stages.tune import make
from jaxalign.stages.tune import work as work_lib
from jaxalign.stages.tune.config import RECIPE, Config
from jaxalign.stages.tune.given import Given, Rows
from jaxalign.training import arms, encoding, instructions, order, sources
from jaxalign.training.batches import Shape
from jaxalign.training.encoding import Reader
from jaxalign.training.instructions import Data
from jaxalign.training.optimizer import Recipe

VERSION = 1


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Find model and data, turn rows into tokens, and plan one training for each arm and seed.

    Raises:
      InputError: if model or data are missing or malformed, an arm does not allow them, rows and
        devices do not divide, or there is no room.
    """
    del upstream
    if isinstance(job.root, place.Remote):
        raise InputError(
            f"the stage tune needs a --workdir or --store on a disk, for its states: {job.root}."
        )
    model = _find(config, job)
    reader = _reader(config, model)
    encode = _encoder(config, job, reader)
    fixed = _fixed(config, job, model, reader)
    steps = []
    for arm in config.arms:
        for seed in config.seeds:
            given = _given(config, job, model, encode(arm, seed), (arm, seed))
            artefact = _artefact(job, model, given, fixed)
            priced = work_lib.of_training(config, model, given)
            if job.is_run_here and not artefact.is_done:
                work_lib.check_room(job, artefact, priced)
            write = functools.partial(make.tune, config, job, model, given)
            steps.append(Step(artefact=artefact, make=write, work=priced, together=True))
    return steps


def _find(config: Config, job: Job) -> zoo.Model:
    if job.elsewhere and zoo.is_absent(config.model):
        return zoo.described(config.model)
    return zoo.find(config.model, job.data_root)


def _reader(config: Config, model: zoo.Model) -> Reader:
    """Return how the model reads rows; of one that is not here pieces of letters are tokens."""
    if model.tokenizer_path is not None:
        return encoding.reader(model, template=config.template, max_length=config.max_length)
    most = config.max_length or model.config.max_length
    return Reader(
        tokenizer=tokenizer_files.stand_in(),
        end=0,
        max_length=most,
        two_sided=model.design == "t5",
        template=config.template,
    )


def _encoder(config: Config, job: Job, reader: Reader) -> Callable[[str, int], Rows]:
    """Return a function from arm and seed to rows, which are made once where the seed is nothing.

    Raises:
      InputError: if the data cannot be read.
    """
    absent = job.elsewhere and sources.is_absent(config.data, job.data_root)
    data = None if absent else _data(config, job)
    corpus = ""
    if config.corpus:
        corpus = texts.find(str(sources.locate(config.corpus, job.data_root)), None).content

    @functools.cache
    def encode(arm: str, seed: int) -> Rows:
        if data is None:
            rows, counts = sources.stand_in(config.data, arm, reader.max_length)
        else:
            rows, counts = encoding.encode(
                data, arm, reader, seed=seed, too_long=config.too_long, corpus=corpus
            )
        packed = given_lib.packed(rows, reader.max_length) if config.packing else None
        return Rows(packed or [[x] for x in rows], counts)

    return lambda arm, seed: encode(arm, seed if arms.find(arm).prompt == "another" else 0)


def _data(config: Config, job: Job) -> Data:
    data = instructions.read(
        sources.locate(config.data, job.data_root), no_response=config.no_response
    )
    for number, what in (
        (data.num_empty, "hold no text"),
        (data.num_dropped, "have no response and are left out"),
        (data.num_without_response, "have an empty response, of which the end is learned"),
    ):
        if number:
            logging.warning("tune: %d rows of %s %s", number, data.path, what)
    published = sources.PUBLISHED.get(config.data)
    found = len(data.rows) + data.num_empty + data.num_dropped
    if published is not None and found != published.num_rows:
        logging.warning(
            "tune: %s holds %d rows, and %d were published", data.path, found, published.num_rows
        )
    if data.unread:
        logging.info("tune: %s of %s are not read", ", ".join(data.unread), data.path)
    return data


def _given(config: Config, job: Job, model: zoo.Model, rows: Rows, of: tuple[str, int]) -> Given:
    """Gather what one training is made of.

    Raises:
      InputError: if there is no whole step, a checkpoint lies behind the last one, or rows and
        devices do not divide.
    """
    arm, seed = of
    num_rows = len(rows.examples)
    num_steps = order.num_steps(config.epochs, batch=config.batch, num_rows=num_rows)
    if num_steps < 1:
        raise InputError(
            f"tune.batch must be at most the rows of {config.epochs:g} epochs, of {num_rows} rows "
            f"each, got {config.batch}."
        )
    recipe = Recipe(
        num_steps=num_steps,
        learning_rate=config.learning_rate,
        warmup_ratio=config.warmup_ratio,
        weight_decay=config.weight_decay,
        clip_norm=config.clip_norm,
    )
    shape = Shape(
        micro_batches=config.micro_batches,
        max_length=config.max_length or model.config.max_length,
        packed=config.packing,
        start=model.config.start_token if model.design == "t5" else -1,
        loss_average=config.loss_average,
        group=config.group,
    )
    if not job.elsewhere:
        shape.check(config.batch, job.mesh)
    count = functools.partial(given_lib.seen, rows, shape)
    return Given(
        arm=arm,
        seed=seed,
        rows=rows,
        batch=config.batch,
        shape=shape,
        recipe=recipe.of_arm(trains=arms.find(arm).trains),
        checkpoints=_checkpoints(config.checkpoints, num_steps),
        seen=count(seed=seed, batch=config.batch, num_steps=num_steps),
    )


def _checkpoints(chosen: Sequence[int], num_steps: int) -> tuple[int, ...]:
    """Return the steps after which the model is kept, in order.

    Raises:
      InputError: if one lies behind the last.
    """
    if chosen and max(chosen) > num_steps:
        raise InputError(
            f"tune.checkpoints must be at most the {num_steps} steps of the training, got "
            f"{max(chosen)}."
        )
    powers = (2**i for i in range(num_steps.bit_length()))
    return tuple(sorted({*(chosen or (0, *powers)), num_steps}))


def _fixed(config: Config, job: Job, model: zoo.Model, reader: Reader) -> dict:
    """Return what fixes the weights of all trainings."""
    content = lambda name: (
        "" if not name else run_dir.hash_file(sources.locate(name, job.data_root))
    )
    absent = job.elsewhere and sources.is_absent(config.data, job.data_root)
    return {
        "version": VERSION,
        "model": model.name,
        "model_hash": run_dir.hash_text(model.config_hash + model.weights_hash),
        **model.rounding(-1),
        "tokenizer_hash": tokenizer_files.hash_of(reader.tokenizer),
        "max_length": reader.max_length,
        "end": reader.end,
        "data": pathlib.Path(config.data).name,
        "data_hash": "" if absent else content(config.data),
        "lora_alpha": config.alpha,
        **{name: getattr(config, name) for name in RECIPE},
    } | ({"corpus_hash": content(config.corpus)} if config.corpus else {})


def _artefact(job: Job, model: zoo.Model, given: Given, fixed: dict) -> Artefact:
    """Return the artefact of a training, with the models that later stages can plan with."""
    name = f"{model.name}+{given.arm}-s{given.seed}"
    settings = fixed | {
        "arm": given.arm,
        "seed": given.seed,
        "num_steps": given.num_steps,
        "checkpoints": list(given.checkpoints),
    }
    if arms.find(given.arm).response != "corpus":
        settings.pop("corpus_hash", None)
    artefact = Artefact(
        workdir=job.root,
        stage="tune",
        kind=Tuning.kind,
        name=name,
        settings=settings,
        cost=work_lib.cost(given),
    )
    made = Tuning(artefact)
    offers = tuple(
        planned.model(
            model, made.name_of(step), made.folder_of(step), f"{artefact.fingerprint} {step}"
        )
        for step in given.checkpoints
    )
    return dataclasses.replace(artefact, offers=offers)
