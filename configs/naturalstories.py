"""Reading times of ten stories: surprisal of a small model, and of GPT-3 as published.

    launch/local.sh -m jaxalign.main --config=configs/naturalstories.py --data_root=...

reads the published means. `--config=configs/naturalstories.py:naturalstories-corrected` takes the
means as the corpus's authors have aligned them since, and `...:naturalstories-participants` the
times of 88 participants, with a ceiling and mixed effects.
"""

from jaxalign import config
from jaxalign.stages import behavior, extract


def get_config(dataset="naturalstories"):
    return config.pack(
        config.Common(dataset=dataset),
        extract=extract.Config(
            models=("stories260K",), context="accumulate:restart", surprisal=True
        ),
        behavior=behavior.Config(),
    )
