"""Every noise ceiling that a data set allows, with intervals; no model is needed.

    launch/local.sh -m jaxalign.main --config=configs/ceilings.py:pieman --data_root=...

takes any name of jaxalign/data/datasets.py, or a directory. Without one it is Pie Man: 36 people
hear a story. `demo` plants its listeners with the help of a model, and shows their true ceilings.
docs/ceilings.md says what each ceiling means. As Brain-Score extrapolates:
`--config.ceiling.splits=shuffled --config.ceiling.alphas="(0.0,)"`.
"""

from jaxalign import config
from jaxalign.stages import ceiling, extract, simulate_responses


def get_config(dataset="pieman"):
    stages = {"ceiling": ceiling.Config()}
    if dataset == "demo":
        model = "all-MiniLM-L6-v2"
        stages |= {
            "extract": extract.Config(models=(model,), untrained_seed=-1),
            "simulate": simulate_responses.Config(model=model, layer=4),
        }
    return config.pack(config.Common(dataset=dataset), **stages)
