"""How a model reads stimuli: passes, and batches of them."""

import collections
import dataclasses
from collections.abc import Iterator

from jax.sharding import Mesh

from jaxalign.data.schema import Stimuli
from jaxalign.data.text import batches, contexts, joining, prompts, readouts, tokenizer_files
from jaxalign.data.text.batches import Batch
from jaxalign.data.text.readouts import Reading
from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.models import zoo
from jaxalign.stages.extract.config import Config

STREAM = "all"  # the one passage of `one_stream`


def read(config: Config, model: zoo.Model, stimuli) -> tuple[Reading, dict]:
    """Plan the passes of a model over stimuli.

    Returns:
      The reading, and what fixes it in addition to model, stimuli and settings: the tokenizer,
      the prompt or what the chat template makes of it, and where parts are joined by spaces.

    Raises:
      InputError: if tokenizer and model, or a part and the model, do not go together.
    """
    if config.surprisal and not model.causal:
        raise InputError(
            f"extract.surprisal must be False for {model.name}: only causal models predict words."
        )
    if config.surprisal and not model.predicts:
        raise InputError(
            f"extract.surprisal must be False for {model.name}: its checkpoint has no head that "
            "predicts tokens."
        )
    if config.pooling not in readouts.POOLINGS:
        raise InputError(
            f"extract.pooling must be one of {', '.join(readouts.POOLINGS)} for {model.name}, "
            f"which reads text, got {config.pooling!r}."
        )
    path = model.tokenizer_path
    if path is None:
        tokenizer = tokenizer_files.stand_in()
    else:
        tokenizer = tokenizer_files.load(path)
        tokenizer = tokenizer_files.fit(tokenizer, model.config.vocab_size, model=model.name)
    if config.one_stream:
        stimuli = _one_stream(stimuli)
    frame = prompts.Frame(config.prompt, config.suffix)
    if config.chat and path is None:
        raise InputError(
            f"extract.chat must be False for {model.name}, whose chat template is not here."
        )
    if config.chat:
        frame = prompts.chat(
            path if path.is_dir() else path.parent,
            stimuli.text,
            prompt=config.prompt,
            suffix=config.suffix,
            system=config.system,
        )
    frame = frame._replace(bos=config.bos, joining=config.joining)
    passes = contexts.plan(
        tokenizer,
        stimuli,
        config.context,
        max_length=model.config.max_length,
        causal=model.causal,
        frame=frame,
    )
    predicted = readouts.surprisal(passes) if config.surprisal else None
    fixed = {
        "tokenizer_hash": tokenizer_files.hash_of(tokenizer),
        "frame": list(frame),
        "spaces_hash": run_dir.hash_text(str([int(x) for x in joining.spaces(stimuli).before])),
    }
    return Reading(passes, readouts.pool(passes, config.pooling), predicted), fixed


def _one_stream(stimuli: Stimuli) -> Stimuli:
    """Make one passage of all; between two of them is a space, whatever is said of their parts."""
    begins = [True, *(a != b for a, b in zip(stimuli.passage[1:], stimuli.passage, strict=False))]
    known = joining.spaces(stimuli)
    spaces = [a or b for a, b in zip(begins, known.before, strict=True)]
    one = [STREAM] * len(stimuli)
    return dataclasses.replace(
        stimuli, passage=one, space_before=() if known.num_guessed else spaces
    )


def batched(config: Config, model: zoo.Model, mesh: Mesh, reading: Reading) -> Iterator[Batch]:
    """Yield all padded batches of a reading, in an order that follows from it alone."""
    num_shares = mesh.shape["data"]
    groups = _group(config, model, reading, num_shares)
    for rows, length in zip(*groups, strict=True):
        yield batches.pad(
            reading,
            rows,
            length,
            batch_tokens=config.batch_tokens,
            num_shares=num_shares,
        )


def shapes(
    config: Config, model: zoo.Model, reading: Reading, num_shares: int
) -> collections.Counter[batches.Shape]:
    """Count the batches of each shape, when as many devices divide a batch among them."""
    groups = _group(config, model, reading, num_shares)
    return batches.shapes(reading, groups, batch_tokens=config.batch_tokens, num_shares=num_shares)


def _group(config: Config, model: zoo.Model, reading: Reading, num_shares: int) -> batches.Groups:
    return batches.group(
        reading,
        batch_tokens=config.batch_tokens,
        shard_stimuli=config.shard_stimuli,
        longest=model.config.max_length,
        num_shares=num_shares,
    )
