"""Any data and one or more models: one's own data, or a data set of the table.

    launch/local.sh -m jaxalign.main --config=configs/own.py:path/to/data,all-MiniLM-L6-v2
    launch/local.sh -m jaxalign.main --config=configs/own.py:path/to/data,path/to/activations.npz
    launch/local.sh -m jaxalign.main --config=configs/own.py:path/to/data,gpt2,early=path/to/model
    launch/local.sh -m jaxalign.main --config=configs/own.py:wehbe2014,gpt2,protocol=wehbe2014

DATA is a directory, or a name of jaxalign/data/datasets.py. A directory has stimuli.csv, and beside
it responses.npz, responses.parquet or responses.csv, or images.csv with scans, or behavior.csv with
reading times; or it is of BIDS, as fMRIPrep's derivatives are. docs/datasets/own.md says what each
holds and how it is read and scored, and `python -m jaxalign.data.check DATA` what was understood. A
model is a name, a directory, either with another name in front (`early=`), or, of responses, a file
of activations; then no network with random weights is scored with it, and for the rows of an .npy
there is --config.imported.rows.
Reading times with given surprisal need no model.

`protocol=NAME`, anywhere behind the data, takes the settings of a protocol of
jaxalign/literature/protocols.py, whatever files the data come in.
"""

from jaxalign import recipes
from jaxalign.errors import InputError


def get_config(argument=""):
    data, *others = argument.split(",")
    named = [x.removeprefix("protocol=") for x in others if x.startswith("protocol=")]
    models = [x for x in others if not x.startswith("protocol=")]
    if not data or not all(models + named) or len(named) > 1:
        raise InputError(
            f"--config=configs/own.py:DATA,MODEL[,MODEL...][,protocol=NAME], got {argument!r}."
        )
    return recipes.on_data(data, models, *named)
