"""Findings of Oota et al. (2025) from a digitised figure and the scores in their repository.

Instruction-tuned multimodal models against ViT-H, CLIP and random weights in two regions, with the
error of reading the figure, and feature sets by regions with the standard errors over 4 subjects.
No data, no network; on a laptop in under a minute. <workdir>/report/checks.csv says that the
figure's order in early visual cortex (InstructBLIP .17 above ViT-H) is not that of the repository's
raw scores (.06 below). What winner maps and partitions of ten instructions look like is shown on a
simulation, which says that it is one.

launch/local.sh -m jaxalign.main --config=configs/oota2025_findings.py
"""

from jaxalign import config
from jaxalign.stages import collect, properties, report, simulate_instructions


def get_config():
    return config.pack(
        config.Common(),
        instructions=simulate_instructions.Config(),  # a simulation, and says so
        collect=collect.Config(published=("oota2025-fig2", "oota2025-roi")),
        properties=properties.Config(sources=("published:oota2025-fig2", "published:oota2025-roi")),
        report=report.Config(
            title="Instruction-tuned multimodal models and the brain, from published figures",
            paper="oota2025",
        ),
    )
