"""Configurations that follow from a few words: a model, and what it is scored on."""

import pathlib
from collections.abc import Sequence
from typing import Any

import ml_collections

from jaxalign import config
from jaxalign.core.scores.protocol import READING
from jaxalign.data import controls, datasets
from jaxalign.data.text import texts
from jaxalign.errors import InputError
from jaxalign.literature import benchmarks, protocols
from jaxalign.literature.benchmarks import Benchmark
from jaxalign.stages import behavior, encode, extract, imported, next_word, report

ACTIVATIONS = (".npz", ".npy")  # files that stand in the place of a model


def find_benchmark(
    name: str, protocol: str = "", data_root: pathlib.Path | None = None
) -> tuple[str, Benchmark]:
    """Find what a model is scored on, by a benchmark's name or by data and a protocol.

    A data set under another protocol is read as the benchmarks of that data set have it; one that
    no benchmark has, as the protocol does.

    Args:
      name: of a benchmark; or a data set's name or directory, or a text's name or file, each with
        a protocol.
      protocol: in place of the benchmark's; "": the benchmark's own.
      data_root: folder of published data.

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
    is_timed = datasets.find(data, data_root).responses.is_timed
    return label, Benchmark(dataset=data, protocol=protocol, is_timed=is_timed)


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


def on_benchmark(
    model: str,
    benchmark: Benchmark,
    *,
    title: str = "",
    beside: Sequence[str] | None = None,
) -> ml_collections.ConfigDict:
    """Return the configuration that scores a model on a benchmark.

    Args:
      model: a name, a directory, or of recordings a file of activations.
      benchmark: from `find_benchmark` or `literature.benchmarks`.
      title: of the report; "": there is none. Reading times and texts have pages of their own.
      beside: controls to score too; None: those that are usual. Of reading times and texts only
        "untrained" can be asked for.

    Raises:
      InputError: if a control is not for such a benchmark.
    """
    reading = benchmark.reading
    kind = protocols.find(benchmark.protocol).kind
    if kind != "encoding" and set(beside or ()) - {"untrained"}:
        raise InputError(
            f"controls must be () or ('untrained',) under {benchmark.protocol}, got {beside}."
        )
    if kind == "next_word":
        random = beside is None or "untrained" in beside
        settings = next_word.Config(
            models=(model,), text=benchmark.dataset, untrained_seed=0 if random else -1
        )
        return config.pack(config.Common(), next_word=settings)
    if kind == "reading_time":
        return config.pack(
            config.Common(dataset=benchmark.dataset),
            extract=extract.Config(
                models=(model,),
                context=reading.context,
                one_stream=reading.one_stream,
                surprisal=True,
                untrained_seed=0 if "untrained" in (beside or ()) else -1,
            ),
            behavior=behavior.Config(baseline=("length",)),
        )
    stages, usual = networks(
        (model,),
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
