"""Instructions x model -> tuned models along training, by arm and seed, for the stages behind."""

from jaxalign.stages.tune.config import Config
from jaxalign.stages.tune.plan import plan

__all__ = ["Config", "plan"]
