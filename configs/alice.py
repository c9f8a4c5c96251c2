"""Alice in Wonderland in the scanner: two models, six regions, 27 listeners.

Each model with every control that needs no table, what it explains beyond three of them, and
permutation tests of its layers.

launch/local.sh -m jaxalign.main --config=configs/alice.py --data_root=...

`--config=configs/alice.py:MODEL` scores another model beside them.
`--config=configs/alice.py:MODEL,chat` scores one alone, which reads each window of words as a
user's turn in its own chat template. States of a word are pooled then, not those of the template;
with `--config.extract.chat=False` it reads the same windows without one.
"""

from jaxalign import config
from jaxalign.errors import InputError
from jaxalign.stages import encode, extract, report


def get_config(argument=""):
    model, comma, how = argument.partition(",")
    if comma and (how != "chat" or not model):
        raise InputError(f"--config=configs/alice.py:MODEL or :MODEL,chat, got {argument!r}.")
    models = ("all-MiniLM-L6-v2", "stories260K")
    return config.pack(
        config.Common(dataset="alice"),
        extract=extract.Config(
            models=(model,) if how else (*models, model) if model else models,
            context="window:10",
            pooling="mean" if how else "mean_all",
            chat=bool(how),
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
            # A quarter of the weights that would be tried by default, and of the time.
            partition_draws=12,
            partition_rounds=0,
            permutations=999,
        ),
        report=report.Config(),
    )
