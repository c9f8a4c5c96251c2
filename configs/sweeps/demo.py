"""Six small jobs, 3 models x 2 protocols: what a sweep looks like, on a laptop in two minutes.

    launch/local.sh launch/sweep.py --config=configs/sweeps/demo.py --to=local --store=runs/sweep

The models are small random networks of three families, from the folder of the tests; each reads
the embedded sentences once for both protocols. Responses are planted in each model's own layer 2,
so that layer 2 is the best of every model in <store>/sweeps/demo/collect/report/.
"""

import pathlib

from jaxalign import config
from jaxalign.stages import encode, extract, report, simulate_responses

NETWORKS = pathlib.Path(__file__).resolve().parents[2] / "tests/golden"
MODELS = {"llama": "llama", "bert": "bert", "bloom": "decoders/bloom"}
PROTOCOLS = ("jaxalign", "brainscore-linear-2026-own-reading")


def get_config():
    return config.pack(
        config.Common(dataset="demo"),
        extract=extract.Config(models=(f"llama={NETWORKS / 'llama'}",), untrained_seed=-1),
        simulate=simulate_responses.Config(model="llama", layer=2, num_subjects=4, num_targets=12),
        encode=encode.Config(protocol=PROTOCOLS[0], controls=("word_rate", "position")),
        report=report.Config(),
    )


def sweep():
    for model, folder in MODELS.items():
        for protocol in PROTOCOLS:
            yield {
                "extract.models": (f"{model}={NETWORKS / folder}",),
                "simulate.model": model,
                "encode.protocol": protocol,
            }


def together():
    return {"report.title": "Three random networks under two protocols"}
