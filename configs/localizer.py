"""Language-selective units of a model, and as many random ones.

    launch/local.sh -m jaxalign.main --config=configs/localizer.py:MODEL

Sentences and non-words are drawn with a seed; `--config.dataset=DIRECTORY` takes those of
sentences.txt and nonwords.txt. The page is `<workdir>/localize/index.html`; the same network with
random weights is shown too.
"""

from jaxalign import config
from jaxalign.stages import extract, localize


def get_config(model="stories260K"):
    return config.pack(
        config.Common(dataset="localizer"),
        extract=extract.Config(models=(model,), pooling="last"),
        localize=localize.Config(),
    )
