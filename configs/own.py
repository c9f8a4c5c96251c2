"""Any data and one or more models: one's own data, or a data set of the table.

    launch/local.sh -m jaxalign.main --config=configs/own.py:path/to/data,all-MiniLM-L6-v2
    launch/local.sh -m jaxalign.main --config=configs/own.py:path/to/data,path/to/activations.npz
    launch/local.sh -m jaxalign.main --config=configs/own.py:wehbe2014,gpt2 --data_root=...

DATA is a directory, or a name of jaxalign/data/datasets.py. A directory has stimuli.csv, and beside
it responses.npz or responses.parquet, or images.csv with scans, or behavior.csv with reading times;
docs/datasets/own.md says what each holds and how it is read and scored. A model is a name, a
directory or, of responses, a file of activations; then no network with random weights is scored
with it, and for the rows of an .npy there is --config.imported.rows. Reading times with given
surprisal need no model.
"""

from jaxalign import recipes
from jaxalign.errors import InputError


def get_config(argument=""):
    data, *models = argument.split(",")
    if not data or not all(models):
        raise InputError(f"--config=configs/own.py:DATA,MODEL[,MODEL...], got {argument!r}.")
    return recipes.on_data(data, models)
