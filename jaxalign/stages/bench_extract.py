"""Random checkpoints and Natural Stories -> times of extraction beside transformers + torch."""

import contextlib
import dataclasses
import functools
import json
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from flax import nnx
from jaxtyping import Float, Int

from jaxalign.bench import networks, timing
from jaxalign.core import mesh as mesh_lib
from jaxalign.data import alignment, contexts, natural_stories, readouts, tokenizer_files
from jaxalign.data.schema import Stimuli
from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.models import zoo
from jaxalign.reporting import bench_extract as tables
from jaxalign.stages import Job, Step, Upstream, extract

VERSION = 1
ROWS = "rows.csv"
SUMMARY = "summary.txt"
TOKENIZER = "tokenizers_gpt2"  # in the folder of published data
UNITS = ("word", "sentence")
# These see the end of the text from its beginning, as the loop over prefixes does.
SAME_CONTEXT = ("accumulate", "accumulate:slide")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Sizes of a random network with GPT-2's vocabulary."""

    family: str = "gpt2"  # of bench/networks.py
    num_layers: int = 12
    width: int = 768
    num_heads: int = 12
    mlp_size: int = 3072
    max_length: int = 1024

    def __post_init__(self):
        if self.family not in networks.FAMILIES:
            raise InputError(
                f"family must be one of {', '.join(networks.FAMILIES)}, got {self.family!r}."
            )
        _check_least(self, num_layers=1, width=1, num_heads=1, mlp_size=1, max_length=16)
        if self.width % self.num_heads:
            raise InputError(f"num_heads must divide width, got {self.num_heads} and {self.width}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forward:
    """Hidden states of all layers, for one batch of Natural Stories' tokens."""

    network: str
    batch: int
    length: int
    num_repeats: int = 3
    bar: float = 1.0  # how many times as fast as torch it should be

    def __post_init__(self):
        _check_least(self, batch=1, length=1, num_repeats=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stories:
    """Vectors of all parts of stories, each in the context of all before it."""

    network: str
    unit: str  # of the parts: "word" or "sentence"
    # Rules of data/contexts.py that let context grow, with the bar of each; the peer encodes every
    # prefix anew, cut on the left where it is too long.
    context: Mapping[str, float]
    num_stories: int = 2
    num_words: int = 0  # the first ones of each story; 0: all
    every: int = 10  # of the prefixes only each so many-th is timed, and the time is scaled
    batch_tokens: int = 4096
    num_repeats: int = 3

    def __post_init__(self):
        if self.unit not in UNITS:
            raise InputError(f"unit must be one of {', '.join(UNITS)}, got {self.unit!r}.")
        _check_least(self, num_stories=1, num_words=0, every=1, batch_tokens=1, num_repeats=1)
        if not self.context:
            raise InputError("context must name at least one rule, got none.")
        for rule in self.context:
            if contexts.parse(rule).kind not in ("accumulate", "slide", "restart"):
                raise InputError(f"context must be a rule of accumulate, got {rule!r}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depths:
    """Compilation of the same network with more or fewer layers."""

    network: str
    num_layers: tuple[int, ...] = (12, 48)
    num_repeats: int = 5
    bar: float = 1.2  # how many times as long the slowest should take at most

    def __post_init__(self):
        _check_least(self, num_repeats=1)
        if len(self.num_layers) < 2 or min(self.num_layers) < 1:
            raise InputError(f"num_layers must hold two depths or more, got {self.num_layers}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loading:
    """Memory of the host while weights load."""

    network: str
    bar: float = 1.3  # times the weights, at most


KINDS = {"forwards": Forward, "stories": Stories, "depths": Depths, "loadings": Loading}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the bench of extraction: cases by name. ConfigDicts hold them as dictionaries."""

    networks: Mapping[str, Network] | Mapping[str, dict[str, Any]]
    forwards: Mapping[str, Forward] | Mapping[str, dict[str, Any]] = dataclasses.field(
        default_factory=dict
    )
    stories: Mapping[str, Stories] | Mapping[str, dict[str, Any]] = dataclasses.field(
        default_factory=dict
    )
    depths: Mapping[str, Depths] | Mapping[str, dict[str, Any]] = dataclasses.field(
        default_factory=dict
    )
    loadings: Mapping[str, Loading] | Mapping[str, dict[str, Any]] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self):
        for field, kind in ({"networks": Network} | KINDS).items():
            built = {}
            for name, row in getattr(self, field).items():
                if not name.isidentifier():  # files and flags are named after it
                    raise InputError(f"bench_extract.{field} must be named by words, got {name!r}.")
                try:
                    built[name] = kind(**row) if isinstance(row, dict) else row
                except InputError as error:
                    raise InputError(f"bench_extract.{field}.{name}.{error}") from error
            object.__setattr__(self, field, built)
        seen = set()
        for field, name, case in cases(self):
            if name in seen:
                raise InputError(f"bench_extract's cases must differ, found {name!r} twice.")
            seen.add(name)
            if case.network not in self.networks:
                raise InputError(
                    f"bench_extract.{field}.{name}.network must be one of "
                    f"{', '.join(self.networks) or 'none'}, got {case.network!r}."
                )
        if not seen:
            raise InputError("bench_extract must have a case, got none.")


def cases(config: Config) -> Iterator[tuple[str, str, Any]]:
    """Yield field, name and content of every case."""
    for field, rows in (
        ("forwards", config.forwards),
        ("stories", config.stories),
        ("depths", config.depths),
        ("loadings", config.loadings),
    ):
        for name, case in rows.items():
            yield field, name, case


def _check_least(settings: Any, **least: int) -> None:
    for name, value in least.items():
        if getattr(settings, name) < value:
            raise InputError(f"{name} must be >= {value}, got {getattr(settings, name)}.")


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan one artefact for each case, and the table of them all.

    As in the bench of solvers, machine, versions and sources are settings.

    Raises:
      InputError: if a package or the published data are not there.
    """
    del upstream
    if absent := networks.missing():
        raise InputError(f"bench_extract needs {', '.join(absent)}: pip install -e .[bench]")
    if job.data_root is None:
        raise InputError(
            "bench_extract reads Natural Stories and GPT-2's tokenizer: give --data_root or set "
            "JAXALIGN_DATA."
        )
    natural_stories.load(job.data_root, "sentence")
    tokenizer_files.load(job.data_root / TOKENIZER)
    common = {
        "version": VERSION,
        "seed": job.seed,
        "machine": timing.machine(),
        "mesh": list(job.mesh.devices.shape),
        "code": _code(),
    }
    steps = []
    for field, name, case in cases(config):
        network = config.networks[case.network]
        artefact = Artefact(
            workdir=job.workdir,
            stage="bench_extract",
            name=name,
            settings=common
            | {"kind": field, "case": dataclasses.asdict(case)}
            | {"network": dataclasses.asdict(network)},
            cost=f"{field}, {network.family} of {network.num_layers} x {network.width}",
        )
        make = functools.partial(_measure, MEASURES[field], case, network, job)
        steps.append(Step(artefact=artefact, make=make))
    artefact = Artefact(
        workdir=job.workdir,
        stage="bench_extract",
        name="summary",
        settings={"version": VERSION, "names": [name for _, name, _ in cases(config)]},
        inputs=tuple(step.artefact for step in steps),
        cost="table",
        latest_only=True,
    )
    steps.append(Step(artefact=artefact, make=_summarize, shows=SUMMARY))
    return steps


def _code() -> str:
    """Hash the sources of what is timed, so that it is measured again when they change."""
    here = pathlib.Path(__file__).parent
    sources = [pathlib.Path(__file__), here / "extract.py"]
    for folder in ("bench", "data", "models"):
        sources += sorted((here.parent / folder).glob("*.py"))
    return run_dir.hash_text("".join(path.name + run_dir.hash_file(path) for path in sources))


def _measure(measure, case, network: Network, job: Job, artefact: Artefact) -> dict:
    rows = [
        {"name": artefact.name, "kind": artefact.settings["kind"], "network": case.network} | row
        for row in measure(case, network, job, artefact)
    ]
    frame = pd.DataFrame(rows)
    run_dir.write_atomic(artefact.path / ROWS, frame.to_csv(index=False).encode())
    return {"num_rows": len(rows)}


@contextlib.contextmanager
def _checkpoint(network: Network, job: Job, artefact: Artefact) -> Iterator[pathlib.Path]:
    """Give the folder of a checkpoint that transformers drew and saved."""
    assert job.data_root is not None
    with tempfile.TemporaryDirectory(dir=artefact.path, prefix="inputs.") as name:
        folder = pathlib.Path(name) / "network"
        tokenizer = tokenizer_files.load(job.data_root / TOKENIZER)
        networks.write(folder, tokenizer, **dataclasses.asdict(network), seed=job.seed)
        yield folder


def _timing_row(solver: str, timed: timing.Timing, scale: float = 1.0) -> dict[str, Any]:
    """Describe the times of one solver, scaled from the part of the work that was done to all."""
    times = scale * np.array(timed.times_s)
    return {
        "solver": solver,
        "num_repeats": len(times),
        "median_s": float(np.median(times)),
        "min_s": times.min(),
        "max_s": times.max(),
        "first_s": timed.first_s,
        "scale": scale,
        "times_s": json.dumps(timed.times_s),
        "others_cores": timed.others_cores,
    }


@jax.jit
@jax.default_matmul_precision("highest")
def _hidden(network, tokens, mask):
    return network(tokens, mask).hidden


def _measure_forward(case: Forward, network: Network, job: Job, artefact: Artefact) -> list[dict]:
    """Time the same batch of tokens."""
    assert job.data_root is not None
    tokenizer = tokenizer_files.load(job.data_root / TOKENIZER)
    stimuli = natural_stories.load(job.data_root, "word")
    ids = np.array(tokenizer.encode(alignment.join(list(stimuli.text)).text).ids, np.int32)
    tokens = np.resize(ids, (case.batch, case.length))
    mask = np.ones(tokens.shape, bool)
    with _checkpoint(network, job, artefact) as folder:
        own = zoo.find(str(folder), None).load(job.mesh)
        peer = networks.load(folder)
    place = lambda x: jax.device_put(x, mesh_lib.sharding(job.mesh, ("batch", None), x.shape))
    timings = timing.take_turns(
        {
            tables.OURS: lambda: np.asarray(_hidden(own, place(tokens), place(mask))),
            tables.TORCH: lambda: networks.hidden_states(peer, tokens, mask),
        },
        repeats={tables.OURS: case.num_repeats, tables.TORCH: case.num_repeats},
    )
    theirs = timings[tables.TORCH]
    difference = networks.relative_difference(list(timings[tables.OURS].result), theirs.result)
    rows = []
    for solver, timed in timings.items():
        row = _timing_row(solver, timed) | {"num_tokens": tokens.size}
        row |= {"length": case.length, "tokens_per_s": tokens.size / row["median_s"]}
        row["ratio"] = theirs.median_s / row["median_s"]
        if solver == tables.OURS:
            row |= {"difference": difference, "bar": case.bar}
        rows.append(row)
    return rows


class _Extracted(NamedTuple):
    """Vectors of some parts, and what share of the work they took."""

    vectors: Float[np.ndarray, "L m D"]  # NaN for parts that were left out
    num_tokens: int  # that were passed
    scale: float  # from these to all tokens of the plan


def _extract(config, model: zoo.Model, network, mesh, stimuli: Stimuli, every: int) -> _Extracted:
    """Extract as that stage does, from texts to arrays on the host.

    Of the parts that have a pass of their own only each `every`-th is computed.
    """
    reading = extract.read(config, model, stimuli)
    reading, chosen, scale = _sample(reading, every)
    vectors = np.full((model.config.num_layers + 1, len(stimuli), model.config.width), np.nan)
    vectors = vectors.astype(np.float32)
    batched = extract.batched(config, model, mesh, reading)
    num_tokens = 0
    for batch, found, _ in extract.run(network, batched, mesh, tap=config.tap):
        row, slot = np.nonzero(batch.part >= 0)
        vectors[:, chosen[batch.part[row, slot]]] = found[:, row, slot]
        num_tokens += batch.num_tokens
    return _Extracted(vectors, num_tokens, scale)


def _sample(
    reading: extract.Reading, every: int
) -> tuple[extract.Reading, Int[np.ndarray, " c"], float]:
    """Leave out parts with a pass of their own, but for each `every`-th part.

    Returns:
      The reading of the others, which they are, and all tokens relative to theirs.
    """
    passes = reading.passes
    shared = np.bincount(passes.row, minlength=len(passes.rows)) > 1
    kept = shared[passes.row] | (np.arange(len(passes.row)) % every == 0)
    chosen = np.flatnonzero(kept)
    rows, row = np.unique(passes.row[chosen], return_inverse=True)
    parts = {
        name: getattr(passes, name)[chosen]
        for name in ("start", "stop", "lead", "predictable", "length", "complete")
    }
    fewer = passes._replace(rows=[passes.rows[i] for i in rows], row=row, **parts)
    scale = sum(map(len, passes.rows)) / sum(map(len, fewer.rows))
    return extract.Reading(fewer, readouts.pool(fewer, "mean"), None), chosen, scale


def _encode_prefixes(peer, tokenizer, stimuli: Stimuli, which, max_length: int):
    """Encode the prefixes that end with some parts, story by story."""
    found = []
    for story in dict.fromkeys(stimuli.passage):
        own = np.flatnonzero(np.array(stimuli.passage) == story)
        joined = alignment.join([stimuli.text[i] for i in own])
        timed = np.isin(own, which)
        start, stop = np.asarray(joined.start)[timed], np.asarray(joined.stop)[timed]
        found.append(
            networks.encode_prefixes(
                peer, tokenizer, joined.text, start, stop, max_length=max_length
            )
        )
    vectors = np.concatenate([x.vectors for x in found], axis=1)
    return networks.Prefixes(vectors, sum(x.num_tokens for x in found))


def _settings(folder: pathlib.Path, rule: str, case: Stories) -> extract.Config:
    return extract.Config(models=(str(folder),), context=rule, batch_tokens=case.batch_tokens)


def _measure_stories(case: Stories, network: Network, job: Job, artefact: Artefact) -> list[dict]:
    """Time each rule, and the loop over prefixes once."""
    assert job.data_root is not None
    unit: Literal["word", "sentence"] = "word" if case.unit == "word" else "sentence"
    stimuli = natural_stories.load(
        job.data_root, unit, num_stories=case.num_stories, num_words=case.num_words
    )
    which = np.arange(0, len(stimuli), case.every)
    with _checkpoint(network, job, artefact) as folder:
        model = zoo.find(str(folder), None)
        own = model.load(job.mesh)
        peer = networks.load(folder)
        tokenizer = tokenizer_files.load(model.tokenizer_path)
        solvers = {}
        for rule in case.context:
            config = _settings(folder, rule, case)
            solvers[f"{tables.OURS} {rule}"] = functools.partial(
                _extract, config, model, own, job.mesh, stimuli, case.every
            )
        # All of a prefix, or all of it that fits, in a row for each part.
        slide = extract.read(_settings(folder, "accumulate:slide", case), model, stimuli)
        num_tokens = slide.passes.counts.separate_tokens
        repeats = dict.fromkeys(solvers, case.num_repeats) | {tables.TORCH: 1}
        max_length = network.max_length
        solvers[tables.TORCH] = lambda: _encode_prefixes(
            peer, tokenizer, stimuli, which, max_length
        )
        timings = timing.take_turns(solvers, repeats=repeats, cold=(tables.TORCH,))
    theirs = timings.pop(tables.TORCH)
    theirs_row = _timing_row(tables.TORCH, theirs, num_tokens / theirs.result.num_tokens)
    common = {"unit": case.unit, "num_words": case.num_words, "num_parts": len(stimuli)}
    rows = []
    for (rule, bar), timed in zip(case.context.items(), timings.values(), strict=True):
        found = timed.result
        row = _timing_row(tables.OURS, timed, found.scale)
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


def _measure_depths(case: Depths, network: Network, job: Job, artefact: Artefact) -> list[dict]:
    """Time compilation, in a process that finds no compiled programs on disk."""
    del artefact
    assert job.data_root is not None
    vocab_size = tokenizer_files.load(job.data_root / TOKENIZER).get_vocab_size()
    times = timing.in_new_process(_compile, network, case.num_layers, vocab_size, case.num_repeats)
    shortest = min(float(np.median(x)) for x in times.values())
    rows = []
    for num_layers, own in times.items():
        row = {"solver": tables.OURS, "num_layers": num_layers, "num_repeats": len(own)}
        row |= {"median_s": float(np.median(own)), "min_s": min(own), "max_s": max(own)}
        rows.append(row | {"ratio": row["median_s"] / shortest, "bar": case.bar})
    return rows


def _compile(
    network: Network, depths: tuple[int, ...], vocab_size: int, num_repeats: int
) -> dict[int, list[float]]:
    """Return the seconds from call to program for each depth, taken in turns."""
    struct = lambda dtype: jax.ShapeDtypeStruct((1, 64), dtype)
    times: dict[int, list[float]] = {depth: [] for depth in depths}
    for turn in range(num_repeats + 1):
        for depth in depths:
            module = _abstract(dataclasses.replace(network, num_layers=depth), vocab_size)
            jax.clear_caches()
            start = time.perf_counter()
            _hidden.lower(module, struct(jnp.int32), struct(bool)).compile()
            if turn:  # the first one imports and warms up
                times[depth].append(time.perf_counter() - start)
    return times


def _abstract(network: Network, vocab_size: int) -> nnx.Module:
    if network.family == "gpt2":
        hf = {
            "n_layer": network.num_layers,
            "n_embd": network.width,
            "n_head": network.num_heads,
            "n_inner": network.mlp_size,
            "n_positions": network.max_length,
        }
    else:
        hf = {
            "num_hidden_layers": network.num_layers,
            "hidden_size": network.width,
            "num_attention_heads": network.num_heads,
            "intermediate_size": network.mlp_size,
            "max_position_embeddings": network.max_length,
        }
    hf |= {"model_type": network.family, "vocab_size": vocab_size}
    return zoo.abstract(*zoo.configure(hf, source="bench_extract"))


def _measure_loading(case: Loading, network: Network, job: Job, artefact: Artefact) -> list[dict]:
    """Take the peak memory of a process that loads a checkpoint."""
    with _checkpoint(network, job, artefact) as folder:
        model = zoo.find(str(folder), None)
        memory = timing.peak_memory(functools.partial(_find, folder), _load)
    weights_mb = 4 * model.num_parameters / 1e6
    row = {"solver": tables.OURS, "weights_mb": weights_mb, "bar": case.bar, **memory}
    return [row | {"ratio": memory["peak_mb"] / weights_mb}]


def _find(folder: pathlib.Path) -> tuple[zoo.Model]:
    return (zoo.find(str(folder), None),)


def _load(model: zoo.Model) -> None:
    jax.block_until_ready(nnx.split(model.load(mesh_lib.make_mesh(-1, 1)))[1])


MEASURES = {
    "forwards": _measure_forward,
    "stories": _measure_stories,
    "depths": _measure_depths,
    "loadings": _measure_loading,
}


def _summarize(artefact: Artefact) -> dict:
    """Put the rows of all artefacts together."""
    rows = pd.concat([pd.read_csv(x.path / ROWS) for x in artefact.inputs], ignore_index=True)
    machines = {json.dumps(x.settings["machine"]) for x in artefact.inputs}
    assert len(machines) == 1  # all were planned in one process
    text = [tables.heading(json.loads(machines.pop())), *tables.sections(rows)]
    run_dir.write_atomic(artefact.path / "cases.csv", rows.to_csv(index=False).encode())
    text = "\n\n".join(text) + "\n"
    run_dir.write_atomic(artefact.path / SUMMARY, text.encode())
    return {"files": ["cases.csv", SUMMARY]}
