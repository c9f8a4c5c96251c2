"""tmp"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """tmp"""


def plan(config, job, upstream):
    return []
