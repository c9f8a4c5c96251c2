"""What Slurm and TPUs say of the tasks of a job, which may be processes of one run."""

import re
from collections.abc import Mapping

from jaxalign.errors import InputError


def are_several(environment: Mapping[str, str]) -> bool:
    """Whether JAX can find the other tasks of this job by itself, and there are some.

    A job of one task has Slurm's variables, too.
    """
    if int(environment.get("SLURM_NTASKS", 1)) > 1 and "SLURM_STEP_NODELIST" in environment:
        return True
    hosts = environment.get("TPU_WORKER_HOSTNAMES") or environment.get("TPU_PROCESS_ADDRESSES", "")
    if "," in hosts:
        return True
    from jax._src import clusters  # what JAX asks itself, which has no public name either

    tpus = [x for x in clusters.ClusterEnv._cluster_types if "tpu" in x.name]
    return any(x.is_env_present() and x.get_process_count() > 1 for x in tpus)


def own_devices(environment: Mapping[str, str]) -> list[int]:
    """Return the GPUs of a Slurm task, as numbers among those that it sees; []: JAX decides.

    JAX takes the one GPU of the task's number on its node. That is wrong where Slurm lets each task
    see its own alone (`--gpus-per-task`), and too little where a node has more GPUs than tasks.

    Raises:
      InputError: if the tasks of a node cannot have the same number of GPUs.
    """
    visible = environment.get("CUDA_VISIBLE_DEVICES") or environment.get("ROCR_VISIBLE_DEVICES")
    if not visible or "SLURM_LOCALID" not in environment:
        return []
    if environment.get("JAX_LOCAL_DEVICE_IDS"):  # which the user has chosen
        return []
    seen = len(visible.split(","))
    if seen < int(environment.get("SLURM_GPUS_ON_NODE", seen)):
        return list(range(seen))
    # As in "2(x3),1": that of each node of the step.
    every = environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
    counts = re.findall(r"(\d+)(?:\(x(\d+)\))?", every)
    per_node = [int(number) for number, times in counts for _ in range(int(times or 1))]
    tasks = per_node[int(environment.get("SLURM_NODEID", 0))]
    if seen % tasks:
        raise InputError(
            f"the {tasks} tasks of a node must have as many GPUs each, and it has {seen}."
        )
    first = int(environment["SLURM_LOCALID"]) * (seen // tasks)
    return list(range(first, first + seen // tasks))
