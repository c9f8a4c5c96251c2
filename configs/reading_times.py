"""Reading times of any data set: surprisal of one or more causal models, or given with the data.

    launch/local.sh -m jaxalign.main --config=configs/reading_times.py:path/to/data,gpt2
    launch/local.sh -m jaxalign.main --config=configs/reading_times.py:path/to/data

DATA is a directory with stimuli.csv and behavior.csv (docs/datasets/own.md), or a name of
jaxalign/data/datasets.py. Each word is read after all of its story that fits the model; without a
model there must be surprisal in the data. configs/own.py does the same where there are reading
times and no responses. The page is `<workdir>/behavior/index.html`; docs/behavior.md says what is
computed.
"""

from jaxalign import recipes
from jaxalign.errors import InputError


def get_config(argument=""):
    data, *models = argument.split(",")
    if not data or not all(models):
        raise InputError(f"--config=configs/reading_times.py:DATA[,MODEL...], got {argument!r}.")
    return recipes.on_reading_times(data, models)
