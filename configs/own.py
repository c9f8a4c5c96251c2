"""One's own data: a directory with stimuli.csv and responses.npz, and one or more models.

    launch/local.sh -m jaxalign.main --config=configs/own.py:path/to/data,all-MiniLM-L6-v2
    launch/local.sh -m jaxalign.main --config=configs/own.py:path/to/data,path/to/activations.npz

Words with times are scored with a context of ten words, delays of one to four TRs and a gap of six;
sentences each alone, in folds that keep passages whole. A model may be a file of activations
(docs/datasets/own.md); then no network with random weights stands beside any of them, and for the
rows of an .npy there is --config.imported.rows.
"""

import pathlib

from jaxalign import config, recipes
from jaxalign.data.sets import plain
from jaxalign.errors import InputError
from jaxalign.stages import encode, report


def get_config(argument=""):
    data, _, models = argument.partition(",")
    if not models:
        raise InputError(f"--config=configs/own.py:DATA,MODEL[,MODEL...], got {argument!r}.")
    timed = plain.read_stimuli(pathlib.Path(data) / plain.STIMULI).is_timed
    stages, controls = recipes.networks(models.split(","), context="window:10" if timed else "none")
    return config.pack(
        config.Common(dataset=data),
        **stages,
        encode=encode.Config(
            delays=(1, 2, 3, 4) if timed else (0,),
            gap=6 if timed else 0,
            groups="none" if timed else "passage",
            controls=controls,
        ),
        report=report.Config(),
    )
