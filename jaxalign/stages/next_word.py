"""Text x causal models -> mean loss of the next token, compared with untrained networks."""

import collections
import dataclasses
import functools
import io
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, NamedTuple

import jax
import numpy as np
import pandas as pd
from absl import logging
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Bool, Float, Int
from tqdm import tqdm

from jaxalign import processes, stopping
from jaxalign.checks import Count, Names, NotNegative, at_least, check, one_of, some
from jaxalign.core import mesh as mesh_lib
from jaxalign.core.behavior import next_word as core
from jaxalign.core.behavior.next_word import Windows
from jaxalign.data.text import batches, texts, tokenizer_files
from jaxalign.data.text.texts import Text, Tokens
from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.io.place import Place
from jaxalign.io.run_dir import Artefact
from jaxalign.literature.protocols import OWN_READING
from jaxalign.models import log_probs as log_probs_lib
from jaxalign.models import zoo
from jaxalign.pricing import networks, work
from jaxalign.reporting import page as page_lib
from jaxalign.reporting.page import SUMMARY
from jaxalign.reporting.pages import next_word as report
from jaxalign.stages import Job, Step, Upstream, artefacts
from jaxalign.stages.artefacts import Losses, Page

VERSION = 2
TOKEN = np.dtype([("position", np.int64), ("token_id", np.int32), ("num_bytes", np.int32)])
# Passes that are computed while the host takes the results of those before.
PASSES_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the next-word stage."""

    # Names in models/table.py, or directories, or LABEL=MODEL; causal models only. What the run
    # tunes too: by name, or "tuned" for all.
    models: Annotated[Names, some("name at least one model")]
    # A name in data/text/texts.py, or a file.
    text: Annotated[str, some("name a text or a file")]
    # Tokens of a window; as many as the model takes, if those are fewer.
    context: Annotated[int, at_least(2)] = 1024
    stride: NotNegative = 0  # tokens by which windows move on; 0: half a window
    block_tokens: Count = 1024  # predicted tokens of a block; intervals leave out one at a time
    # Of the same networks with random weights; -1: do not read with them.
    untrained_seed: Annotated[int, at_least(-1)] = 0
    # "bfloat16" halves memory and is faster on accelerators.
    compute_dtype: Annotated[str, one_of(zoo.COMPUTE_DTYPES)] = "float32"
    batch_tokens: Count = 4096  # tokens of one forward pass, padding included
    shard_windows: Count = 64  # windows of one file; what a killed run has to repeat at most

    def __post_init__(self):
        check(self, "next_word")


class Reading(NamedTuple):
    """How a model reads the text."""

    tokens: Tokens
    context: int  # tokens of a window
    stride: int
    windows: Windows
    tokenizer_hash: str


class Batch(NamedTuple):
    """Windows that pass together, padded on the right, and with rows of padding, to one shape."""

    index: range  # of its windows
    tokens: Int[np.ndarray, "B T"]
    mask: Bool[np.ndarray, "B T"]


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan the losses of every network, and one report of all.

    Raises:
      InputError: if a model is missing, not causal or too large, the text is missing, not text or
        shorter than a window, or the windows do not fit the model.
    """
    text = texts.find(config.text, job.data_root)
    found = [x for name in config.models for x in _find(name, job, upstream)]
    models = [model for model, _ in found]
    if repeated := [x for x, n in collections.Counter(m.name for m in models).items() if n > 1]:
        raise InputError(
            f"next_word.models must have different names, found {repeated[0]!r} twice: give one as "
            "LABEL=DIRECTORY."
        )
    steps, own = [], []
    for model, made_by in found:
        reading = read(config, model, text)
        if not _is_protocols(reading, model):
            own.append(model.name)
        for seed in (-1,) if config.untrained_seed < 0 else (-1, config.untrained_seed):
            artefact = Artefact(
                workdir=job.root,
                stage="next_word",
                kind=Losses.kind,
                name=model.name + ("" if seed < 0 else " untrained"),
                settings=_settings(config, model, text, reading, seed),
                inputs=made_by if seed < 0 else (),
                cost=_cost(model, reading),
            )
            if job.is_run_here and not artefact.is_done:
                model.check_memory(job.mesh, dtype=config.compute_dtype)
            make = functools.partial(_read_text, config, job, model, reading)
            taken = _work(config, model, reading, is_trained=seed < 0)
            steps.append(Step(artefact=artefact, make=make, work=taken, together=True))
    page = Artefact(
        workdir=job.workdir,
        stage="next_word",
        kind=Page.kind,
        name="report",
        settings={
            "version": VERSION,
            "page": page_lib.VERSION,
            "block_tokens": config.block_tokens,
        }
        | ({"own_reading": own} if own else {}),
        inputs=tuple(step.artefact for step in steps),
        cost="tables, charts, page",
        latest_only=True,
    )
    write = functools.partial(_report, config)
    return [*steps, Step(artefact=page, make=write, work=work.PAGE, shows=SUMMARY)]


def _find(name: str, job: Job, upstream: Upstream) -> list[tuple[zoo.Model, tuple[Artefact, ...]]]:
    """Find a model, or those that the run tunes, each with what makes it."""
    if tuned := artefacts.tuned(name, upstream):
        return [(model, (made_by,)) for model, made_by in tuned]
    return [(zoo.find(name, job.data_root), ())]


def read(config: Config, model: zoo.Model, text: Text) -> Reading:
    """Cut a text into a model's tokens and windows.

    Raises:
      InputError: if the model is not causal, has another vocabulary than its tokenizer, or the
        text is shorter than a window.
    """
    if not model.causal:
        raise InputError(
            f"next_word.models must be causal, to predict the next token: {model.name} reads a "
            "text from both sides."
        )
    if not model.predicts:
        raise InputError(
            f"next_word.models must predict tokens: the checkpoint of {model.name} has no head."
        )
    tokenizer = tokenizer_files.load(model.tokenizer_path)
    tokenizer = tokenizer_files.fit(tokenizer, model.config.vocab_size, model=model.name)
    tokens = texts.tokenize(tokenizer, text.content)
    special = [i for i, x in tokenizer.get_added_tokens_decoder().items() if x.special]
    num_control = int(np.isin(tokens.ids[tokens.num_given :], special).sum())
    if num_control:
        logging.warning(
            "next_word %s: %d of %d tokens of %s are control tokens (or stand for what the "
            "tokenizer does not know): a corpus is read with those that are written in it",
            model.name,
            num_control,
            len(tokens.ids),
            text.name,
        )
    context = min(config.context, model.config.max_length)
    stride = config.stride or context // 2
    if stride > context:
        raise InputError(
            f"next_word.stride must be at most {context}, the tokens of a window of {model.name}, "
            f"got {stride}."
        )
    if len(tokens.ids) < context:
        raise InputError(
            f"text {text.path} must fill a window of {context} tokens of {model.name}: it has "
            f"{len(tokens.ids)}; give a longer text or a smaller next_word.context."
        )
    try:
        cut = core.windows(
            len(tokens.ids), context=context, stride=stride, num_given=tokens.num_given
        )
    except ValueError as error:
        raise InputError(f"next_word.context, {model.name}: {error}") from error
    return Reading(tokens, context, stride, cut, tokenizer_files.hash_of(tokenizer))


def _is_protocols(reading: Reading, model: zoo.Model) -> bool:
    """Whether windows are the protocol's: 1,024 tokens or all that a model takes, half apart."""
    context = min(Config.context, model.config.max_length)
    return (reading.context, reading.stride) == (context, context // 2)


def _settings(config: Config, model: zoo.Model, text: Text, reading: Reading, seed: int) -> dict:
    return {
        "version": VERSION,
        "text": text.name,
        "text_hash": text.hash,
        "model": model.name,
        "model_hash": run_dir.hash_text(
            model.config_hash + (model.weights_hash if seed < 0 else "")
        ),
        "tokenizer_hash": reading.tokenizer_hash,
        "untrained_seed": seed,
        **model.rounding(seed),
        "vocab_size": model.config.vocab_size,
        "context": reading.context,
        "stride": reading.stride,
        "num_windows": len(reading.windows.start),
        "compute_dtype": config.compute_dtype,
        "shard_windows": config.shard_windows,
    }


def _cost(model: zoo.Model, reading: Reading) -> str:
    passed = int((reading.windows.stop - reading.windows.start).sum())
    return (
        f"{len(reading.tokens.ids)} tokens in {len(reading.windows.start)} windows of "
        f"{reading.context} every {reading.stride}, "
        f"{2.0 * model.num_parameters * passed / 1e9:.1f} GFLOP"
    )


def _read_text(config: Config, job: Job, model: zoo.Model, reading: Reading, artefact) -> dict:
    """Write the shards of losses that are missing."""
    cut = reading.windows
    position = cut.predicted
    tokens = np.empty(len(position), TOKEN)
    tokens["position"] = position
    tokens["token_id"] = reading.tokens.ids[position]
    tokens["num_bytes"] = reading.tokens.num_bytes[position]
    if processes.is_first():
        _save(artefact.path / Losses.TOKENS, tokens)
    shards = _shards(len(cut.start), config.shard_windows)
    lack = lambda: [not _is_there(_shard_path(artefact, x), cut, x) for x in shards]
    missing = [x for x, lacks in zip(shards, processes.decide(lack), strict=True) if lacks]
    if len(missing) < len(shards):
        logging.info(
            "next_word %s: resuming, %d of %d shards are there",
            artefact.name,
            len(shards) - len(missing),
            len(shards),
        )
    start = time.monotonic()
    seed = artefact.settings["untrained_seed"]
    network = model.load(job.mesh, dtype=config.compute_dtype, untrained_seed=seed)
    num_tokens = 0
    with tqdm(
        total=sum(map(len, missing)),
        desc=f"next_word {artefact.name}",
        unit=" windows",
        mininterval=1.0,
        disable=not processes.is_first(),
    ) as progress:
        found = run(network, _batches(config, reading, missing, job.mesh), job.mesh)
        for number, shard in enumerate(missing):
            parts, left = [], len(shard)
            while left:
                stopping.check()
                batch, log_probs = next(found)
                for row, i in enumerate(batch.index):
                    own = slice(cut.first[i] - cut.start[i], cut.stop[i] - cut.start[i])
                    parts.append(-log_probs[row, own])
                left -= len(batch.index)
                num_tokens += int(batch.mask[: len(batch.index)].sum())
                progress.update(len(batch.index))
                progress.set_postfix_str(f"{num_tokens / (time.monotonic() - start):.0f} tokens/s")
            if number % processes.count() == processes.index():  # each has one writer
                _write_shard(artefact, shard, np.concatenate(parts))
    seconds = round(time.monotonic() - start, 3)
    return {"num_tokens": num_tokens, "num_predicted": len(position), "seconds": seconds}


def _work(config: Config, model: zoo.Model, reading: Reading, *, is_trained: bool) -> work.Priced:
    """Return the work of all passes over the windows."""

    @functools.cache
    def count(layout: work.Layout) -> work.Work:
        network = zoo.abstract(model.design, model.config, config.compute_dtype)
        windows = len(reading.windows.start)
        size = _batch_size(config, reading, layout.data)
        shape = batches.Shape(size, reading.context, 0, 0, reading.context, 0)
        number = sum(-(-len(x) // size) for x in _shards(windows, config.shard_windows))
        found = networks.extraction(model.config, network, {shape: number}, layout)
        tokens = int((reading.windows.stop - reading.windows.start).sum())
        predicted = len(reading.windows.predicted)
        return dataclasses.replace(
            found,
            num_tokens=tokens,
            read_bytes=found.read_bytes * is_trained,
            disk_bytes=float((4 + TOKEN.itemsize) * predicted),
        )

    return count


def _batch_size(config: Config, reading: Reading, shares: int) -> int:
    """Return the windows of a batch that so many devices divide among them."""
    size = min(max(config.batch_tokens // reading.context, 1), config.shard_windows)
    return -(-size // shares) * shares


def _shards(num_windows: int, size: int) -> list[range]:
    """Return the windows of each file."""
    return [range(i, min(i + size, num_windows)) for i in range(0, num_windows, size)]


def _shard_path(artefact: Artefact, shard: range) -> Place:
    return artefact.path / f"losses_{shard.start:07d}.npy"


def _is_there(path: Place, cut: Windows, shard: range) -> bool:
    """Whether a run before this one has written a shard, which can be read."""
    own = slice(shard.start, shard.stop)
    try:
        found = _load(path) if path.is_file() else ()
    except InputError as error:
        logging.warning("%s: made again", error)
        return False
    return len(found) == int((cut.stop - cut.first)[own].sum())


def _write_shard(artefact: Artefact, shard: range, losses: Float[np.ndarray, " n"]) -> None:
    if not np.isfinite(losses).all():
        dtype = artefact.settings["compute_dtype"]
        wider = "" if dtype == "float32" else "; use --config.next_word.compute_dtype=float32"
        raise InputError(
            f"next_word {artefact.name}: losses must be finite, but are not in {dtype}: the "
            f"weights hold NaN, infinity or numbers too large for it{wider}."
        )
    _save(_shard_path(artefact, shard), losses.astype(np.float32))


def _save(path: Place, values: np.ndarray) -> None:
    written = io.BytesIO()
    np.save(written, values)
    run_dir.write_atomic(path, written.getvalue())


def _load(path: Place) -> np.ndarray:
    try:
        with path.open("rb") as file:
            return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} must be what the stage next_word wrote, but cannot be read: delete "
            f"{path.parent} and run again."
        ) from error


def _batches(
    config: Config, reading: Reading, shards: Sequence[range], mesh: Mesh
) -> Iterator[Batch]:
    """Yield padded batches of the windows of each shard, in order."""
    cut, size = reading.windows, _batch_size(config, reading, mesh.shape["data"])
    for shard in shards:
        for i in range(shard.start, shard.stop, size):
            index = range(i, min(i + size, shard.stop))
            tokens = np.zeros((size, reading.context), np.int32)
            mask = np.zeros(tokens.shape, bool)
            mask[:, 0] = True  # a row of padding alone would not stay finite
            for row, window in enumerate(index):
                own = reading.tokens.ids[cut.start[window] : cut.stop[window]]
                tokens[row, : len(own)], mask[row, : len(own)] = own, True
            yield Batch(index, tokens, mask)


def run(
    network: nnx.Module, batches: Iterator[Batch], mesh: Mesh
) -> Iterator[tuple[Batch, Float[np.ndarray, "B T"]]]:
    """Yield each batch with the log-probability of each of its tokens in nats, on the host.

    Args:
      network: from `zoo.Model.load`.
      batches: windows.
      mesh: devices of the network.
    """
    in_flight = collections.deque()
    place = lambda x: mesh_lib.place(x, mesh_lib.sharding(mesh, ("batch", None), x.shape))
    for batch in batches:
        in_flight.append((batch, _forward(network, place(batch.tokens), place(batch.mask))))
        if len(in_flight) > PASSES_IN_FLIGHT:
            done, log_probs = in_flight.popleft()
            yield done, mesh_lib.to_host(log_probs)
    for done, log_probs in in_flight:
        yield done, mesh_lib.to_host(log_probs)


@jax.jit
@jax.default_matmul_precision("highest")
def _forward(network, tokens, mask):
    output = network(tokens, mask, taps=())
    return log_probs_lib.token_log_probs(network, output, tokens, mask)


def _report(config: Config, artefact: Artefact) -> dict:
    """Average losses, and lay them out as a page."""
    rows, blocks, losses = [], [], {}
    own = artefact.settings.get("own_reading", ())  # models whose windows are not the protocol's
    for source in artefact.inputs:
        loss, num_bytes = _losses(source)
        block = core.blocks(len(loss), config.block_tokens)
        random = source.settings["untrained_seed"] >= 0
        model = source.settings["model"]
        common = {
            "protocol": report.PROTOCOL + (OWN_READING if model in own else ""),
            "model": "untrained" if random else model,
            "control_of": model if random else "",
        }
        losses[common["model"], common["control_of"]] = loss, num_bytes, block
        settings = ("text", "text_hash", "vocab_size", "context", "stride", "compute_dtype")
        common |= {name: source.settings[name] for name in settings}
        common["quantization"] = source.settings.get("quantization", "")
        provenance = {"fingerprint": source.fingerprint, "git_commit": run_dir.git_commit()}
        rows.append(common | report.values(loss, num_bytes, block) | provenance)
        blocks += [common | row for row in report.block_values(loss, num_bytes, block)]
    controls = report.against_controls(losses)
    found = report.Found(pd.DataFrame(rows), pd.DataFrame(blocks), controls, config.block_tokens)
    page = report.page(found, page_lib.provenance(artefact, run_dir.git_commit()))
    return {"num_rows": len(rows), "files": page.write(artefact.path, parquet=True)}


def _losses(source: Artefact) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Read losses in nats, and bytes, of the tokens that count."""
    shards = _shards(source.settings["num_windows"], source.settings["shard_windows"])
    loss = np.concatenate([_load(_shard_path(source, x)) for x in shards]).astype(np.float64)
    num_bytes = _load(source.path / Losses.TOKENS)["num_bytes"]
    if loss.shape != num_bytes.shape:
        raise InputError(
            f"{source.path} must hold the losses of {len(num_bytes)} tokens, found {len(loss)}: "
            "delete it and run again."
        )
    return loss, num_bytes
