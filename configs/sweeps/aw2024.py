"""The study of Aw et al. (2024): 25 models x Pereira, Blank, Wehbe, Futrell, from LLaMA 33B down.

    launch/local.sh launch/sweep.py --config=configs/sweeps/aw2024.py --to=slurm --store=STORE \\
        --data_root=DATA

108 jobs, by the protocols of the paper's average: both experiments of Pereira, Blank and Wehbe for
every model, and reading times of Futrell for the 8 that are causal (here words have surprisal from
causal models alone; the paper's figures for T5 are in third_party/aw2024). Weights must be in
Hugging Face's cache, Alpaca's and StableVicuna's after a conversion (docs/models.md), and data
where docs/datasets says. By the plan a job needs up to 94 GiB of one device; on eight of 16 GB
(`--devices_per_job=8 --config.mesh="(1,8)"`) all fit but 33B on Wehbe (docs/pricing.md). The page
of all is <store>/sweeps/aw2024/collect/report/, with size, MMLU and BBH of each model as the paper
prints them.

`--config=configs/sweeps/aw2024.py:MODEL,DATA` is one of the jobs by itself, in jaxalign.main.
"""

from jaxalign import config, recipes
from jaxalign.errors import InputError
from jaxalign.literature import benchmarks, published
from jaxalign.literature.benchmarks import Benchmark

_PRINTED = published.table("aw2024/models")
MODELS = tuple(_PRINTED[_PRINTED.in_main_25 == 1].model)
CAUSAL = tuple(_PRINTED[(_PRINTED.in_main_25 == 1) & (_PRINTED.family != "T5")].model)
DATA = {
    "pereira243": benchmarks.find("Pereira2018.243sentences-linear-2023"),
    "pereira384": benchmarks.find("Pereira2018.384sentences-linear-2023"),
    "blank": benchmarks.find("Blank2014-linear-2023"),
    "wehbe": Benchmark(dataset="wehbe2014", protocol="wehbe2014", is_timed=True),
    "futrell": benchmarks.find("Futrell2018-pearsonr"),
}


def get_config(argument="llama-7b,pereira243"):
    model, _, data = argument.rpartition(",")
    if data not in DATA:
        raise InputError(
            f"configs/sweeps/aw2024.py:MODEL,DATA has {', '.join(DATA)}, got {data!r}."
        )
    title = "" if data == "futrell" else f"{model}, {data}"
    beside = () if data == "futrell" else ("word_length", "position")
    packed = recipes.on_benchmark(model, DATA[data], title=title, beside=beside)
    # As the checkpoints were trained; float32 would double memory and time.
    return config.override(packed, {"extract.compute_dtype": "bfloat16"})


def sweep():
    for data in DATA:
        for model in CAUSAL if data == "futrell" else MODELS:
            yield {"argument": f"{model},{data}"}


def together():
    return {
        "report.title": "25 models, Pereira, Blank, Wehbe and Futrell",
        "properties.sources": ("zoo", "published:aw2024"),
    }
