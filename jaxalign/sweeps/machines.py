"""Machines of clouds by the name of their accelerators, as three ways of asking for them need it.

Sources: cloud.google.com/tpu/docs (accelerator types, runtime versions), cloud.google.com/
kubernetes-engine/docs/concepts/tpus and .../how-to/gpus (labels of nodes), of 2025.
"""

from typing import NamedTuple

from jaxalign.errors import InputError


class Machine(NamedTuple):
    """One host with accelerators.

    Attributes:
      devices: of the host.
      sky: what SkyPilot calls them.
      labels: of the nodes of a Kubernetes cluster that have them.
      resource: what a container asks for, as often as there are devices.
      chip: what `pricing.chips` calls a device.
      runtime: software of a TPU VM; "": it is none.
    """

    devices: int
    sky: str
    labels: dict[str, str]
    resource: str
    chip: str
    runtime: str = ""


_GKE = "cloud.google.com/gke"


def _tpu(devices: int, name: str, gke: tuple[str, str], runtime: str) -> Machine:
    accelerator, topology = gke
    chip = name.partition("-")[0].replace("litepod", "e")
    labels = {f"{_GKE}-tpu-accelerator": accelerator, f"{_GKE}-tpu-topology": topology}
    return Machine(devices, f"tpu-{name}", labels, "google.com/tpu", chip, runtime)


def _gpu(devices: int, name: str, gke: str) -> Machine:
    labels = {f"{_GKE}-accelerator": gke}
    chip = name.partition("-")[0].lower()
    return Machine(devices, f"{name}:{devices}", labels, "nvidia.com/gpu", chip)


_V5E, _V6E = ("v2-alpha-tpuv5-lite", "v2-alpha-tpuv6e")

MACHINES: dict[str, Machine] = {
    "v4-8": _tpu(4, "v4-8", ("tpu-v4-podslice", "2x2x1"), "tpu-ubuntu2204-base"),
    "v5litepod-1": _tpu(1, "v5litepod-1", ("tpu-v5-lite-podslice", "1x1"), _V5E),
    "v5litepod-4": _tpu(4, "v5litepod-4", ("tpu-v5-lite-podslice", "2x2"), _V5E),
    "v5litepod-8": _tpu(8, "v5litepod-8", ("tpu-v5-lite-podslice", "2x4"), _V5E),
    "v5p-8": _tpu(4, "v5p-8", ("tpu-v5p-slice", "2x2x1"), "v2-alpha-tpuv5"),
    "v6e-1": _tpu(1, "v6e-1", ("tpu-v6e-slice", "1x1"), _V6E),
    "v6e-4": _tpu(4, "v6e-4", ("tpu-v6e-slice", "2x2"), _V6E),
    "v6e-8": _tpu(8, "v6e-8", ("tpu-v6e-slice", "2x4"), _V6E),
    "L4:1": _gpu(1, "L4", "nvidia-l4"),
    "A100-80GB:8": _gpu(8, "A100-80GB", "nvidia-a100-80gb"),
    "H100:8": _gpu(8, "H100", "nvidia-h100-80gb"),
    "H200:8": _gpu(8, "H200", "nvidia-h200-141gb"),
}


def find(name: str) -> Machine:
    """Return a machine of the table.

    Raises:
      InputError: if there is none of that name.
    """
    if name not in MACHINES:
        raise InputError(f"--accelerator must be one of {', '.join(MACHINES)}, got {name!r}.")
    return MACHINES[name]
