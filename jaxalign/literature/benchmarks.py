"""One table of benchmarks: a data set, a protocol, and what has been published for the two."""

import dataclasses

from jaxalign.core.scores.protocol import Extraction, Protocol
from jaxalign.errors import InputError
from jaxalign.literature import protocols

# Words with times, read with the ten before them: how configs/alice.py and, where nothing else is
# said, all data of one's own are read.
HEARD = Extraction(context="window:10", pooling="mean_all", delays=(1, 2, 3, 4))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What a model is scored on.

    Attributes:
      dataset: name of a data set; under a protocol of kind "next_word", of a text
        (data/text/texts.py).
      protocol: name of a protocol of kind "encoding", "reading_time" or "next_word".
      is_timed: whether responses are TRs of timed words; features are then delayed.
      extraction: in place of the protocol's; see `scored_under`.
      ceiling: published for this protocol; 0: none is.
    """

    dataset: str
    protocol: str
    is_timed: bool = False
    extraction: Extraction | None = None
    ceiling: float = 0.0

    @property
    def reading(self) -> Extraction:
        """How the model reads the stimuli."""
        chosen = self.extraction or protocols.find(self.protocol).extraction
        return chosen if self.is_timed else dataclasses.replace(chosen, delays=(0,))

    @property
    def scored_under(self) -> Protocol:
        """The protocol, in its own-reading form if it fixes another reading than this one."""
        found = protocols.find(self.protocol)
        chosen = self.extraction or found.extraction
        differs = any(getattr(chosen, x) != y for x, y in found.extraction.fixed.items())
        return protocols.own_reading(found) if differs else found


# Constants of Brain-Score, for its linear benchmarks.
_CEILING_243, _CEILING_384, _CEILING_BLANK = 0.35378928, 0.36343748, 0.21026591

BENCHMARKS: dict[str, Benchmark] = {
    "alice-jaxalign": Benchmark(
        dataset="alice", protocol="jaxalign", is_timed=True, extraction=HEARD
    ),
    "alice-linear-2026": Benchmark(
        dataset="alice", protocol="brainscore-linear-2026", is_timed=True, extraction=HEARD
    ),
    "alice-wehbe2014": Benchmark(
        dataset="alice", protocol="wehbe2014", is_timed=True, extraction=HEARD
    ),
    "alice-himalaya": Benchmark(
        dataset="alice", protocol="himalaya", is_timed=True, extraction=HEARD
    ),
    "Pereira2018.243sentences-linear-2023": Benchmark(
        dataset="pereira2018-243", protocol="brainscore-linear-2023", ceiling=_CEILING_243
    ),
    "Pereira2018.384sentences-linear-2023": Benchmark(
        dataset="pereira2018-384", protocol="brainscore-linear-2023", ceiling=_CEILING_384
    ),
    "Pereira2018.243sentences-linear-2026": Benchmark(
        dataset="pereira2018-243", protocol="brainscore-linear-2026", ceiling=_CEILING_243
    ),
    "Pereira2018.384sentences-linear-2026": Benchmark(
        dataset="pereira2018-384", protocol="brainscore-linear-2026", ceiling=_CEILING_384
    ),
    "Pereira2018.243sentences-ridge": Benchmark(
        dataset="pereira2018-243", protocol="brainscore-ridge"
    ),
    "Pereira2018.384sentences-ridge": Benchmark(
        dataset="pereira2018-384", protocol="brainscore-ridge"
    ),
    "Pereira2018.243sentences-jaxalign": Benchmark(dataset="pereira2018-243", protocol="jaxalign"),
    "Pereira2018.384sentences-jaxalign": Benchmark(dataset="pereira2018-384", protocol="jaxalign"),
    "Pereira2018.mean-jaxalign": Benchmark(dataset="pereira2018-mean", protocol="jaxalign"),
    "Pereira2018.mean-ridge": Benchmark(dataset="pereira2018-mean", protocol="brainscore-ridge"),
    # Parts of stories, each with its response; Brain-Score takes the rows of the file as they are.
    "Blank2014-linear-2023": Benchmark(
        dataset="blank2014-rows", protocol="brainscore-linear-2023", ceiling=_CEILING_BLANK
    ),
    "Blank2014-linear-2026": Benchmark(
        dataset="blank2014-rows", protocol="brainscore-linear-2026", ceiling=_CEILING_BLANK
    ),
    "Blank2014-ridge": Benchmark(dataset="blank2014-rows", protocol="brainscore-ridge-8folds"),
    "Blank2014-jaxalign": Benchmark(dataset="blank2014", protocol="jaxalign"),
    "Fedorenko2016-linear-2026": Benchmark(
        dataset="fedorenko2016", protocol="brainscore-linear-2026"
    ),
    "Tuckute2024-linear-2026": Benchmark(dataset="tuckute2024", protocol="brainscore-linear-2026"),
    "Futrell2018-pearsonr": Benchmark(dataset="futrell2018", protocol="futrell2018-pearsonr"),
    # The same stories: means as published, as their authors have aligned them since, and other
    # participants, from whom there is a ceiling.
    **{
        f"NaturalStories{name}-pearsonr": Benchmark(
            dataset=f"naturalstories{name}", protocol="futrell2018-pearsonr"
        )
        for name in ("", "-corrected", "-participants")
    },
    "wikitext2-nwp": Benchmark(dataset="wikitext2-test", protocol="wikitext2-nwp"),
}


def find(name: str) -> Benchmark:
    """Return a benchmark of the table.

    Raises:
      InputError: if there is none of that name.
    """
    if name not in BENCHMARKS:
        raise InputError(f"benchmark must be one of {', '.join(BENCHMARKS)}, got {name!r}.")
    return BENCHMARKS[name]
