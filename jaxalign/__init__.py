"""Brain and behavioural alignment of language models, in JAX."""

import importlib
import importlib.metadata

__version__ = "0.1.0"


def _check_versions() -> None:
    """Refuse the one pair of jax and flax inside our pins that cannot be imported together.

    jax 0.11.1 renamed classes that flax's NNX inherits from; flax follows since 0.12.10.
    """
    version = lambda name: tuple(int(x) for x in importlib.metadata.version(name).split(".")[:3])
    if version("jax") >= (0, 11, 1) and version("flax") < (0, 12, 10):
        raise ImportError(
            f"jax >= 0.11.1 needs flax >= 0.12.10: found jax {importlib.metadata.version('jax')} "
            f"and flax {importlib.metadata.version('flax')}. Run: pip install -U 'flax>=0.12.10'"
        )


_check_versions()

_INTERFACE = ("AlignmentScore", "ShuffledFoldsWarning", "average", "list_protocols", "score_arrays")


def __getattr__(name: str):
    """Import the interface when it is asked for, and not before."""
    if name not in _INTERFACE:
        raise AttributeError(f"module 'jaxalign' has no attribute {name!r}")
    return getattr(importlib.import_module("jaxalign.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_INTERFACE])
