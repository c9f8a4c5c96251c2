"""How cost grows with devices, samples, features, targets, layers and networks.

    python -m jaxalign.main --config=configs/bench_scaling.py

Devices are simulated on the CPU, so that it runs anywhere; a few minutes on two cores. Every size
can be overridden, as in --config.bench_scaling.devices="(1,2,4,8)"; () leaves an axis out.
"""

from jaxalign import config
from jaxalign.bench import scaling


def get_config():
    return config.pack(config.Common(), bench_scaling=scaling.Config())
