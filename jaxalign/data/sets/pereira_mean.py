"""Pereira et al. (2018): 627 sentences, the mean response of the language network to each.

One number per sentence, over participants and regions of the left hemisphere; and activations of
layer 12 of GPT-2 to the same sentences. The responses were transcribed by hand, to four decimals,
from a table of other authors (see docs/datasets/pereira2018-mean.md). Licence: none stated.

Source: Pereira et al. (2018), Nature Communications 9, 963.
"""

import dataclasses
import pathlib

import numpy as np
import pandas as pd

from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import tables
from jaxalign.data.formats import verify as verify_lib
from jaxalign.data.schema import Responses, Stimuli, naming
from jaxalign.errors import InputError
from jaxalign.io import activation_files

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class PereiraMean(Adapter):
    """Sentences, one response to each, and activations of GPT-2.

    Attributes:
      verify: whether to refuse another table than the known one, by its counts and its sum.
    """

    name: str = "pereira2018-mean"
    verify: bool = True
    networks = ("gpt2-layer12",)

    def files(self) -> list[pathlib.Path]:
        """Return the one table of sentences and responses."""
        return self.need([self.root / RESPONSES])

    def stimuli(self) -> Stimuli:
        """Read the sentences; a passage is three or four of them that were written as one text."""
        (path,) = self.files()
        table = tables.read(path, COLUMNS)
        with naming(path):
            return Stimuli(
                stimulus_id=table["stimulus_id"].tolist(),
                text=table["sentence"].tolist(),
                passage=_passages(table),
                run=table["experiment"].tolist(),
                unit="sentence",
                language="en",
            )

    def groups(self) -> dict[str, str]:
        """Return the topic of each sentence, which several passages share."""
        (path,) = self.files()
        table = tables.read(path, COLUMNS)
        return dict(zip(table["stimulus_id"], table["story"], strict=True))

    def responses(self) -> Responses:
        """Read the one response to each sentence."""
        (path,) = self.files()
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
        if self.verify:
            facts = {
                "sentences": len(values),
                "passages": len(set(_passages(table))),
                "stories": len(set(table["story"])),
                "sum of responses": float(values.sum()),
            }
            verify_lib.check(path, "mean of the language network", facts, EXPECTED)
        return found

    def activations(self, name: str) -> activation_files.Given:
        """Open activations of layer 12 of GPT-2 (small), as another laboratory published them.

        The rows of their file are in the order of the stimulus set, not in that of the responses.
        """
        if name not in self.networks:
            return super().activations(name)
        table, activations = self.need([self.root / STIMULI, self.root / ACTIVATIONS])
        ids = tables.read(table, ("stimulus_id",))["stimulus_id"].tolist()
        if repeated := tables.first_repeated(ids):
            raise InputError(f"{table}: stimulus_id must be unique, found {repeated!r} twice.")
        return activation_files.open_npy(activations, ids, layers=(12,))


def _passages(table: pd.DataFrame) -> list[str]:
    return (table["experiment"] + "." + table["passage_index"]).tolist()
