"""Images x instructions -> states of the answers' tokens in every layer, in stores.

A store for each instruction. All instructions about some images pass as one batch, the vision tower
sees each image once, and a pass over a shard's images fills that shard of all stores. The first of
the stores that are not finished is made together with the others; these then only finish.

What was answered lies beside the activations, a file for each shard while they are made, and one
table at the end. An answer that is empty, whose first token ends it, has no states: its row is NaN,
and who reads the store leaves that image out (`artefacts.Activations.absent`).
"""

import collections
import dataclasses
import functools
import math
import time
import zlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from absl import logging
from tqdm import tqdm

from jaxalign import stopping
from jaxalign.core import mesh as mesh_lib
from jaxalign.data.images import pixels as pixels_lib
from jaxalign.errors import InputError
from jaxalign.io import run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.models import answers, generate, zoo
from jaxalign.stages import Job, Step
from jaxalign.stages.artefacts import Activations
from jaxalign.stages.extract import asked as asked_lib
from jaxalign.stages.extract import images as images_lib
from jaxalign.stages.extract import work
from jaxalign.stages.extract.answered import Answered, Layers, Plan
from jaxalign.stages.extract.asked import Asked
from jaxalign.stages.extract.config import READING, Config
from jaxalign.stages.extract.shards import SHARDS_IN_FLIGHT

VERSION = 1


def plan(config: Config, job: Job, model: zoo.Model) -> list[Step]:
    """Plan a store for each instruction, of a network and of the same one with random weights.

    Raises:
      InputError: if a setting does not fit, an image is missing, the model's files lack something,
        or there is too little memory or disk.
    """
    images_lib.refuse_settings_of_text(config, model)
    if config.tap != "residual":
        raise InputError(
            f"extract.tap must be 'residual' for {model.name}, which is given instructions, got "
            f"{config.tap!r}."
        )
    job.dataset.check_images("extract")
    recipe = None
    if model.tokenizer_path is not None:
        recipe = pixels_lib.read(model.tokenizer_path, model.model_type)
    model = _configured(job, model, recipe)
    asked = asked_lib.ask(config, model, model.config)
    found = Plan(
        config=config,
        job=job,
        model=model,
        recipe=recipe,
        asked=asked,
        num_images=_num_images(config, job, model.config, asked),
        layers=_layers(config, model.config),
    )
    try:
        answers.check(model.config, asked.prompts, (config.answer_pooling,), found.ending)
    except ValueError as error:
        raise InputError(f"extract.answer_pooling, model {model.name}: {error}") from error
    seeds = (-1,) if config.untrained_seed < 0 else (-1, config.untrained_seed)
    return [step for seed in seeds for step in _steps(dataclasses.replace(found, seed=seed))]


def _configured(job: Job, model: zoo.Model, recipe: pixels_lib.Recipe | None) -> zoo.Model:
    """Return the model for images of the size that all of them come out with."""
    images = job.dataset.stimuli.pixels
    if recipe is not None:
        size = pixels_lib.common_shape(recipe, images)
    elif model.config.has_places:  # it is not here
        side = model.config.vision.patch_size * model.config.vision.merge
        size = tuple(max(side, round(n / side) * side) for n in max(images.shapes))
    else:
        size = model.config.vision.image_size
    try:
        return dataclasses.replace(model, config=model.config.for_images(*size))
    except InputError as error:
        raise InputError(f"model {model.name}: {pixels_lib.FILE}: {error}") from error


def _num_images(config: Config, job: Job, network, asked: Asked) -> int:
    """Return how many images pass at a time: as even as can be, as many on each device."""
    new = 0 if config.decoding == "none" else config.answer_tokens
    each = len(asked.instructions) * (asked_lib.width(asked.prompts) + new)
    shard = min(config.shard_stimuli, len(job.dataset.stimuli))
    most = max(1, config.batch_tokens // max(each, vision_tokens(network)))
    passes = math.ceil(shard / most)
    share = job.own_mesh.shape["data"]
    return math.ceil(math.ceil(shard / passes) / share) * share


def vision_tokens(network) -> int:
    """Return the tokens that an image has in the vision tower.

    Args:
      network: configured for it.
    """
    if network.has_places:
        return math.prod(network.grid) * network.vision.merge**2
    return network.vision.max_length


def _layers(config: Config, network) -> Layers:
    pooling, stack, is_normed = config.answer_pooling, "block", network.final_norm_applied
    if pooling == "vision":
        num, width, is_normed = network.vision.num_layers, network.vision.width, False
    elif pooling == "qformer":
        num, width, is_normed = (
            getattr(network.connector, name, 0) for name in ("num_layers", "width", "none")
        )
    elif network.has_encoder:
        of_answers = pooling in answers.OF_ANSWERS
        stack, width = "decoder" if of_answers else "encoder", network.width
        num = getattr(network.language, f"num_{stack}_layers")
    else:
        num, width = network.num_layers, network.width
    return Layers(["embedding", *(f"{stack}.{i + 1}" for i in range(num))], width, bool(is_normed))


def _steps(found: Plan) -> list[Step]:
    config, job, model = found.config, found.job, found.model
    artefacts = []
    for row in found.rows:
        name = found.asked.instructions[row].name if found.is_asked else config.answer_pooling
        artefacts.append(
            Artefact(
                workdir=job.root,
                stage="extract",
                kind=Activations.TRAINED if found.seed < 0 else Activations.UNTRAINED,
                name=f"{model.name}{'' if found.seed < 0 else ' untrained'}: {name}",
                settings=_settings(found, row),
                cost=_cost(found),
            )
        )
    lacking = [x for x in artefacts if not x.is_done]
    priced = work.of_answers(config, model, _passes(found, len(lacking)), found.seed < 0)
    if job.is_run_here and lacking:
        model.check_memory(job.own_mesh, dtype=config.compute_dtype)
        work.check_room(job, lacking, priced)
    alone = work.of_store(
        config, found.layers.width, len(found.layers.names), len(job.dataset.stimuli)
    )
    steps = []
    for row, artefact in enumerate(artefacts):
        makes_all = bool(lacking) and artefact is lacking[0]
        make = functools.partial(extract, found, artefacts)
        steps.append(
            Step(
                artefact=artefact,
                make=make,
                needs=tuple(artefacts[:row]),  # so that one run makes them all
                work=priced if makes_all else alone,
            )
        )
    return steps


def _passes(found: Plan, num_stores: int) -> work.Answering:
    return work.Answering(
        num_images=found.num_images,
        num_stimuli=len(found.job.dataset.stimuli),
        prompts=found.asked.prompts,
        vision_tokens=vision_tokens(found.model.config),
        num_new=0 if found.ending is None else found.ending.num_new,
        num_stores=num_stores,
        layer_units=len(found.layers.names) * found.layers.width,
    )


def _settings(found: Plan, row: int) -> dict:
    config, model, stimuli = found.config, found.model, found.job.dataset.stimuli
    asked, names = found.asked, found.layers.names
    ending = found.ending
    decoding: dict[str, object] = {}
    if ending is not None:
        decoding = {"num_new": ending.num_new, "stop_tokens": list(ending.stop_tokens)}
        if config.decoding == "top_k":
            decoding |= {"top_k": config.top_k, "seed": found.job.seed}
    return {
        "version": f"answers {VERSION}",
        "store_format": store.FORMAT_VERSION,
        "dataset": found.job.dataset.stimuli_name,
        "stimuli_hash": stimuli.hash,
        "model": model.name,
        "model_hash": run_dir.hash_text(
            model.config_hash + (model.weights_hash if found.seed < 0 else "")
        ),
        "tokenizer_hash": asked.tokenizer_hash if found.is_asked else "",
        "untrained_seed": found.seed,
        "num_layers": len(names) - 1,
        "width": found.layers.width,
        "num_stimuli": len(stimuli),
        "shard_stimuli": config.shard_stimuli,
        **{name: getattr(config, name) for name in READING},
        "prompt": asked.instructions[row].text if found.is_asked else "",
        "pooling": found.pooling,
        "t5_text": "",
        "surprisal": False,
        "preprocessing": {} if found.recipe is None else found.recipe.content,
        "frame": list(asked.frame) if found.is_asked else [],
        "answers": found.answers,
        "decoding": decoding,
        "layer_names": names,
        "normed_layers": [len(names) - 1] if found.layers.is_normed else [],
    }


def _cost(found: Plan) -> str:
    said = f"{len(found.job.dataset.stimuli)} images, {found.num_images} in a pass"
    if not found.is_asked:
        return said
    new = 0 if found.ending is None else found.ending.num_new
    longest = asked_lib.width(found.asked.prompts)
    return f"{said} with {len(found.rows)} prompts of {longest} tokens, answers of {new} at most"


def extract(found: Plan, every: Sequence[Artefact], artefact: Artefact) -> dict:
    """Write the shards that are missing, of this store and of all others that are not finished."""
    start = time.monotonic()
    stores = []
    for row, x in enumerate(every):
        if x is artefact or not x.is_done:
            if x is not artefact:
                x.start()
            stores.append(Answered.of(found, row, x))
    rows = stores[0].activations.shards
    missing = [i for i in range(len(rows)) if not all(x.has(i) for x in stores)]
    if len(missing) < len(rows):
        logging.info(
            "extract %s: %d of %d shards are there",
            artefact.name,
            len(rows) - len(missing),
            len(rows),
        )
    passed = _fill(found, stores, missing, artefact) if missing else 0
    stopping.check()
    own = next(x for x in stores if x.artefact is artefact)
    facts = own.finish(found) if found.ending is not None else {}
    return {
        "num_images": passed,  # as many as the vision tower has seen
        "seconds": round(time.monotonic() - start, 3),
        **facts,
    }


def _fill(found: Plan, stores: Sequence[Answered], missing: Sequence[int], artefact) -> int:
    """Let the network answer about the images of some shards; return how many they were."""
    config, job = found.config, found.job
    network = found.model.load(job.own_mesh, dtype=config.compute_dtype, untrained_seed=found.seed)
    shards = [stores[0].activations.shards[i] for i in missing]
    size = found.num_images
    parts = [
        range(a, min(a + size, own.stop))
        for own in shards
        for a in range(own.start, own.stop, size)
    ]
    read = functools.partial(pixels_lib.batch, found.recipe, job.dataset.stimuli.pixels)
    prompts = found.asked.of([x.row for x in stores])
    batches = zip(parts, images_lib.prefetched(read, stopping.until_requested(parts)), strict=False)
    writes: collections.deque = collections.deque()
    passed = 0

    def wait(most: int) -> None:
        while len(writes) > most:
            store.finish_write(*writes.popleft())

    with tqdm(
        total=sum(map(len, shards)),
        desc=f"extract {artefact.name}",
        unit=" images",
        mininterval=1.0,
    ) as progress:
        for index, own in zip(missing, shards, strict=True):
            answered = _shard(found, network, prompts, batches, own, stores)
            for part in answered:
                passed += len(part)
                progress.update(len(part))
            if stores[0].num_filled < len(own):  # a stop was asked for
                break
            for x in stores:
                writes.append((x.write(index, found), x.artefact))
            wait(SHARDS_IN_FLIGHT * len(stores))
    wait(0)
    return passed


def _shard(found: Plan, network, prompts, batches: Iterator, own: range, stores) -> Iterator[range]:
    """Answer about the images of a shard, pass by pass; yield which ones a pass was about."""
    config, mesh, size = found.config, found.job.own_mesh, found.num_images
    for x in stores:
        x.begin(own)
    while stores[0].num_filled < len(own) and (batch := next(batches, None)) is not None:
        part, images = batch
        # All passes have one shape, so that one program serves them.
        filling = np.repeat(images[-1:], size - len(part), axis=0)
        images = np.concatenate([images, filling])
        names = ("batch", None, None, None)
        placed = jax.device_put(images, mesh_lib.sharding(mesh, names, images.shape))
        answered = answers.answer(
            network,
            placed,
            prompts,
            (config.answer_pooling,),
            found.ending,
            _draws(found, part, [x.row for x in stores]),
        )
        for place, x in enumerate(stores):
            x.fill(found, answered, place, len(part))
        yield part


def _draws(found: Plan, part: range, rows: Sequence[int]) -> generate.Draws | None:
    """Return how tokens are drawn: of each image and instruction by itself, whatever the batch."""
    if found.ending is None or found.config.decoding != "top_k":
        return None
    key = jax.random.key(found.job.seed)
    places = [*part, *(-1 for _ in range(found.num_images - len(part)))]
    texts = [zlib.crc32(found.asked.instructions[row].text.encode()) for row in rows]
    pairs = np.array([(place % 2**32, text) for place in places for text in texts], np.uint32)
    return generate.Draws(_keys(key, pairs), generate.Sampling(top_k=found.config.top_k))


@jax.jit
def _keys(key, pairs):
    """Return a key for each pair of an image and an instruction."""
    fold = jax.random.fold_in
    return jax.vmap(lambda x: fold(fold(key, x[0]), x[1]))(pairs)
