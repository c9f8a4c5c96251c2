"""From dictionaries to jobs: what is shared is a job of its own, and mistakes are found at once."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest
import small
from refusals import refused

from jaxalign import config, plans, runner
from jaxalign.io import place
from jaxalign.stages import encode, extract, report
from jaxalign.sweeps import planning, record, together, work
from jaxalign.sweeps.entries import Entry, Sweep
from jaxalign.sweeps.record import LAST, RUN, SHARED

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small.write(tmp_path_factory.mktemp("planning") / "data", num_passages=24)


@pytest.fixture
def plan(data, tmp_path):
    """Return a function from dictionaries to the record of their sweep."""
    packed = config.pack(
        config.Common(dataset=str(data)),
        extract=extract.Config(models=(str(small.BERT),), untrained_seed=-1),
        encode=encode.Config(controls=("word_length",), layers=(0, 2)),
        report=report.Config(title="Small"),
    )

    def plan(*dictionaries, where=None, **settings):
        entries = [
            Entry(
                name=f"run{i}",
                changes=changes,
                settings=config.override(packed, changes),
                flags=(f"--config.number={i}",),
                where=f"dictionary {i}",
            )
            for i, changes in enumerate(dictionaries)
        ]
        plan.settings = entries[0].settings
        sweep = Sweep(path=tmp_path / "swept.py", entries=entries, together=settings)
        return planning.plan(sweep, where or planning.Where(store=tmp_path / "store", name="s"))

    return plan


@pytest.mark.slow
def test_what_runs_share_is_computed_once_before_them(plan, tmp_path):
    llama, bert = str(small.LLAMA), str(small.BERT)
    found = plan(
        {"extract.models": (llama,)},
        {"extract.models": (llama,), "encode.protocol": "brainscore-linear-2026-own-reading"},
        {"extract.models": (bert,)},
    )
    assert [(x.name, x.kind, x.after) for x in found.jobs] == [
        ("extract-llama", SHARED, ()),
        ("run0", RUN, ("extract-llama",)),
        ("run1", RUN, ("extract-llama",)),
        ("run2", RUN, ()),
        ("collect", LAST, ("extract-llama", "run0", "run1", "run2")),
    ]
    shared, first = found.jobs[:2]
    (store,) = shared.products
    assert f"--only={store.key}" in shared.flags and "--config.number=0" in shared.flags
    assert store in first.products and [x.stage for x in first.products].count("encode") == 2
    assert first.flags[-2:] == (
        f"--workdir={tmp_path / 'store/sweeps/s/run0'}",
        f"--store={tmp_path / 'store'}",
    )
    assert not (tmp_path / "store").exists()
    text = planning.describe(found)
    assert "run1: run, after extract-llama" in text and text.count("extract llama: to do") == 1
    assert "5 jobs" in text


def test_sets_of_models_that_overlap_share_what_they_have_in_common(plan):
    llama, bert = str(small.LLAMA), str(small.BERT)
    found = plan(
        {"extract.models": (llama, bert)},
        {"extract.models": (llama,), "encode.pca": 3},
        {"extract.models": (bert,), "encode.pca": 3},
    )
    # A run of two models waits for both; its scores of each are its own.
    assert found.job("run0").after == ("extract-llama", "extract-bert")
    assert found.job("run2").after == ("extract-bert",)
    assert [x.name for x in found.jobs if x.kind == SHARED] == ["extract-llama", "extract-bert"]


@pytest.mark.slow
def test_rows_that_no_table_could_tell_apart_are_not_collected(plan):
    found = plan({"encode.pca": 3}, {"encode.pca": 4})
    assert found.last is None
    assert "run0 and run1 both score bert on data" in found.remark
    assert found.remark in planning.describe(found)
    with refused("together() of ", "must be left out", "both score bert"):
        plan({"encode.pca": 3}, {"encode.pca": 4}, **{"report.title": "Both"})
    with refused("together(): settings must be of this run, got 'report.titel'"):
        plan({}, **{"report.titel": "T"})
    with refused("together(): collect.runs must be left out"):
        plan({}, **{"collect.runs": ("runs/a",)})


def test_a_plan_that_fails_names_its_dictionary(plan):
    with refused("dictionary 1: encode.layers must lie in 0..3 for bert, got 9"):
        plan({}, {"encode.layers": (9,)})


def test_the_last_job_takes_what_is_done_and_says_what_is_missing(plan):
    found = plan({"seed": 1}, {"extract.models": (str(small.LLAMA),)}, **{"report.title": "T"})
    found.write()
    with refused("no job of the sweep", "that has scores is done"):
        together.get_config(str(found.folder))
    for product in found.jobs[0].products:
        path = pathlib.Path(product.path)
        path.mkdir(parents=True)
        (path / "done.json").write_text(f'{{"fingerprint": "{product.fingerprint}"}}')
    packed = together.get_config(str(found.folder))
    assert packed.collect.runs == (found.jobs[0].folder,)
    assert packed.report.title == "T (1 of 2 jobs)"
    assert packed.properties.sources == ("zoo",)


def test_only_some_artefacts_of_a_plan(data, tmp_path):
    packed = config.pack(
        config.Common(dataset=str(data)),
        extract=extract.Config(models=(str(small.BERT),), untrained_seed=-1),
        encode=encode.Config(groups="passage", controls=()),
    )
    places = runner.Places(store=tmp_path / "store")
    whole = runner.plan(packed, workdir=tmp_path / "work", places=places)
    store = whole.steps[0].artefact
    assert store.path.parent == tmp_path / "store/extract"
    part = plans.only(whole, [f"extract/{store.fingerprint}"])
    assert [x.artefact for x in part.steps] == [store] and list(part.stages) == ["extract"]
    with refused("--only must name artefacts of the plan: extract/0123 is none"):
        plans.only(whole, ["extract/0123"])


def call(*arguments, **environment):
    found = subprocess.run(
        [sys.executable, "launch/sweep.py", *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 2 and found.stdout == ""
    assert found.stderr.count("\n") == 1 and found.stderr.startswith("error: "), found.stderr
    return found.stderr


@pytest.mark.slow
def test_bad_calls_are_one_line(tmp_path):
    demo, store = "--config=configs/sweeps/demo.py", f"--store={tmp_path / 'store'}"
    assert "--to=slurm needs Slurm on this machine: there is no sbatch" in call(
        demo, store, "--to=slurm", PATH=str(tmp_path)
    )
    assert "--to must be one of local, slurm, skypilot" in call(demo, store, "--to=pbs")
    assert "there is no sweep at" in call(demo, store, "--status")
    assert "--share must be I/N with 0 <= I < N, got '2/2'" in call(demo, store, "--share=2/2")
    bucket = "--store=s3://bucket/sweep"
    assert "--folder must be given with --store=s3://bucket/sweep" in call(demo, bucket)
    assert "--folder must be a folder of a file system" in call(demo, "--folder=s3://bucket/sweep")
    own = f"--folder={tmp_path / 'own'}"
    assert "must be left out where machines are made" in call(
        demo, bucket, own, "--to=tpu_vm", "--zone=us-west4-a"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_store_in_a_bucket_has_what_jobs_make_and_a_folder_the_sweep(plan, tmp_path, s3):
    own = tmp_path / "own"
    where = planning.Where(store=place.at(f"{s3}/store"), name="s", own=own)
    planning.check_store(where, is_resumed=False)
    found = plan({"encode.layers": (2,)}, where=where)
    found.write()
    job = record.read(own).jobs[0]
    assert job.flags[-2:] == (f"--workdir={own / 'run0'}", f"--store={s3}/store")
    stored = [x for x in job.products if x.stage != "report"]
    assert all(x.path.startswith(f"{s3}/store/{x.stage}/") for x in stored) and not job.is_done
    places = runner.Places(store=where.store)
    runner.run(runner.plan(plan.settings, workdir=job.folder, places=places))
    assert job.is_done and where.store.files()
    assert not any(own.glob("run0/encode/*/*")) and (own / "run0/report/index.html").is_file()
    collected = together.get_config(str(own))
    assert list(collected.collect.runs) == [str(own / "run0")]
    rows = together._scores(dataclasses.replace(job, products=tuple(stored)))
    assert rows == [f"{x.path}/rows.parquet" for x in stored if x.stage == "encode"]
    collected = config.override(collected, {"collect.runs": tuple(rows)})
    runner.run(runner.plan(collected, workdir=tmp_path / "collect"))
    assert (tmp_path / "collect/report/scores.csv").is_file()


@pytest.mark.slow
def test_bad_sweeps_are_one_line(tmp_path):
    text = (REPOSITORY / "configs/sweeps/demo.py").read_text()
    text = text.partition("def sweep")[0] + "def sweep():\n    yield {'seed': 1}\n"
    text += "    yield {'seed': 2}\n    yield {'encode.protocl': 'jaxalign'}\n"
    (tmp_path / "swept.py").write_text(text)
    swept = f"--config={tmp_path / 'swept.py'}"
    said = call(swept, f"--store={tmp_path / 'store'}", "--to=local")
    assert "the third of 3 dictionaries of sweep(), {'encode.protocl': 'jaxalign'}" in said
    assert "got 'encode.protocl': did you mean 'encode.protocol'?" in said
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    said = call("--config=configs/sweeps/demo.py", f"--store={locked / 'store'}", "--to=local")
    assert f"store must be writable: {locked} is read-only" in said
    assert not any(tmp_path.glob(f"**/{record.RECORD}")) and not any(
        tmp_path.glob(f"**/{work.STATE}")
    )
