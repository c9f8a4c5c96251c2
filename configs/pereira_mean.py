"""Mean of the language network on 627 sentences, from GPT-2 as another laboratory published it.

    launch/local.sh -m jaxalign.main --config=configs/pereira_mean.py --data_root=...

Ten folds of whole topics, drawn from both experiments: r .38 for layer 12 of GPT-2, .42 for the
length of the sentences alone, about 0 for the activations of other sentences; length explains a
third of what GPT-2 does. A few minutes on two cores, most of them for the partition.

`--config=configs/pereira_mean.py:PROTOCOL` scores by a protocol of
jaxalign/literature/protocols.py, without the partition: brainscore-ridge draws topics too,
brainscore-linear-2026 draws single sentences, and says beside it what contiguous folds of whole
topics give.
"""

from jaxalign import config
from jaxalign.stages import encode, imported, report

CONTROLS = ("length", "word_length", "position", "sentence_position", "shuffled")


def get_config(protocol=""):
    if protocol:
        encoding = encode.Config(protocol=protocol, controls=CONTROLS, shuffle="all")
    else:
        encoding = encode.Config(
            num_folds=10,
            groups="dataset",
            group_seed=1234,
            controls=CONTROLS,
            shuffle="all",
            partition=("length",),
            # Two bands and one target: weights lie on a line.
            partition_draws=6,
            partition_rounds=1,
        )
    return config.pack(
        config.Common(dataset="pereira2018-mean"),
        imported=imported.Config(models=("gpt2-layer12",)),
        encode=encoding,
        report=report.Config(title="Language network, mean over participants"),
    )
