"""Stimuli x model -> activations of all layers, and surprisal, in stores."""

from jaxalign.stages.extract.config import Config
from jaxalign.stages.extract.plan import plan

__all__ = ["Config", "plan"]
