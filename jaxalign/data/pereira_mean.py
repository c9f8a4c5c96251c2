"""Pereira et al. (2018): 627 sentences, the mean response of the language network to each.

One number per sentence, over participants and regions of the left hemisphere; and activations of
layer 12 of GPT-2 to the same sentences. The responses were transcribed by hand, to four decimals,
from a table of other authors (see docs/datasets/pereira2018-mean.md). Licence: none stated.

Source: Pereira et al. (2018), Nature Communications 9, 963.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxalign.data import arrays, tables
from jaxalign.data import verify as verify_lib
from jaxalign.data.schema import Responses, Stimuli, first_repeated, naming
from jaxalign.errors import InputError

FOLDER = "pereira2018_langnet_mean"
RESPONSES = f"{FOLDER}/pereira2018_langnet_mean.csv"
STIMULI = f"{FOLDER}/pereira2018_stimulus_set.csv"
ACTIVATIONS = f"{FOLDER}/GPT2_layer12_act_Pereira2018.npy"
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


def gpt2_activations(root: pathlib.Path, stimulus_id: Sequence[str]) -> Float[np.ndarray, "m u"]:
    """Read activations of layer 12 of GPT-2 (small), as another laboratory published them.

    The rows of their file are in the order of the stimulus set, whose ids they are joined by.

    Args:
      root: data root.
      stimulus_id: the sentences wanted.

    Raises:
      InputError: if a file is missing or malformed, or has no such sentence.
    """
    path = _existing(root / ACTIVATIONS)
    table = tables.read(_existing(root / STIMULI), ("stimulus_id",))
    if repeated := first_repeated(table["stimulus_id"].tolist()):
        raise InputError(f"{root / STIMULI}: stimulus_id must be unique, found {repeated!r} twice.")
    values = arrays.npy(path, shape=(None, None), kinds="f")
    if len(values) != len(table):
        raise InputError(
            f"{path} must have one row per sentence of {STIMULI} ({len(table)}), found "
            f"{len(values)}."
        )
    if not np.isfinite(values).all():
        raise InputError(f"{path} must be finite, found NaN or infinity.")
    row = {name: i for i, name in enumerate(table["stimulus_id"])}
    if unknown := [name for name in stimulus_id if name not in row]:
        raise InputError(f"{root / STIMULI} must have stimulus_id {unknown[0]!r}: it is missing.")
    return values[[row[name] for name in stimulus_id]].astype(np.float64)


def _existing(path: pathlib.Path) -> pathlib.Path:
    return arrays.need("pereira2018-mean", [path])[0]
