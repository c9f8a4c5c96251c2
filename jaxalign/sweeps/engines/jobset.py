"""A JobSet for Kubernetes: one job for each machine, which the cluster starts again when lost."""

import yaml

from jaxalign.errors import InputError
from jaxalign.sweeps import machines, work
from jaxalign.sweeps.engines import Options, files
from jaxalign.sweeps.engines.files import chip, queue
from jaxalign.sweeps.record import Record

FILE = "jobset.yaml"
_STORE = "/outputs"
_INDEX = "metadata.annotations['jobset.sigs.k8s.io/job-index']"

__all__ = ["check", "chip", "manifest", "queue", "start"]


def check(options: Options) -> None:
    """Refuse what cannot be written down.

    Raises:
      InputError: see `files.check`; and if there is no image, or no volume for what is made.
    """
    files.check(options)
    if not options.image or not options.volume:
        raise InputError(
            "--to=jobset needs --image, in which the repository is the working directory, and "
            "--volume, a claim that is mounted as the store."
        )


def manifest(record: Record, options: Options) -> dict:
    """Return the JobSet."""
    machine, name = machines.find(options.accelerator), files.name(record)
    options = options.on(f"{_STORE}/data")
    # The cluster puts the variable in.
    run = files.command(options, store=_STORE, share=f"$(JOB_INDEX)/{options.machines}")
    # A share with jobs that have failed for good (1) has ended well for the cluster, which would
    # else end the others; --status and the last page say what has failed.
    shell = f"{{ {run} || [ $? -eq 1 ]; }}"
    if options.prepare:
        shell = f"{options.prepare} && {shell}"
    asked = {machine.resource: machine.devices}
    container = {
        "name": "jaxalign",
        "image": options.image,
        "command": ["bash", "-c", shell],
        "env": [
            {"name": "JOB_INDEX", "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}},
        ],
        "resources": {"requests": dict(asked), "limits": asked},
        "volumeMounts": [{"name": "store", "mountPath": _STORE}],
    }
    spot = {"cloud.google.com/gke-spot": "true"} if options.spot else {}
    pod = {
        "restartPolicy": "Never",
        "nodeSelector": machine.labels | spot,
        "containers": [container],
        "volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": options.volume}}],
    }
    rules = [
        {
            "action": "FailJob",
            "onExitCodes": {
                "containerName": "jaxalign",
                "operator": "In",
                "values": [work.BAD_INPUT],
            },
        },
        # A node that is taken away is nobody's fault, and counts as no try.
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    give_up = {
        "name": "bad_input",
        "action": "FailJobSet",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    job = {
        "completionMode": "Indexed",
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": 1,
        "podFailurePolicy": {"rules": rules},
        "template": {"spec": pod},
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": {"maxRestarts": 3, "rules": [give_up]},
            "replicatedJobs": [
                {"name": "share", "replicas": options.machines, "template": {"spec": job}}
            ],
        },
    }


def start(record: Record, options: Options) -> int:
    """Write the file.

    Returns:
      0: it is written.
    """
    head = f"# {files.NOT_RUN}\n# To start, in this folder:\n#   kubectl apply -f {FILE}\n"
    files.write(record, FILE, head + yaml.safe_dump(manifest(record, options), sort_keys=False))
    return 0
