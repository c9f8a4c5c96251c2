"""One model on one benchmark: a data set under a named protocol.

    launch/local.sh -m jaxalign.main --config=configs/score.py:MODEL,BENCHMARK --data_root=...

BENCHMARK is a name of jaxalign/literature/benchmarks.py, such as alice-jaxalign; MODEL a name or a
directory. The report names the protocol, a hash of its folds, and for a protocol that shuffles
single samples also what contiguous folds of the same data give.

A benchmark of reading times (Futrell2018-pearsonr) reads all stories as one text, each word after
all that fits the model, as Brain-Score does; `--config.extract.context=accumulate:restart` is
hundreds of times faster, with shorter contexts. wikitext2-nwp reads a text, and is
configs/next_word.py.
"""

from jaxalign import recipes
from jaxalign.errors import InputError
from jaxalign.literature import benchmarks


def get_config(argument=""):
    model, _, name = argument.rpartition(",")
    if not model:
        raise InputError(f"--config=configs/score.py:MODEL,BENCHMARK, got {argument!r}.")
    return recipes.on_benchmark(model, benchmarks.find(name), title=name)
