"""Several processes make one run: each shard once, the same rows, and all end together."""

import collections
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import every_stage
import numpy as np
import pandas as pd
import pytest
import small
from refusals import refused

from jaxalign import processes
from jaxalign.io import orbax_tree

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
# The command line, with shards that are counted and, where asked for, written slowly, or damaged
# when all are there.
CHILD = """
import os, time
from jaxalign import processes
from jaxalign.io import store
from jaxalign.stages.encode import make
write, encode = store.Store.write_shard, make.encode

def counted(self, index, values):
    time.sleep(float(os.environ["SLOWLY_S"]))
    with open(os.environ["WRITTEN"], "a") as file:
        file.write(f"{self.path.parent.name} {index} {os.getpid()}\\n")
    return write(self, index, values)

def damaged(config, job, features, artefact):
    if os.environ.pop("DAMAGED", "") and processes.is_first():
        path = next(job.root.glob("extract/*/activations.zarr/c/0/1/0"))
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    return encode(config, job, features, artefact)

store.Store.write_shard, make.encode = counted, damaged
from jaxalign import main
main.cli()
"""
# Processes that have met, and wait to be stopped.
IDLE = """
import sys, time
from jaxalign import command_line, processes, stopping
stopping.listen()
with command_line.ends_in_one_line():
    processes.start(f"127.0.0.1:{sys.argv[2]}", 2, int(sys.argv[1]))
    print("here", flush=True)
    while True:
        stopping.check()
        time.sleep(0.1)
"""
CONFIG = """
from jaxalign import config
from jaxalign.stages import encode, extract


def get_config():
    return config.pack(
        config.Common(dataset={data!r}),
        extract=extract.Config(
            models=({model!r},), untrained_seed=-1, shard_stimuli=2, batch_tokens=32
        ),
        encode=encode.Config(groups="passage", controls=("word_length",), num_folds=3),
    )
"""
TUNING = """
from jaxalign import config
from jaxalign.stages import tune


def get_config():
    return config.pack(
        config.Common(),
        tune=tune.Config(
            model={model!r},
            data={data!r},
            arms=("instruction",),
            seeds=(0,),
            checkpoints=(0,),
            template="plain",
            max_length=32,
            batch=8,
            epochs=2.0,
            learning_rate=1e-2,
        ),
    )
"""


def start(folder, arguments, *, num=2, slowly_s=0.0, extra=((), ()), **variables):
    """Begin processes with two devices each, or one process with four; return them."""
    port, commands = free_port(), []
    for i in range(num):
        flags = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={num}", f"--process_id={i}"]
        commands.append(["-c", CHILD, *arguments, *extra[i], *(flags if num > 1 else [])])
    return begin(folder, commands, SLOWLY_S=str(slowly_s), **variables)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def begin(folder, commands, **variables):
    """Begin a process for each command of Python, with four devices between them."""
    folder.mkdir(exist_ok=True)
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(4 // len(commands)),
        "WRITTEN": str(folder / "written"),
    }
    found = []
    for i, command in enumerate(commands):
        with open(folder / f"out{i}", "w") as out, open(folder / f"err{i}", "w") as err:
            found.append(
                subprocess.Popen(
                    [sys.executable, *command],
                    cwd=REPOSITORY,
                    env=environment | variables,
                    stdout=out,
                    stderr=err,
                )
            )
    return found


def ends(found, folder, timeout_s=240):
    """Return exit codes, and what each process wrote to stderr."""
    try:
        codes = [x.wait(timeout_s) for x in found]
    finally:
        for process in found:
            process.kill()
    return codes, [(folder / f"err{i}").read_text() for i in range(len(found))]


def wait_for_shards(folder, num):
    until = time.monotonic() + 120
    while written(folder) < num:
        assert time.monotonic() < until, (folder / "err0").read_text()
        time.sleep(0.05)


def written(folder):
    path = folder / "written"
    return len(path.read_text().splitlines()) if path.exists() else 0


def rows(workdir):
    paths = workdir.glob("encode/*/rows.parquet")
    return {path.parent.name: pd.read_parquet(path) for path in paths}


def assert_same_rows(workdir, other):
    """The mesh changes sums by rounding alone, and nothing else."""
    ours, theirs = rows(workdir), rows(other)
    assert ours.keys() == theirs.keys() and len(ours) > 1
    for name, table in ours.items():
        pd.testing.assert_frame_equal(table, theirs[name], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    data = small.write(folder / "data", num_passages=12)
    path = folder / "settings.py"
    path.write_text(CONFIG.format(data=str(data), model=str(small.BERT)))
    return [f"--config={path}", f"--compilation_cache={folder / 'compiled'}"]


@pytest.mark.slow
def test_the_demo_has_the_rows_of_one_process(tmp_path):
    demo = ["--config=configs/demo.py", "--config.extract.shard_stimuli=32"]
    for name, num in (("one", 1), ("two", 2)):
        folder = tmp_path / name
        found = start(folder, [*demo, f"--workdir={folder / 'work'}"], num=num)
        codes, said = ends(found, folder)
        assert codes == [0] * num, said
    assert_same_rows(tmp_path / "two/work", tmp_path / "one/work")
    lines = [x.split() for x in (tmp_path / "two/written").read_text().splitlines()]
    counts = collections.Counter((store, index) for store, index, _ in lines)
    assert set(counts.values()) == {1} and len(counts) == 20
    writers = collections.defaultdict(set)
    for _, index, pid in lines:
        writers[pid].add(int(index) % 2)
    assert sorted(map(sorted, writers.values())) == [[0], [1]]
    assert "participants" in (tmp_path / "two/out0").read_text()
    assert (tmp_path / "two/out1").read_text() == said[1] == ""


@pytest.mark.slow
def test_a_training_of_two_processes_is_that_of_one_device(tmp_path):
    """Parameters are divided over both axes of a mesh of four devices in two processes."""
    data = tmp_path / "tasks.jsonl"
    few = ["one", "two", "three", "four", "five"]
    number = lambda i, n: " ".join(few[(i + k) % 5] for k in range(n))
    rows_of = [{"instruction": number(i, 3), "output": number(i * i, 5)} for i in range(24)]
    data.write_text("\n".join(map(json.dumps, rows_of)) + "\n")
    (tmp_path / "settings.py").write_text(TUNING.format(model=str(small.LLAMA), data=str(data)))
    shared = [f"--config={tmp_path / 'settings.py'}", "--config.tune.micro_batches=1"]
    found = {}
    for num, mesh in ((1, "(1,1)"), (2, "(2,2)")):
        folder = tmp_path / str(num)
        flags = [*shared, f"--config.mesh={mesh}", f"--workdir={folder / 'work'}"]
        devices = {"JAX_NUM_CPU_DEVICES": str(num)}  # of each process
        codes, said = ends(start(folder, flags, num=num, **devices), folder)
        assert codes == [0] * num, said
        (log,) = (folder / "work").glob("tune/*/log.csv")
        (last,) = log.parent.glob("step-000006/orbax")
        held = orbax_tree.Arrays(last)
        parts = [
            held.part(name, (slice(None),) * len(shape)) for name, shape in held.shapes().items()
        ]
        weights = np.concatenate([np.ravel(x) for x in parts])
        found[num] = pd.read_csv(log), weights
    (one, of_one), (two, of_two) = found[1], found[2]
    assert len(one) == 6 and one.loss.iloc[-1] < one.loss.iloc[0] - 0.01
    assert (one.target_tokens == two.target_tokens).all()
    np.testing.assert_allclose(two.loss, one.loss, rtol=0, atol=1e-5)
    np.testing.assert_allclose(two.gradient_norm, one.gradient_norm, rtol=1e-4)
    np.testing.assert_allclose(of_two, of_one, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_every_stage_makes_the_files_of_one_process(tmp_path):
    """In each of several runs, each file is written once, and holds what one process writes."""
    every_stage.write(tmp_path / "root")
    for name, num in (("one", 1), ("two", 2)):
        folder, port = tmp_path / name, free_port()
        shared = [every_stage.__file__, str(tmp_path / "root"), str(folder), str(num)]
        found = begin(folder, [[*shared, str(i), str(port)] for i in range(num)])
        codes, said = ends(found, folder)
        assert codes == [0] * num, said
    assert_same_files(tmp_path / "two/work", tmp_path / "one/work")
    lines = [x.rsplit(" ", 1) for x in (tmp_path / "two/written").read_text().splitlines()]
    counts = collections.Counter(path for path, _ in lines)
    assert set(counts.values()) == {1} and len(counts) == written(tmp_path / "one")
    divided = re.compile(r"(activations\.zarr/|losses_)(\d+)")
    writers = collections.defaultdict(set)
    for path, index in lines:
        found = divided.search(path)
        writers[int(index)].add(found[1] if found else "")
    assert writers[1] == {"activations.zarr/", "losses_"}  # all else is the first one's
    assert writers[0] > writers[1]


def assert_same_files(ours, theirs):
    names = lambda folder: sorted(
        str(x.relative_to(folder))
        for x in folder.rglob("*")
        if x.is_file() and "activations.zarr" not in x.parts
    )
    assert names(ours) == names(theirs)
    for name in names(ours):
        kind, paths = pathlib.Path(name).suffix, (ours / name, theirs / name)
        if kind == ".parquet":
            # Somebody may commit meanwhile.
            frames = [pd.read_parquet(x).drop(columns="git_commit", errors="ignore") for x in paths]
            pd.testing.assert_frame_equal(*frames, rtol=0, atol=1e-5, obj=name)
        elif kind in (".npy", ".npz"):
            first, second = (np.load(x) for x in paths)
            for x in first.files if kind == ".npz" else [...]:
                assert_same_array(first[x], second[x], f"{name} {x}")
    stores = sorted(x.relative_to(theirs) for x in theirs.rglob("activations.zarr"))
    assert len(stores) == 4  # of a network, its embedding, a tower, and one imported
    for name in stores:
        assert_same_array(*(every_stage.stored(x / name) for x in (ours, theirs)), str(name))


def assert_same_array(ours, theirs, name):
    if ours.dtype.kind == "f":
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5, err_msg=name)
    else:
        np.testing.assert_array_equal(ours, theirs, name)


@pytest.mark.slow
def test_all_end_together_and_go_on_where_they_were(tmp_path, arguments):
    """SIGTERM to one, SIGKILL of one, then to the end, on which a shard is damaged."""
    folder = tmp_path / "two"
    arguments = [*arguments, f"--workdir={folder / 'work'}"]
    found = start(folder, arguments, slowly_s=0.5)
    wait_for_shards(folder, 2)
    found[1].send_signal(signal.SIGTERM)
    codes, said = ends(found, folder)
    assert codes == [143, 143], said
    assert said[0].splitlines()[-1].startswith("stopped: what is finished is kept")
    assert said[1] == ""
    assert 2 <= written(folder) < 12
    before = written(folder)
    found = start(folder, arguments, slowly_s=0.5)
    wait_for_shards(folder, before + 1)
    found[1].kill()
    start_s = time.monotonic()
    codes, said = ends(found, folder, 45)
    assert time.monotonic() - start_s < 45
    assert codes == [134, -signal.SIGKILL], said
    assert "error: process 1 is lost: what is finished is kept" in said[0]
    assert "Traceback" not in said[0]
    found = start(folder, arguments, DAMAGED="yes")
    codes, said = ends(found, folder)
    assert codes == [0, 0], said
    [line] = (x for x in said[0].splitlines() if "cannot be read" in x)
    assert "extract bert: " in line and line.endswith(": made again")
    one = tmp_path / "one"
    codes, said = ends(start(one, [*arguments[:-1], f"--workdir={one}"], num=1), one)
    assert codes == [0], said
    assert_same_rows(folder / "work", one)


@pytest.mark.slow
def test_the_others_end_in_one_line_where_the_first_is_lost(tmp_path):
    port = free_port()
    found = begin(tmp_path, [["-c", IDLE, str(i), str(port)] for i in range(2)])
    until = time.monotonic() + 120
    while not all((tmp_path / f"out{i}").read_text() for i in range(2)):
        assert time.monotonic() < until, (tmp_path / "err0").read_text()
        time.sleep(0.1)
    found[0].kill()
    start_s = time.monotonic()
    codes, said = ends(found, tmp_path, 45)
    assert time.monotonic() - start_s < 45
    assert codes == [-signal.SIGKILL, 134], said
    assert said[1] == f"error: process 0 is lost{processes.AGAIN}\n"


@pytest.mark.slow
def test_other_settings_in_another_process_are_refused(tmp_path, arguments):
    extra = ((), ("--config.encode.num_folds=4",))
    arguments = [*arguments, f"--workdir={tmp_path / 'work'}"]
    codes, said = ends(start(tmp_path, arguments, extra=extra), tmp_path)
    assert codes == [2, 2]
    assert said[0] == (
        "error: processes must be given the same configuration: encode.num_folds is 3 in process 0 "
        "and 4 in process 1.\n"
    )
    assert said[1] == "" and not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    "given,message",
    [
        ({"coordinator": "host:1"}, "go together: give all or none"),
        ({"num_processes": 2, "process_id": 0}, "go together: give all or none"),
        (
            {"coordinator": "host:1", "num_processes": 2, "process_id": 2},
            "--process_id must lie in 0..1, got 2 of 2 processes",
        ),
        (
            {"coordinator": "host", "num_processes": 2, "process_id": 0},
            "--coordinator must be HOST:PORT, got 'host'",
        ),
    ],
)
def test_flags_that_name_no_job_are_refused(given, message):
    with refused(message):
        processes.start(**given)


def test_one_process_agrees_with_itself(monkeypatch):
    for name in ("SLURM_NTASKS", "TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"):
        monkeypatch.delenv(name, raising=False)
    processes.start()
    assert (processes.count(), processes.index(), processes.is_first()) == (1, 0, True)
    assert processes.decide(lambda: [1, None]) == [1, None]
    assert processes.gather("x") == ["x"]
    processes.barrier()
    processes.check_same("configuration", {"a": np.inf})
    processes.finish()
