"""Whole sweeps, run as a user runs them: on this machine, and by a Slurm that is started for it.

Six jobs, three networks under two protocols; both ways give the table of one process, byte for
byte.
"""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import slurm_cluster
import small

from jaxalign.pricing import truth
from jaxalign.sweeps import outcome, planning, work

pytestmark = pytest.mark.slow
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MODELS = ("llama", "bert", "bloom")
CONFIGURATION = """
import pathlib
from jaxalign import config
from jaxalign.stages import encode, extract

def get_config():
    return config.pack(
        config.Common(dataset={data!r}),
        extract=extract.Config(models=("gpt2",), untrained_seed=-1, shard_stimuli=16),
        encode=encode.Config(protocol="jaxalign", controls=("word_length",)),
    )

def sweep():
    for name, protocol in {runs!r}:
        network = name + "=" + {folder!r} + name
        yield {{"extract.models": (network,), "encode.protocol": protocol}}
"""
PROTOCOLS = ("jaxalign", "brainscore-linear-2026-own-reading")


def each(models):
    """Return each network under both protocols."""
    return [(name, protocol) for name in models for protocol in PROTOCOLS]


def call(*arguments, environment=None):
    found = subprocess.run(
        [sys.executable, "launch/sweep.py", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweeps")


@pytest.fixture(scope="module")
def write(folder):
    """Return a function from networks, copies that can be spoilt, and protocols to a file."""
    data = small.write(folder / "data", num_passages=24)
    for name, source in zip(MODELS, (small.LLAMA, small.BERT, small.BLOOM), strict=True):
        shutil.copytree(source, folder / "models" / name)

    def write(name, runs):
        path = folder / f"{name}.py"
        text = CONFIGURATION.format(data=str(data), runs=runs, folder=str(folder / "models") + "/")
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="module")
def expected(folder, write):
    """The table of all scores, made by one process."""
    done = subprocess.run(
        [
            *(sys.executable, REPOSITORY / "tests/support/one_process.py"),
            *(write("one", each(MODELS)), folder / "one"),
        ],
        cwd=REPOSITORY,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return table(folder / "one/sweeps/one")


def table(sweep):
    report = sweep / planning.COLLECT / "report"
    return {name: (report / name).read_bytes() for name in ("scores.csv", "scores.parquet")}


def count(sweep, words):
    """Count a line in the logs of all jobs."""
    logs = [x.read_text() for x in sweep.glob(f"*/{work.LOG}")]
    return sum(len(re.findall(words, x)) for x in logs)


def test_two_at_a_time_give_the_table_of_one_process(folder, write, expected):
    """Each network is read once, by a job that the two protocols wait for.

    So is the ceiling of the one that has any, which no network changes: 3 + 1 + 6 jobs, and the
    last.
    """
    store, config = folder / "local", write("local", each(MODELS))
    common = (f"--config={config}", f"--store={store}", "--to=local")
    done = call(*common, "--parallel=2")
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.splitlines()[-1] == "11 done"
    sweep = store / "sweeps/local"
    assert count(sweep, r"extract \w+: done in") == len(MODELS)
    assert count(sweep, r"encode \w+ ?\w*: done in") >= 12
    assert table(sweep) == expected
    costs = [json.loads(x.read_text()) for x in sweep.glob(f"*/{outcome.COST}")]
    assert len(costs) == 11
    for cost in costs:
        planned, counted = (sum(cost[x].get("flop", {}).values()) for x in ("planned", "took"))
        assert counted == pytest.approx(planned, rel=0.3)
    disk = sum(x["planned"]["disk_bytes"] for x in costs)
    assert sum(map(truth.written, costs)) == pytest.approx(disk, rel=0.3)
    again = call(*common)
    assert again.returncode == 2 and "--resume goes on with it" in again.stderr
    resumed = call(*common, "--resume")
    assert resumed.returncode == 0 and "10 jobs, 10 of them done" in resumed.stderr
    assert count(sweep, r"extract \w+: done in") == len(MODELS)
    shown = call(*common, "--status")
    assert shown.stdout == resumed.stdout


def states(shown):
    """Return state and note of each job."""
    found = {}
    for line in shown.stdout.splitlines():
        # The last line counts, such as "14 waiting".
        if match := re.match(r"(?!\d+ )(\S+) +(waiting|running|done|failed|stopped)\s*(.*)", line):
            found[match[1]] = (match[2], match[3])
    return found


def test_slurm_runs_the_same_sweep_and_gives_the_same_table(folder, write, expected):
    """Dependencies, a job that another takes the place of and that goes on, and one that fails."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install -e .[slurm]")
    store, models = folder / "slurm", (*MODELS, "gone")
    shutil.copytree(folder / "models/llama", folder / "models/gone")
    config = write("slurm", each(models))
    common = (f"--config={config}", f"--store={store}", "--to=slurm")
    sweep = store / "sweeps/slurm"
    extractions = [f"extract-{name}" for name in MODELS]
    with slurm_cluster.started(folder / "cluster") as environment:
        ask = lambda *command: (
            subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            ).stdout
        )

        def look():
            return states(call(*common, "--status", environment=environment))

        def until(holds, seconds=600):  # of cores that others use too
            deadline = time.monotonic() + seconds
            while not holds(found := look()):
                assert time.monotonic() < deadline, found
                time.sleep(2)  # asking takes the cores that jobs need
            return found

        wrong = call(*common, "--partition=none", environment=environment)
        assert (wrong.returncode, wrong.stderr) == (
            2,
            "error: --partition must be one of high, low, got 'none'.\n",
        )
        # Nothing begins yet, and what was planned can be spoilt.
        ask("scontrol", "update", "PartitionName=low", "State=DOWN")
        options = ("--partition=low", "--devices_per_job=0", "--cpus_per_job=1", "--hours=1")
        submitted = call(*common, *options, environment=environment)
        assert submitted.returncode == 0, submitted.stderr
        (folder / "models/gone/config.json").unlink()
        found = look()
        assert {x[0] for x in found.values()} == {"waiting"} and len(found) == 14
        assert "(PartitionDown)" in found["extract-llama"][1]
        assert "(Dependency)" in found["llama-jaxalign"][1]
        ask("scontrol", "update", "PartitionName=low", "State=UP")
        # A Python that is still starting hears no signal, and ends in the time that it has for it.
        has_begun = lambda name: work.State.read(sweep / name).tries > 0
        until(lambda x: any(x[name][0] == "running" and has_begun(name) for name in extractions))
        urgent = ("--partition=high", "--cpus-per-task=2", "--output=/dev/null")
        ask("sbatch", *urgent, "--wrap=sleep 1")
        is_back = lambda x: x[0] == "waiting" and "try 2" in x[1]
        found = until(lambda x: any(is_back(x[name]) for name in extractions))
        for line in ask("squeue", "--noheader", "--array", "--format=%i|%r").splitlines():
            number, reason = line.split("|")
            if reason == "BeginTime":  # two minutes, which a test need not wait
                ask("scontrol", "update", f"JobId={number}", "StartTime=now")
        found = until(lambda x: x[planning.COLLECT][0] == "done")
        shown = call(*common, "--status", environment=environment).stdout
    ends = {name: state for name, (state, _) in found.items()}
    failed = [name for name, state in ends.items() if state == "failed"]
    assert failed == ["extract-gone", "gone-jaxalign", "gone-brainscore-linear-2026-own-reading"]
    assert set(ends.values()) == {"done", "failed"}
    assert found["extract-gone"][1] == "bad input, not tried again"
    assert "extract-gone:\n  --- try 1 on" in shown
    assert "config.json" in shown.partition("extract-gone:\n")[2]
    assert max(work.State.read(sweep / name).tries for name in extractions) == 2
    assert work.State.read(sweep / "extract-gone").tries == 1
    assert count(sweep, r"extract \w+: done in") == len(MODELS)
    assert table(sweep) == expected
    title = (sweep / planning.COLLECT / "report/index.html").read_text()
    assert "(6 of 8 jobs)" in title


def test_tasks_of_a_slurm_job_make_one_run(folder, write, expected):
    """All end when one is killed, and go on where they were; a refusal is not tried again."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install -e .[slurm]")
    del expected  # whose rows are compared
    shutil.copytree(folder / "models/llama", folder / "models/bad")
    config = write("tasks", [("bad", PROTOCOLS[1]), ("bert", PROTOCOLS[0])])
    store = folder / "tasks"
    flags = (f"--config={config}", f"--store={store}", "--to=slurm", "--devices_per_job=0")
    refused, made = (work_of(store, name) for name in ("bad-" + PROTOCOLS[1], "bert-jaxalign"))
    with slurm_cluster.started(folder / "cluster_of_tasks") as environment:
        submitted = call(*flags, "--tasks_per_job=2", "--cpus_per_job=2", environment=environment)
        assert submitted.returncode == 0, submitted.stderr
        (folder / "models/bad/config.json").unlink()
        until(lambda: list(store.glob("encode/*/layer_000.npz")))
        os.kill(task(1), signal.SIGKILL)
        until(lambda: work.State.read(made).is_final)
    state, log = work.State.read(refused), (refused / work.LOG).read_text()
    assert (state.code, state.tries, log.count("\nerror: ")) == (work.BAD_INPUT, 1, 1), log
    state, log = work.State.read(made), (made / work.LOG).read_text()
    assert (state.code, state.tries) == (work.DONE, 2), log
    assert "error: process 1 is lost: what is finished is kept" in log
    assert len(re.findall(r"extract bert: done in", log)) == 1
    compared = 0
    for path in store.glob("encode/*/rows.parquet"):
        ours, theirs = (
            pd.read_parquet(x / path.relative_to(store)) for x in (store, folder / "one")
        )
        pd.testing.assert_frame_equal(ours, theirs, rtol=0, atol=1e-5)
        compared += 1
    assert compared == 2  # of the network, and of a control


def work_of(store, name):
    return store / "sweeps/tasks" / name


def until(holds, seconds=300):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def task(number):
    """Return the process of a Slurm task that makes a run with others."""
    mine = {b"SLURM_NTASKS=2", b"SLURM_PROCID=%d" % number}
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            is_ours = mine <= set((path / "environ").read_bytes().split(b"\0"))
            if is_ours and b"jaxalign.main" in (path / "cmdline").read_bytes():
                return int(path.name)
    raise AssertionError(f"there is no task {number}")
