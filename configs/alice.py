"""Alice in Wonderland in the scanner: two models, six regions, 27 listeners.

Each model with every control that needs no table, what it explains beyond three of them, and
permutation tests of its layers.

launch/local.sh -m jaxalign.main --config=configs/alice.py --data_root=...
"""

from jaxalign import config
from jaxalign.stages import encode, extract, report


def get_config():
    return config.pack(
        config.Common(dataset="alice"),
        extract=extract.Config(
            models=("all-MiniLM-L6-v2", "stories260K"),
            context="window:10",
            pooling="mean_all",
            static_embedding=True,
        ),
        encode=encode.Config(
            delays=(1, 2, 3, 4),
            gap=6,
            controls=(
                "word_rate",
                "word_length",
                "length",
                "position",
                "oasm",
                "shifted",
                "shuffled",
                "static_embedding",
                "random_embedding",
                "untrained",
            ),
            partition=("word_rate", "word_length", "position"),
            permutations=999,
        ),
        report=report.Config(),
    )
