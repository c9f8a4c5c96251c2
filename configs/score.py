"""One model on one benchmark: a data set under a named protocol.

    launch/local.sh -m jaxalign.main --config=configs/score.py:MODEL,BENCHMARK --data_root=...

BENCHMARK is a name of jaxalign/data/benchmarks.py, such as alice-jaxalign; MODEL a name or a
directory. The report names the protocol, a hash of its folds, and for a protocol that shuffles
single samples also what contiguous folds of the same data give.

A benchmark of reading times (Futrell2018-pearsonr) reads all stories as one text, each word after
all that fits the model, as Brain-Score does; `--config.extract.context=accumulate:restart` is
hundreds of times faster, with shorter contexts. wikitext2-nwp reads a text, and is
configs/next_word.py.
"""

from jaxalign import config
from jaxalign.data import benchmarks, protocols
from jaxalign.errors import InputError
from jaxalign.stages import behavior, encode, extract, next_word, report


def get_config(argument=""):
    model, _, name = argument.rpartition(",")
    if not model:
        raise InputError(f"--config=configs/score.py:MODEL,BENCHMARK, got {argument!r}.")
    benchmark = benchmarks.find(name)
    reading = benchmark.reading
    kind = protocols.find(benchmark.protocol).kind
    if kind == "next_word":
        return config.pack(
            config.Common(),
            next_word=next_word.Config(models=(model,), text=benchmark.dataset),
        )
    if kind == "reading_time":
        return config.pack(
            config.Common(dataset=benchmark.dataset),
            extract=extract.Config(
                models=(model,),
                context=reading.context,
                one_stream=True,
                surprisal=True,
                untrained_seed=-1,
            ),
            behavior=behavior.Config(baseline=("length",)),
        )
    return config.pack(
        config.Common(dataset=benchmark.dataset),
        extract=extract.Config(models=(model,), context=reading.context, pooling=reading.pooling),
        encode=encode.Config(
            protocol=benchmark.protocol,
            protocol_ceiling=benchmark.ceiling,
            downsample=reading.downsample,
            delays=reading.delays,
        ),
        report=report.Config(title=name),
    )
