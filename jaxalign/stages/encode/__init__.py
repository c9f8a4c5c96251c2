"""Activations x responses -> held-out scores, ceilings and controls, as rows."""

from jaxalign.stages.encode.config import Config
from jaxalign.stages.encode.make import ALIGNMENT, PARTITION, ROWS, TARGETS
from jaxalign.stages.encode.permute import SIGNIFICANCE
from jaxalign.stages.encode.plan import plan

__all__ = ["ALIGNMENT", "PARTITION", "ROWS", "SIGNIFICANCE", "TARGETS", "Config", "plan"]
