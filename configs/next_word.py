"""How well a causal model predicts the next token of a text: wikitext2-nwp.

    launch/local.sh -m jaxalign.main --config=configs/next_word.py:MODEL,TEXT --data_root=...

TEXT is a file of plain text, or wikitext2-test (docs/next_word.md says where it must lie), which it
is if left out. MODEL is a name or a directory. The page is `<workdir>/next_word/index.html`.
stories260K on the 10 Natural Stories (one token in 2.3 bytes): seconds on two cores.
"""

from jaxalign import config
from jaxalign.stages import next_word


def get_config(argument="stories260K"):
    model, _, text = argument.partition(",")
    return config.pack(
        config.Common(),
        next_word=next_word.Config(models=(model,), text=text or "wikitext2-test"),
    )
