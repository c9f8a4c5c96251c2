"""Activations x responses -> held-out scores, ceilings and controls, as rows."""

from jaxalign.stages.encode.config import Config
from jaxalign.stages.encode.plan import plan

__all__ = ["Config", "plan"]
