"""Brain and behavioural alignment of language models, in JAX."""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING

from packaging.version import Version

__version__ = "0.1.0"


def _check_versions() -> None:
    """Refuse the one pair of jax and flax inside our pins that cannot be imported together.

    jax 0.11.1 renamed classes that flax's NNX inherits from; flax follows since 0.12.10.
    """
    jax, flax = (importlib.metadata.version(name) for name in ("jax", "flax"))
    if Version(jax) >= Version("0.11.1") and Version(flax) < Version("0.12.10"):
        raise ImportError(
            f"jax >= 0.11.1 needs flax >= 0.12.10: found jax {jax} and flax {flax}. "
            "Run: pip install -U 'flax>=0.12.10'"
        )


_check_versions()

# The interface -> the module that holds it, imported when it is asked for, and not before.
_INTERFACE = {
    "AlignmentScore": "jaxalign.core.scores.alignment",
    "BenchmarkScore": "jaxalign.api.runs",
    "CeilingWarning": "jaxalign.api.arrays",
    "InputError": "jaxalign.errors",
    "RepeatedStimuliWarning": "jaxalign.core.leaks",
    "ShuffledFoldsWarning": "jaxalign.api.arrays",
    "WrittenMaps": "jaxalign.api.maps",
    "WrittenReport": "jaxalign.api.pages",
    "average": "jaxalign.api.arrays",
    "list_benchmarks": "jaxalign.api.listing",
    "list_models": "jaxalign.api.listing",
    "list_protocols": "jaxalign.api.listing",
    "load_scores": "jaxalign.api.frames",
    "per_target": "jaxalign.api.frames",
    "report": "jaxalign.api.pages",
    "score": "jaxalign.api.runs",
    "score_arrays": "jaxalign.api.arrays",
    "write_maps": "jaxalign.api.maps",
}
if TYPE_CHECKING:
    from jaxalign.api.arrays import CeilingWarning as CeilingWarning
    from jaxalign.api.arrays import ShuffledFoldsWarning as ShuffledFoldsWarning
    from jaxalign.api.arrays import average as average
    from jaxalign.api.arrays import score_arrays as score_arrays
    from jaxalign.api.frames import load_scores as load_scores
    from jaxalign.api.frames import per_target as per_target
    from jaxalign.api.listing import list_benchmarks as list_benchmarks
    from jaxalign.api.listing import list_models as list_models
    from jaxalign.api.listing import list_protocols as list_protocols
    from jaxalign.api.maps import WrittenMaps as WrittenMaps
    from jaxalign.api.maps import write_maps as write_maps
    from jaxalign.api.pages import WrittenReport as WrittenReport
    from jaxalign.api.pages import report as report
    from jaxalign.api.runs import BenchmarkScore as BenchmarkScore
    from jaxalign.api.runs import score as score
    from jaxalign.core.leaks import RepeatedStimuliWarning as RepeatedStimuliWarning
    from jaxalign.core.scores.alignment import AlignmentScore as AlignmentScore
    from jaxalign.errors import InputError as InputError


def __getattr__(name: str):
    """Import a part of the interface."""
    if name not in _INTERFACE:
        raise AttributeError(f"module 'jaxalign' has no attribute {name!r}")
    return getattr(importlib.import_module(_INTERFACE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_INTERFACE})
