"""CKA and RSA of models with brains, layer by layer, and of layers with layers; nothing is fitted.

    launch/local.sh -m jaxalign.main --config=configs/similarity.py --data_root=...

compares two models with 27 people who listened to Alice in Wonderland, 4 s after each word. Its
regions have one target each, which is no pattern, so RSA would be undefined there.
`--config=configs/similarity.py:planted` needs no data: eight participants whose responses are made
of layer 4 of all-MiniLM-L6-v2. The page is `<workdir>/similarity/index.html`.
"""

from jaxalign import config
from jaxalign.errors import InputError
from jaxalign.stages import extract, similarity, simulate_responses

MINILM = "all-MiniLM-L6-v2"


def get_config(responses="alice"):
    if responses == "planted":
        return config.pack(
            config.Common(dataset="demo"),
            extract=extract.Config(models=(MINILM,)),
            simulate=simulate_responses.Config(model=MINILM, layer=4),
            similarity=similarity.Config(),
        )
    if responses != "alice":
        raise InputError(f"--config=configs/similarity.py:alice or :planted, got {responses!r}.")
    return config.pack(
        config.Common(dataset="alice"),
        extract=extract.Config(
            models=(MINILM, "stories260K"), context="window:10", pooling="mean_all"
        ),
        similarity=similarity.Config(delays=(2,), measures=similarity.CKA),
    )
