"""Reading times of ten stories: surprisal of a small model, and of GPT-3 as published.

    launch/local.sh -m jaxalign.main --config=configs/naturalstories.py --data_root=...

scores the published means, the same means as the corpus's authors have aligned them since, and the
times of 88 participants, which have a ceiling and random intercepts; a minute or two on two cores.
The page is `<workdir>/behavior/index.html`. GPT-3: |r| .207 with the published means, .154 with the
corrected ones; stories260K .375 with the published ones, untrained .338. Another model:
`--config=configs/naturalstories.py:MODEL`.
"""

from jaxalign import config
from jaxalign.stages import behavior, extract


def get_config(model="stories260K"):
    return config.pack(
        config.Common(dataset="naturalstories"),
        extract=extract.Config(models=(model,), context="accumulate:restart", surprisal=True),
        behavior=behavior.Config(
            offsets=(-2, -1, 0, 1, 2),
            beside=("naturalstories-corrected", "naturalstories-participants"),
        ),
    )
