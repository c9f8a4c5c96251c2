"""Pereira et al. (2018): 627 sentences, the mean response of the language network to each.

One number per sentence, over participants and regions of the left hemisphere; and activations of
layer 12 of GPT-2 to the same sentences. The responses were transcribed by hand, to four decimals,
from a table of other authors (see docs/datasets/pereira2018-mean.md). Licence: none stated.

Source: Pereira et al. (2018), Nature Communications 9, 963.
"""

import pathlib

import numpy as np

from jaxalign.data.formats import recordings, tables
from jaxalign.data.formats import verify as verify_lib
from jaxalign.data.schema import Responses, Stimuli, first_repeated, naming
from jaxalign.errors import InputError
from jaxalign.io import activation_files

FOLDER = "pereira2018_langnet_mean"
RESPONSES = f"{FOLDER}/pereira2018_langnet_mean.csv"
STIMULI = f"{FOLDER}/pereira2018_stimulus_set.csv"
ACTIVATIONS = f"{FOLDER}/GPT2_layer12_act_Pereira2018.npy"
NETWORKS = ("gpt2-layer12",)
COLUMNS = ("stimulus_id", "sentence", "experiment", "passage_index", "story")
EXPECTED = {
    "sentences": verify_lib.exactly(627),
    "passages": verify_lib.exactly(168),
    "stories": verify_lib.exactly(48),
    "sum of responses": verify_lib.about(367.1569),
}


def files(root: pathlib.Path, *, verify: bool) -> list[pathlib.Path]:
    """Return the one file of sentences and responses.

    Raises:
      InputError: if it is missing.
    """
    del verify
    return [_existing(root / RESPONSES)]


def stimuli(root: pathlib.Path, *, verify: bool) -> Stimuli:
    """Read the sentences; a passage is three or four of them that were written as one text.

    Raises:
      InputError: if the file is malformed, or an id is there twice.
    """
    del verify
    path = _existing(root / RESPONSES)
    table = tables.read(path, COLUMNS)
    with naming(path):
        return Stimuli(
            stimulus_id=table["stimulus_id"].tolist(),
            text=table["sentence"].tolist(),
            passage=(table["experiment"] + "." + table["passage_index"]).tolist(),
            run=table["experiment"].tolist(),
            unit="sentence",
        )


def groups(root: pathlib.Path, *, verify: bool) -> dict[str, str]:
    """Return the topic of each sentence, which several passages share, by stimulus_id.

    Raises:
      InputError: if the file is malformed.
    """
    del verify
    table = tables.read(_existing(root / RESPONSES), COLUMNS)
    return dict(zip(table["stimulus_id"], table["story"], strict=True))


def responses(root: pathlib.Path, *, verify: bool) -> Responses:
    """Read the one response to each sentence.

    Args:
      root: data root.
      verify: whether to hold the file against the counts and the sum of the known one.

    Raises:
      InputError: if the file is malformed, or is not the known one.
    """
    path = _existing(root / RESPONSES)
    table = tables.read(path, (*COLUMNS, "response"))
    values = tables.numbers(path, table, "response")
    with naming(path):
        found = Responses(
            values=values[:, np.newaxis],
            run=table["experiment"].tolist(),
            subject=["participants' mean"],
            roi=["language network"],
            target=["mean"],
            units="effect size, as published",
            stimulus_id=table["stimulus_id"].tolist(),
        )
    if verify:
        facts = {
            "sentences": len(values),
            "passages": len(set(table["experiment"] + "." + table["passage_index"])),
            "stories": len(set(table["story"])),
            "sum of responses": float(values.sum()),
        }
        verify_lib.check(path, "mean of the language network", facts, EXPECTED)
    return found


def activations(root: pathlib.Path, name: str, *, verify: bool) -> activation_files.Given:
    """Open activations of layer 12 of GPT-2 (small), as another laboratory published them.

    The rows of their file are in the order of the stimulus set, not in that of the responses.

    Args:
      root: data root.
      name: of `NETWORKS`.
      verify: not used here: there are no published sums to hold the file against.

    Raises:
      InputError: if a file is missing or malformed, or has not a row for each sentence.
    """
    del verify
    assert name in NETWORKS
    ids = tables.read(_existing(root / STIMULI), ("stimulus_id",))["stimulus_id"].tolist()
    if repeated := first_repeated(ids):
        raise InputError(f"{root / STIMULI}: stimulus_id must be unique, found {repeated!r} twice.")
    return activation_files.open_npy(_existing(root / ACTIVATIONS), ids, layers=(12,))


def _existing(path: pathlib.Path) -> pathlib.Path:
    return recordings.need("pereira2018-mean", [path])[0]
