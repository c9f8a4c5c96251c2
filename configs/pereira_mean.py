"""Mean of the language network on 627 sentences: GPT-2 as another laboratory published it.

launch/local.sh -m jaxalign.main --config=configs/pereira_mean.py --data_root=...
"""

from jaxalign import config
from jaxalign.stages import encode, imported, report


def get_config():
    return config.pack(
        config.Common(dataset="pereira2018-mean"),
        imported=imported.Config(models=("gpt2-layer12",)),
        encode=encode.Config(
            num_folds=10,
            groups="dataset",
            controls=("length", "word_length", "position", "sentence_position", "shuffled"),
            shuffle="all",
            partition=("length",),
        ),
        report=report.Config(title="Language network, mean over participants"),
    )
