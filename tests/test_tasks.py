"""What Slurm says of the tasks of a job: how many there are, and which GPUs each has."""

import pytest
from refusals import refused

from jaxalign import tasks


@pytest.mark.parametrize(
    "visible,on_node,task,per_node,expected",
    [
        ("0,1,2,3", 4, (0, 2), "4(x2)", [2]),  # a GPU for each of four tasks, which see all
        ("0,1,2,3", 4, (1, 3), "4(x2)", [3]),
        ("0", 4, (0, 2), "4", [0]),  # Slurm lets each see its own
        ("4,5", 8, (0, 1), "4", [0, 1]),
        ("0,1,2,3", 4, (1, 0), "1(x2)", [0, 1, 2, 3]),  # a task has all of its node
        ("0,1,2,3", 4, (2, 1), "4(x2),2", [2, 3]),
        ("0,1,2,3,4,5", 6, (0, 1), "2", [3, 4, 5]),
    ],
)
def test_gpus_of_a_task(visible, on_node, task, per_node, expected):
    environment = {
        "CUDA_VISIBLE_DEVICES": visible,
        "SLURM_GPUS_ON_NODE": str(on_node),
        "SLURM_NODEID": str(task[0]),
        "SLURM_LOCALID": str(task[1]),
        "SLURM_STEP_TASKS_PER_NODE": per_node,
    }
    assert tasks.own_devices(environment) == expected
    del environment["SLURM_LOCALID"]
    assert tasks.own_devices(environment) == []


def test_gpus_that_cannot_be_divided_are_refused():
    environment = {
        "CUDA_VISIBLE_DEVICES": "0,1,2",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_TASKS_PER_NODE": "2",
    }
    with refused("the 2 tasks of a node must have as many GPUs each, and it has 3"):
        tasks.own_devices(environment)
    assert tasks.own_devices(environment | {"JAX_LOCAL_DEVICE_IDS": "2"}) == []


def test_tasks_that_jax_finds():
    step = {"SLURM_NTASKS": "2", "SLURM_STEP_NODELIST": "node1"}
    assert tasks.are_several(step)
    assert not tasks.are_several({"SLURM_NTASKS": "2"})  # of a job, outside its steps
    assert not tasks.are_several(step | {"SLURM_NTASKS": "1"})
    assert tasks.are_several({"TPU_WORKER_HOSTNAMES": "a,b"})
