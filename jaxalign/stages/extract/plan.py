"""Which stores are made, from what, and at what cost."""

import collections
import dataclasses
import functools
from typing import Any

from absl import logging

from jaxalign.data import controls
from jaxalign.data.text.passes import Passes
from jaxalign.data.text.readouts import Reading
from jaxalign.errors import InputError
from jaxalign.io import run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.models import zoo
from jaxalign.stages import Job, Step, Upstream, artefacts
from jaxalign.stages.artefacts import Activations
from jaxalign.stages.extract import images, make, questions
from jaxalign.stages.extract import reading as reading_lib
from jaxalign.stages.extract import work as work_lib
from jaxalign.stages.extract.config import READING, Config

VERSION = 7


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Find the models, plan their passes over the stimuli, and plan one store per network.

    Raises:
      InputError: if a model is missing, malformed or too large, or a part does not fit it.
    """
    stimuli = job.dataset.stimuli
    found = [x for name in config.models for x in _find(config, job, upstream, name)]
    models = [model for model, _ in found]
    for model in models:
        if model.name in controls.CONTROLS:
            raise InputError(
                f"a model must not be called as a control is: give {model.name!r} as "
                "LABEL=DIRECTORY."
            )
    if repeated := [x for x, n in collections.Counter(m.name for m in models).items() if n > 1]:
        raise InputError(
            f"extract.models must have different names, found {repeated[0]!r} twice: give one as "
            "LABEL=DIRECTORY."
        )
    if config.instructions and not any(x.reads == "images and text" for x in models):
        raise InputError(
            "extract.instructions must be () unless a model reads images and text: "
            f"{', '.join(x.name for x in models)} would not be given them."
        )
    steps = []
    for model, made_by in found:
        if model.reads == "images":
            steps += images.plan(config, job, model)
            continue
        if model.reads == "images and text" and config.instructions:
            steps += questions.plan(config, job, model)
            if config.own_tower:
                tower = dataclasses.replace(config, answer_pooling="vision", own_tower=False)
                called = dataclasses.replace(model, name=f"{model.name} tower")
                steps += questions.plan(tower, job, called)
            continue
        job.dataset.check_text("extract")
        reading, fixed = reading_lib.read(config, model, stimuli)
        if model.tokenizer_path is not None:
            _warn(model, reading)
        for seed in (-1,) if config.untrained_seed < 0 else (-1, config.untrained_seed):
            artefact = Artefact(
                workdir=job.root,
                stage="extract",
                kind=Activations.TRAINED if seed < 0 else Activations.UNTRAINED,
                name=model.name + ("" if seed < 0 else " untrained"),
                settings=fixed | _settings(config, job, model, seed),
                inputs=made_by if seed < 0 else (),
                cost=_cost(model, reading.passes),
            )
            if job.is_run_here and not artefact.is_done:
                model.check_memory(job.mesh, dtype=config.compute_dtype)
            write = functools.partial(
                make.extract, config, job, model, reading, stimuli.stimulus_id
            )
            taken = work_lib.of_passes(config, model, reading, is_trained=seed < 0)
            steps.append(Step(artefact=artefact, make=write, work=taken, together=True))
        if config.static_embedding:
            step = _static_step(config, job, model, reading, fixed)
            steps.append(dataclasses.replace(step, needs=made_by))
    return steps


def _find(
    config: Config, job: Job, upstream: Upstream, name: str
) -> list[tuple[zoo.Model, tuple[Artefact, ...]]]:
    """Find a model, or those that the run tunes, each with what makes it.

    Of a plan for another machine a model need not be here, if the table knows it.
    """
    if tuned := artefacts.tuned(name, upstream):
        text = {"text": config.t5_text}
        of = lambda x: dataclasses.replace(x.config, **text) if x.design == "t5" else x.config
        return [(dataclasses.replace(x, config=of(x)), (made_by,)) for x, made_by in tuned]
    if job.elsewhere and zoo.is_absent(name):
        return [(zoo.described(name, t5_text=config.t5_text, whole=bool(config.instructions)), ())]
    options = {"t5_text": config.t5_text, "tower": config.tower}
    options["whole"] = bool(config.instructions)
    return [(zoo.find(name, job.data_root, **options), ())]


def _static_step(config: Config, job: Job, model: zoo.Model, reading: Reading, fixed: dict) -> Step:
    """Plan the store of the embedding's rows: one layer, as if it were a network without blocks."""
    artefact = Artefact(
        workdir=job.root,
        stage="extract",
        kind=Activations.STATIC,
        name=f"{model.name} static",
        settings=fixed
        | _settings(config, job, model, -1)
        | {
            "num_layers": 0,
            "width": model.word_embedding_shape[1],
            "pooling": "mean",
            "surprisal": False,
            "tap": "residual",  # no block, and nothing is computed
            "layer_names": ["embedding"],
            "normed_layers": [],
            "compute_dtype": "float32",
        },
        cost=f"{len(reading.passes.row)} stimuli, rows of the embedding alone",
    )
    write = functools.partial(make.embed, config, model, reading, job.dataset.stimuli.stimulus_id)
    return Step(artefact=artefact, make=write, work=work_lib.of_embedding(config, model, reading))


def _settings(config: Config, job: Job, model: zoo.Model, seed: int) -> dict:
    stimuli = job.dataset.stimuli
    return {
        "version": VERSION,
        "store_format": store.FORMAT_VERSION,
        "dataset": job.dataset.stimuli_name,
        "stimuli_hash": stimuli.hash,
        "model": model.name,
        "model_hash": run_dir.hash_text(
            model.config_hash + (model.weights_hash if seed < 0 else "")
        ),
        "untrained_seed": seed,
        **model.rounding(seed),
        "num_layers": model.config.num_layers,
        "width": model.config.width,
        "num_stimuli": len(stimuli),
        "surprisal": config.surprisal,
        "shard_stimuli": config.shard_stimuli,
        **{name: getattr(config, name) for name in READING},
        "t5_text": config.t5_text if model.design == "t5" else "",
        **describe_layers(model.config, config.tap),
    }


def describe_layers(network: Any, tap: str) -> dict[str, list]:
    """Name the layers, and those that have passed a final norm: the last of each stack.

    Args:
      network: configuration of a network that reads text.
      tap: see `config.Config`.
    """
    last = network.num_layers
    names = list(network.layer_names) or ["embedding", *(f"block.{i + 1}" for i in range(last))]
    stacks = [name.partition(".")[0] for name in [*names[1:], ""]]
    ends = [i + 1 for i in range(last) if stacks[i] != stacks[i + 1]]
    # OPT 350M ends in a projection to its narrower embedding, which transformers counts as part of
    # its last hidden state.
    if width := getattr(network, "embed_width", 0):
        names[last] += f" before the projection to {width} units"
    has_norm = network.final_norm_applied and tap == "residual"
    return {"layer_names": names, "normed_layers": ends if has_norm else []}


def _warn(model: zoo.Model, reading: Reading) -> None:
    """Say what a tokenizer makes of parts that their texts do not show."""
    counts, m = reading.passes.counts, len(reading.passes.row)
    if counts.unknown_tokens:
        logging.warning(
            "extract %s: %d of %d tokens of the stimuli stand for text that the tokenizer does not "
            "know: their vectors do not tell what was read; choose a model of that language",
            model.name,
            counts.unknown_tokens,
            counts.own_tokens,
        )
    if counts.guessed_joints:
        logging.warning(
            "extract %s: %d of %d parts (punctuation, clitics) are joined by a space, which they "
            "would not be in English: say how with a column space_before (0 or 1) or language "
            "in stimuli.csv",
            model.name,
            counts.guessed_joints,
            m,
        )
    if counts.shared_tokens:
        lost = 0 if reading.predicted is None else int((~reading.predicted.defined).sum())
        logging.info(
            "extract %s: %d tokens reach into more than one of %d parts%s",
            model.name,
            counts.shared_tokens,
            m,
            f": each counts once, where it begins, and {lost} parts have no surprisal"
            if reading.predicted
            else "",
        )


def _cost(model: zoo.Model, passes: Passes) -> str:
    counts = passes.counts
    saved = counts.separate_tokens / counts.tokens
    notes = [
        f"{len(passes.row)} stimuli in {counts.passes} passes",
        f"{counts.tokens} tokens ({saved:.3g} times as many one by one)",
    ]
    if model.tokenizer_path is None:
        return ", ".join([*notes, "model and tokenizer not here: pieces of five letters"])
    for number, what in (
        (counts.fallbacks, "parts apart, whose tokens depend on what follows"),
        (counts.truncated_parts, "parts cut on the left"),
        (counts.shared_tokens, "tokens of more than one part"),
        (counts.unknown_tokens, "tokens of text that the tokenizer does not know"),
    ):
        if number:
            notes.append(f"{number} {what}")
    return ", ".join(notes)
