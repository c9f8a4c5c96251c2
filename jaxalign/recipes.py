"""Configurations that follow from a few words: a model, and what it is scored on."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import logging

from jaxalign import config
from jaxalign.core.scores.protocol import READING
from jaxalign.data import controls, datasets
from jaxalign.data.adapter import Adapter
from jaxalign.data.formats.recordings import NaN
from jaxalign.data.text import texts
from jaxalign.errors import InputError
from jaxalign.literature import benchmarks, protocols
from jaxalign.literature.benchmarks import HEARD, Benchmark
from jaxalign.stages import behavior, encode, extract, imported, next_word, report

ACTIVATIONS = (".npz", ".npy")  # files that stand in the place of a model


def find_benchmark(
    name: str,
    protocol: str = "",
    data_root: pathlib.Path | None = None,
    *,
    nan: NaN = "refuse",
    options: Sequence[str] = (),
    opened: bool = True,
) -> tuple[str, Benchmark]:
    """Find what a model is scored on, by a benchmark's name or by data and a protocol.

    A data set under another protocol is read as the benchmarks of that data set have it; one that
    no benchmark has, as the protocol does, and words with times as `on_data` does where the
    protocol leaves that open.

    Args:
      name: of a benchmark; or a data set's name or directory, or a text's name or file, each with
        a protocol.
      protocol: in place of the benchmark's; "": the benchmark's own.
      data_root: folder of published data.
      nan, options: how the data set is read, as the settings of a run have them.
      opened: whether data of no benchmark are opened, so that a file that is missing shows here.

    Returns:
      Its name, `<data>-<protocol>` where the table has none, and the benchmark. A ceiling that was
      published belongs to its own protocol alone.

    Raises:
      InputError: if there is no such benchmark, data set or protocol, no protocol is given where
        one must be, or it is of a kind that the data cannot have.
    """
    known = benchmarks.BENCHMARKS
    if name in known and protocol in ("", known[name].protocol):
        return name, known[name]
    is_data = name in datasets.DATASETS or name in texts.TEXTS or pathlib.Path(name).exists()
    if name not in known and not is_data:
        raise InputError(
            f"benchmark must be one of {', '.join(known)}, or with a protocol a data set (one of "
            f"{', '.join(datasets.DATASETS)}, {', '.join(texts.TEXTS)}, or a path): got {name!r}."
        )
    if not protocol:
        raise InputError(f"protocol must be given for the data {name!r}, which are no benchmark.")
    kind = protocols.find(protocol).kind
    if kind == "average":
        raise InputError(
            f"protocol must be of one data set, got {protocol!r}, a mean over several: score each, "
            "and give them to jaxalign.average."
        )
    data = known[name].dataset if name in known else name
    is_text = data in texts.TEXTS or pathlib.Path(data).is_file()
    if is_text != (kind == "next_word"):
        raise InputError(
            f"protocol must be of kind {'next_word' if is_text else 'encoding or reading_time'} "
            f"for {data}, but {protocol} is of kind {kind!r}."
        )
    same = {x: other for x, other in known.items() if other.dataset == data}
    for label, other in same.items():
        if other.protocol == protocol:
            return label, other
    label = f"{pathlib.Path(data).resolve().name if data == name else data}-{protocol}"
    if kind != "encoding":
        return label, Benchmark(dataset=data, protocol=protocol)
    other = next(iter(same.values()), None)
    if other and protocols.find(other.protocol).kind == "encoding":
        return label, Benchmark(
            dataset=data,
            protocol=protocol,
            is_timed=other.is_timed,
            extraction=other.extraction,
        )
    if opened:
        is_timed = datasets.find(data, data_root, nan=nan, options=options).responses.is_timed
    else:
        is_timed = datasets.is_timed(data)
    known = Benchmark(dataset=data, protocol=protocol, is_timed=is_timed)
    open_ = set(known.reading.free) & {"context", "pooling"}
    if is_timed and open_:
        heard = {name: getattr(HEARD, name) for name in open_}
        known = dataclasses.replace(known, extraction=dataclasses.replace(known.reading, **heard))
    return label, known


def networks(
    models: Sequence[str], *, untrained: bool = True, **reading: Any
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the stages that provide activations, and the controls that go with them.

    Args:
      models: names and directories, which are read with, and files of activations.
      untrained: read with the same networks with random weights, too; not if there are files,
        of which there may be no network.
      reading: other settings of the stage extract.
    """
    files = tuple(x for x in models if x.endswith(ACTIVATIONS))
    read = tuple(x for x in models if x not in files)
    stages: dict[str, Any] = {}
    usual = controls.DEFAULT
    if read:
        seed = 0 if untrained and not files else -1
        stages["extract"] = extract.Config(models=read, untrained_seed=seed, **reading)
    if files:
        stages["imported"] = imported.Config(models=files)
        usual = ("length", *(x for x in usual if x != "untrained"))
    return stages, usual


def on_data(data: str, models: Sequence[str], protocol: str = "") -> ml_collections.ConfigDict:
    """Return the configuration that scores models on a data set, by what that holds.

    Words with times are read as `benchmarks.HEARD` says, sentences and images each alone, images
    beside features in any order and random weights alone as controls. Responses
    of TRs are scored with delays and a gap, those of single stimuli in folds that keep passages
    whole. Where there are reading times and no responses, see `on_reading_times`. A protocol by
    name fixes what it names, and leaves the rest as above, whatever files the data come in.

    Args:
      data: name or directory of a data set.
      models: names, directories and files of activations.
      protocol: of `literature.protocols`; "": as above.

    Raises:
      InputError: if there is no such data set or protocol, no model where one is needed, or the
        protocol is of a kind that the data cannot have.
    """
    adapter = datasets.unopened(data)
    is_read = adapter.has("behavior") and not adapter.has("responses")
    if is_read and not protocol:
        return on_reading_times(data, models)
    if not models:
        raise InputError(f"a model must be named, behind the data: {data},MODEL[,MODEL...].")
    if adapter.has("behavior"):
        logging.info(
            "%s has reading times too: they are scored by configs/reading_times.py:%s,MODEL",
            *(data, data),
        )
    if protocol:
        return _under(protocol, data, models)
    is_timed = adapter.is_timed
    context, pooling = (HEARD.context, HEARD.pooling) if adapter.has_times else ("none", "mean")
    stages, usual = networks(models, context=context, pooling=pooling)
    usual = _possible(usual, adapter)
    stages["encode"] = encode.Config(
        delays=HEARD.delays if is_timed else (0,),
        gap=6 if is_timed else 0,
        groups="none" if is_timed else "passage",
        controls=usual,
    )
    return config.pack(config.Common(dataset=data), **stages, report=report.Config())


def _possible(usual: tuple[str, ...], adapter: Adapter) -> tuple[str, ...]:
    """Return usual controls that stimuli can have, and those that they need."""
    if not adapter.has_images:
        return usual
    # Images have no place in time, and what is said of them is not what is seen.
    others = ("position", "shifted", *controls.OF_TEXT)
    return ("shuffled", *(x for x in usual if x not in others))


def _under(protocol: str, data: str, models: Sequence[str]) -> ml_collections.ConfigDict:
    """Return the configuration that scores models on a data set under a protocol by name."""
    adapter, kind = datasets.unopened(data), protocols.find(protocol).kind
    needed = {"encoding": "responses", "reading_time": "behavior"}.get(kind)
    if needed and not adapter.has(needed):
        what = {"responses": "responses", "behavior": "reading times"}[needed]
        raise InputError(f"protocol {protocol} scores {what}, which data set {data} lacks.")
    title, benchmark = find_benchmark(data, protocol, opened=False)
    beside = None
    if kind == "encoding" and adapter.has_images:
        beside = _possible(networks(models)[1], adapter)
    return on_benchmark(models, benchmark, title=title, beside=beside)


def on_reading_times(data: str, models: Sequence[str]) -> ml_collections.ConfigDict:
    """Return the configuration that scores reading times by surprisal of words in their stories.

    Args:
      data: name or directory of a data set with reading times.
      models: names and directories of causal models; (): surprisal that comes with the data alone.

    Raises:
      InputError: if there is no such data set, or it has no reading times.
    """
    adapter = datasets.unopened(data)
    if not adapter.has("behavior"):
        raise InputError(f"data set {data} has no reading times: it lacks behavior.csv.")
    stages: dict[str, Any] = {}
    if models:
        stages["extract"] = extract.Config(
            models=tuple(models), context="accumulate:restart", surprisal=True
        )
    known = ("length", "log_frequency") if adapter.has_frequencies else ("length",)
    stages["behavior"] = behavior.Config(baseline=known)
    return config.pack(config.Common(dataset=data), **stages)


def on_benchmark(
    models: str | Sequence[str],
    benchmark: Benchmark,
    *,
    title: str = "",
    beside: Sequence[str] | None = None,
) -> ml_collections.ConfigDict:
    """Return the configuration that scores one or several models on a benchmark.

    Args:
      models: names, directories, and of recordings files of activations.
      benchmark: from `find_benchmark` or `literature.benchmarks`.
      title: of the report; "": there is none. Reading times and texts have pages of their own.
      beside: controls to score too; None: those that are usual. Of reading times and texts only
        "untrained" can be asked for.

    Raises:
      InputError: if a control is not for such a benchmark.
    """
    models = (models,) if isinstance(models, str) else tuple(models)
    reading = benchmark.reading
    kind = protocols.find(benchmark.protocol).kind
    if kind != "encoding" and set(beside or ()) - {"untrained"}:
        raise InputError(
            f"controls must be () or ('untrained',) under {benchmark.protocol}, got {beside}."
        )
    if kind == "next_word":
        random = beside is None or "untrained" in beside
        settings = next_word.Config(
            models=models, text=benchmark.dataset, untrained_seed=0 if random else -1
        )
        return config.pack(config.Common(), next_word=settings)
    if kind == "reading_time":
        return config.pack(
            config.Common(dataset=benchmark.dataset),
            extract=extract.Config(
                models=models,
                context=reading.context,
                one_stream=reading.one_stream,
                surprisal=True,
                untrained_seed=0 if "untrained" in (beside or ()) else -1,
            ),
            behavior=behavior.Config(baseline=("length",)),
        )
    stages, usual = networks(
        models,
        untrained=beside is None or bool(set(beside) & set(controls.UNTRAINED_CONTROLS)),
        **{name: getattr(reading, name) for name in READING},
        static_embedding="static_embedding" in (beside or ()),
    )
    stages["encode"] = encode.Config(
        protocol=benchmark.scored_under.name,
        protocol_ceiling=benchmark.ceiling,
        downsample=reading.downsample,
        delays=reading.delays,
        controls=usual if beside is None else tuple(beside),
    )
    if title:
        stages["report"] = report.Config(title=title)
    return config.pack(config.Common(dataset=benchmark.dataset), **stages)
