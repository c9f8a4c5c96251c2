"""Alice in Wonderland in the scanner: two models, six regions, 27 listeners.

launch/local.sh -m jaxalign.main --config=configs/alice.py --data_root=...
"""

from jaxalign import config
from jaxalign.stages import encode, extract, report


def get_config():
    return config.pack(
        config.Common(dataset="alice"),
        extract=extract.Config(
            models=("all-MiniLM-L6-v2", "stories260K"), context="window:10", pooling="mean_all"
        ),
        encode=encode.Config(delays=(1, 2, 3, 4), gap=6),
        report=report.Config(),
    )
