"""The embedded default: MiniLM on 320 sentences written for this project, planted participants.

launch/local.sh -m jaxalign.main --config=configs/demo.py
"""

from jaxalign import config
from jaxalign.stages import encode, extract, report, simulate_responses


def get_config():
    return config.pack(
        config.Common(dataset="demo"),
        extract=extract.Config(models=("all-MiniLM-L6-v2",)),
        simulate=simulate_responses.Config(model="all-MiniLM-L6-v2", layer=4),
        encode=encode.Config(groups="passage"),
        report=report.Config(),
    )
