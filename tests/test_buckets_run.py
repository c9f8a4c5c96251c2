"""A run whose artefacts lie in a bucket: as in a folder, killed or not, and damage is found."""

import os
import signal
import subprocess
import sys
import time

import buckets
import command
import pandas as pd
import pytest
import small
from refusals import refused

import jaxalign
from jaxalign import config, plans, runner
from jaxalign.io import place, run_dir
from jaxalign.stages import collect, encode, extract, report


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small.write(tmp_path_factory.mktemp("buckets") / "data", num_passages=12)


def settings_of(data):
    return config.pack(
        config.Common(dataset=str(data)),
        extract=extract.Config(models=(str(small.BERT),), untrained_seed=-1, shard_stimuli=8),
        encode=encode.Config(groups="passage", controls=("word_length",), layers=(0, 1, 2)),
        report=report.Config(title="Small"),
    )


# What `runner.run` does, in a process that can be killed.
SCRIPT = """
import pathlib, sys
sys.path.insert(0, {tests!r})
import test_buckets_run as own
from jaxalign import runner
runner.run(runner.plan(own.settings_of(pathlib.Path({data!r})), workdir={workdir!r}))
"""


@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_one_in_a_folder(data, tmp_path, s3, s3_server):
    settings, here, there = settings_of(data), tmp_path / "work", place.at(f"{s3}/runs/small")
    bucket = s3.removeprefix("s3://")
    script = SCRIPT.format(
        tests=os.path.dirname(__file__), data=str(data), workdir=f"{s3}/runs/small"
    )
    path = os.pathsep.join([str(command.REPOSITORY), str(command.REPOSITORY / "tests/support")])
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": path, "JAX_NUM_CPU_DEVICES": "4"},  # as many as here
        stderr=subprocess.DEVNULL,
    )
    runner.run(runner.plan(settings, workdir=here))
    until = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < until:
        if any(x.endswith("layer_001.npz") for x in buckets.names(s3_server, bucket)):
            process.send_signal(signal.SIGKILL)
        time.sleep(0.01)
    assert process.wait() == -signal.SIGKILL
    plan = runner.plan(settings, workdir=f"{s3}/runs/small")
    done = [step.artefact.is_done for step in plan.steps]
    assert done[0] and not all(done)
    said = []
    assert runner.run(plan, said.append) == len(done) - sum(done)
    assert plans.results(plan).endswith(f"\nPage: {there / 'report/index.html'}\n")
    names = {x.relative_to(here).as_posix() for x in here.rglob("*") if x.is_file()}
    assert set(there.files()) == names
    for name in ("report/scores.csv", "report/summary.txt", "report/rois.svg"):
        assert (there / name).read_bytes() == (here / name).read_bytes(), name
    for path in here.glob("extract/*/*.zarr/c/**/*"):
        if path.is_file():
            assert (there / path.relative_to(here)).read_bytes() == path.read_bytes()
    pd.testing.assert_frame_equal(
        jaxalign.load_scores(f"{s3}/runs/small"), jaxalign.load_scores(here)
    )

    assert runner.run(runner.plan(settings, workdir=f"{s3}/runs/small"), said.append) == 0
    assert said[-1] == f"Nothing to compute: all {len(done)} artefacts are up to date."
    network = plan.stages["encode"][0].artefact.path
    whole = (network / "layer_001.npz").read_bytes()
    run_dir.write_atomic(network / "layer_001.npz", whole[:-9] + b"999999999")
    (there / "report/rois.svg").unlink()
    again = runner.plan(settings, workdir=f"{s3}/runs/small")
    assert "to do again, rois.svg is not what was written" in plans.describe(again)
    assert runner.run(again, said.append) == 2
    assert "encode bert: layer_001.npz is not what was written: made again" in said
    assert (there / "report/rois.svg").read_bytes() == (here / "report/rois.svg").read_bytes()

    # What another run reads of it.
    collected = config.pack(
        config.Common(),
        collect=collect.Config(runs=(f"{s3}/runs/small",)),
        report=report.Config(title="Collected"),
    )
    runner.run(runner.plan(collected, workdir=tmp_path / "collected"))
    assert (tmp_path / "collected/report/index.html").is_file()

    buckets.forbid(s3_server, bucket, "s3:PutObject")
    said.clear()
    assert runner.run(runner.plan(settings, workdir=f"{s3}/runs/small"), said.append) == 0
    with refused(there.parent, "cannot be written: permission was denied"):
        runner.run(runner.plan(settings, workdir=f"{s3}/runs/other"))


def test_a_bucket_that_cannot_be_used_is_refused_before_any_work(data, s3, s3_server):
    settings = settings_of(data)
    with refused("s3://no-such-bucket/runs cannot be listed: there is no bucket"):
        runner.plan(settings, workdir="s3://no-such-bucket/runs")
    with refused("must be a folder, s3://BUCKET/PATH or gs://BUCKET/PATH", "az://container"):
        runner.plan(settings, workdir="az://container/runs")
    run_dir.write_json(place.at(f"{s3}/model/config.json"), {"model_type": "gpt2"})
    with refused(f"{s3}/model/config.json was not written by one"):
        runner.plan(settings, workdir=f"{s3}/model")
    run_dir.write_atomic(place.at(f"{s3}/runs/report/mine.txt"), b"of the user")
    with refused(f"the page goes to {s3}/runs/report, which holds files that no run has written"):
        runner.plan(settings, workdir=f"{s3}/runs")


def test_what_a_run_reads_must_be_here(data, tmp_path, s3):
    for name, value in (("extract.models", (f"{s3}/model",)), ("dataset", f"{s3}/data")):
        changed = config.override(settings_of(data), {name: value})
        with refused(name, "must be on this machine", s3):
            runner.plan(changed, workdir=tmp_path)
    with refused("data_root must be on this machine", s3):
        runner.plan(settings_of(data), workdir=tmp_path, data_root=f"{s3}/data")
    with refused("path must be on this machine", s3):
        jaxalign.report(pd.DataFrame(), path=f"{s3}/page")
    with refused("there is no folder", f"{s3}/other"):
        runner.plan(
            config.pack(
                config.Common(),
                collect=collect.Config(runs=(f"{s3}/other",)),
                report=report.Config(title="Collected"),
            ),
            workdir=tmp_path,
        )


@pytest.mark.slow
def test_a_store_that_does_not_answer_ends_the_command_with_its_own_code(tmp_path, monkeypatch):
    buckets.environment(monkeypatch, buckets.s3_environment("http://127.0.0.1:9"))
    ended = command.call("demo.py", "s3://some-bucket/runs", timeout=100)
    assert ended.returncode == 75
    assert ended.stderr.splitlines()[-1].startswith("error: s3://some-bucket/runs cannot be listed")
