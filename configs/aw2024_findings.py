"""Findings of Aw et al. (2024) from the figures that they printed: 33 models, no data, no network.

Gains by instruction tuning, correlations of brain alignment with size and knowledge, pooled and
within families, and every number of the paper compared with what its tables give. GPT-2, whose
knowledge is near chance, is kept apart as in the paper. On a laptop in under a minute;
<workdir>/report/findings.csv has a mean gain of 6.32 % over the three data sets, r(size) .946 over
17 tuned models, and .219 within LLaMA.

launch/local.sh -m jaxalign.main --config=configs/aw2024_findings.py
"""

from jaxalign import config
from jaxalign.stages import collect, properties, report


def get_config():
    return config.pack(
        config.Common(),
        collect=collect.Config(published=("aw2024",)),
        properties=properties.Config(sources=("published:aw2024",)),
        report=report.Config(
            title="Instruction tuning and brain alignment, from published figures",
            paper="aw2024",
            apart=("GPT2",),
        ),
    )
