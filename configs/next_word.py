"""How well a causal model predicts the next token of a text: wikitext2-nwp.

    launch/local.sh -m jaxalign.main --config=configs/next_word.py:MODEL,TEXT --data_root=...

TEXT is a file of plain text; left out, it is wikitext2-test (docs/next_word.md says where that must
lie). MODEL is a name or a directory. The page is `<workdir>/next_word/index.html`.
stories260K on the ten Natural Stories (57 kB): half a minute on two cores, 3.160 nats per token,
2.510 bits per byte, untrained 6.239 and 4.956.
"""

from jaxalign import config
from jaxalign.stages import next_word


def get_config(argument="stories260K"):
    model, _, text = argument.partition(",")
    return config.pack(
        config.Common(),
        next_word=next_word.Config(models=(model,), text=text or "wikitext2-test"),
    )
