"""Times of texts in growing context, compared with a loop over prefixes."""

import functools
import pathlib
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxalign.bench import extract_page as tables
from jaxalign.bench import networks, timing
from jaxalign.bench.extract import shared
from jaxalign.bench.extract.config import Network, Stories
from jaxalign.data.schema import Stimuli
from jaxalign.data.sets import natural_stories
from jaxalign.data.text import joining, readouts, tokenizer_files
from jaxalign.io.run_dir import Artefact
from jaxalign.models import zoo
from jaxalign.stages import Job
from jaxalign.stages.extract import config as extract_config
from jaxalign.stages.extract import forward
from jaxalign.stages.extract import reading as reading_lib

# These see the end of the text from its beginning, as the loop over prefixes does.
SAME_CONTEXT = ("accumulate", "accumulate:slide")


class _Extracted(NamedTuple):
    """Vectors of some parts, and what share of the work they took."""

    vectors: Float[np.ndarray, "L m D"]  # NaN for parts that were left out
    num_tokens: int  # that were passed
    scale: float  # from these to all tokens of the plan


def _extract(config, model: zoo.Model, network, mesh, stimuli: Stimuli, every: int) -> _Extracted:
    """Extract as that stage does, from texts to arrays on the host.

    Of the parts that share no pass with others only each `every`-th is computed.
    """
    reading, _ = reading_lib.read(config, model, stimuli)
    reading, chosen, scale = _sample(reading, every)
    vectors = np.full((model.config.num_layers + 1, len(stimuli), model.config.width), np.nan)
    vectors = vectors.astype(np.float32)
    batched = reading_lib.batched(config, model, mesh, reading)
    num_tokens = 0
    for batch, found, _ in forward.run(network, batched, mesh, tap=config.tap):
        row, slot = np.nonzero(batch.part >= 0)
        vectors[:, chosen[batch.part[row, slot]]] = found[:, row, slot]
        num_tokens += batch.num_tokens
    return _Extracted(vectors, num_tokens, scale)


def _sample(
    reading: readouts.Reading, every: int
) -> tuple[readouts.Reading, Int[np.ndarray, " c"], float]:
    """Leave out parts that share no pass with others, but for each `every`-th part.

    Returns:
      The reading of the parts that remain, their indices, and the number of all tokens relative to
      that of theirs.
    """
    passes = reading.passes
    shared = np.bincount(passes.row, minlength=len(passes.rows)) > 1
    kept = shared[passes.row] | (np.arange(len(passes.row)) % every == 0)
    chosen = np.flatnonzero(kept)
    rows, row = np.unique(passes.row[chosen], return_inverse=True)
    parts = {
        name: getattr(passes, name)[chosen] for name in ("start", "stop", "length", "complete")
    }
    counts = passes.counts._replace(passes=len(rows))
    fewer = passes._replace(rows=[passes.rows[i] for i in rows], row=row, counts=counts, **parts)
    scale = passes.counts.tokens / sum(map(len, fewer.rows))
    return readouts.Reading(fewer, readouts.pool(fewer, "mean")), chosen, scale


def _encode_prefixes(peer, tokenizer, stimuli: Stimuli, which, max_length: int):
    """Encode the prefixes that end with some parts, story by story."""
    found = []
    for story in dict.fromkeys(stimuli.passage):
        parts = np.flatnonzero(np.array(stimuli.passage) == story)
        joined = joining.join([stimuli.text[i] for i in parts])
        timed = np.isin(parts, which)
        start, stop = np.asarray(joined.start)[timed], np.asarray(joined.stop)[timed]
        found.append(
            networks.encode_prefixes(
                peer, tokenizer, joined.text, start, stop, max_length=max_length
            )
        )
    vectors = np.concatenate([x.vectors for x in found], axis=1)
    return networks.Prefixes(vectors, sum(x.num_tokens for x in found))


def _settings(folder: pathlib.Path, rule: str, case: Stories) -> extract_config.Config:
    return extract_config.Config(
        models=(str(folder),), context=rule, batch_tokens=case.batch_tokens
    )


def measure_stories(case: Stories, network: Network, job: Job, artefact: Artefact) -> list[dict]:
    """Time each rule, and the loop over prefixes once."""
    assert job.data_root is not None
    unit: Literal["word", "sentence"] = "word" if case.unit == "word" else "sentence"
    stimuli = natural_stories.load(
        job.data_root, unit, num_stories=case.num_stories, num_words=case.num_words
    )
    which = np.arange(0, len(stimuli), case.every)
    with shared.checkpoint(network, job, artefact) as folder:
        model = zoo.find(str(folder), None)
        ours = model.load(job.mesh)
        peer = networks.load(folder)
        tokenizer = tokenizer_files.load(model.tokenizer_path)
        solvers = {}
        for rule in case.context:
            config = _settings(folder, rule, case)
            solvers[f"{tables.OURS} {rule}"] = functools.partial(
                _extract, config, model, ours, job.mesh, stimuli, case.every
            )
        # All of a prefix, or all of it that fits, in a row for each part.
        slide = reading_lib.read(_settings(folder, "accumulate:slide", case), model, stimuli)
        num_tokens = slide.passes.counts.separate_tokens
        repeats = dict.fromkeys(solvers, case.num_repeats) | {tables.TORCH: 1}
        max_length = network.max_length
        solvers[tables.TORCH] = lambda: _encode_prefixes(
            peer, tokenizer, stimuli, which, max_length
        )
        timings = timing.take_turns(solvers, repeats=repeats, cold=(tables.TORCH,))
    theirs = timings.pop(tables.TORCH)
    theirs_row = shared.timing_row(tables.TORCH, theirs, num_tokens / theirs.result.num_tokens)
    common = {"unit": case.unit, "num_words": case.num_words, "num_parts": len(stimuli)}
    rows = []
    for (rule, bar), timed in zip(case.context.items(), timings.values(), strict=True):
        found = timed.result
        row = shared.timing_row(tables.OURS, timed, found.scale)
        row |= {"context": rule, "num_tokens": round(found.num_tokens * found.scale), "bar": bar}
        row["ratio"] = theirs_row["median_s"] / row["median_s"]
        if rule in SAME_CONTEXT:
            row["difference"] = networks.relative_difference(
                [found.vectors[:, which]], [theirs.result.vectors]
            )
        rows.append(common | row)
    rows.append(common | theirs_row | {"context": "prefixes", "num_tokens": num_tokens})
    rows[-1]["ratio"] = 1.0
    return rows
