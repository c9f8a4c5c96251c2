"""Any data and one or more models: one's own data, or a data set of the table.

    launch/local.sh -m jaxalign.main --config=configs/own.py:path/to/data,all-MiniLM-L6-v2
    launch/local.sh -m jaxalign.main --config=configs/own.py:path/to/data,path/to/activations.npz
    launch/local.sh -m jaxalign.main --config=configs/own.py:wehbe2014,gpt2 --data_root=...

DATA is a directory with stimuli.csv and responses.npz (docs/datasets/own.md) or scans
(docs/datasets/images.md), or a name of jaxalign/data/datasets.py. Words with times are scored with
a context of ten words, delays of one to four TRs and a gap of six; single sentences or images each
alone, in folds that keep passages whole. A model may be a file of activations; then no network with
random weights is scored with it, and for the rows of an .npy there is --config.imported.rows.
"""

from jaxalign import config, recipes
from jaxalign.data import datasets
from jaxalign.errors import InputError
from jaxalign.stages import encode, report


def get_config(argument=""):
    data, _, models = argument.partition(",")
    if not models:
        raise InputError(f"--config=configs/own.py:DATA,MODEL[,MODEL...], got {argument!r}.")
    timed = datasets.is_timed(data)
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
