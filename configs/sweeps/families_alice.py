"""Three families by size, Pythia, OPT and Qwen 2.5, on Alice in Wonderland in the scanner.

    launch/local.sh launch/sweep.py --config=configs/sweeps/families_alice.py --to=local \\
        --store=STORE --data_root=DATA

23 jobs, one for each model of up to 33 billion parameters, from Hugging Face's cache. On a machine
with GPUs each job has one (80 GB for the largest); `--devices_per_job=4 --config.mesh="(1,4)"`
divides the weights of each over four. The page of all is
<store>/sweeps/families_alice/collect/report/: scores against size, within each family and pooled.
"""

from jaxalign import config, recipes
from jaxalign.literature import benchmarks
from jaxalign.models import table

FAMILIES = ("pythia-", "opt-", "qwen2.5-")
LARGEST = 33e9  # parameters
MODELS = tuple(
    name
    for name, row in table.MODELS.items()
    if name.startswith(FAMILIES) and row.num_parameters <= LARGEST
)


def get_config():
    packed = recipes.on_benchmark(
        MODELS[0],
        benchmarks.find("alice-jaxalign"),
        title="Alice in Wonderland",
        beside=("word_rate", "word_length", "position"),
    )
    return config.override(packed, {"extract.compute_dtype": "bfloat16"})


def sweep():
    for model in MODELS:
        yield {"extract.models": (model,), "report.title": model}


def together():
    return {"report.title": "Pythia, OPT and Qwen 2.5 on Alice"}
