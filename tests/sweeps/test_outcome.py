"""Plan and truth of jobs: written when they end well, shown for all when none runs or waits."""

import dataclasses
import json

import pytest

from jaxalign.pricing import truth
from jaxalign.sweeps import outcome, status, work
from jaxalign.sweeps.record import LAST, RUN, SHARED, Job, Product, Record

PLANNED = {
    "flop": {"sweep": 4e9},
    "device_bytes": 1e8,
    "process_bytes": 2.0**30,
    "disk_bytes": 60,
    "machine": "cpu",
    "calibrated": "",
    "seconds": 10.0,
}


@pytest.fixture
def record(tmp_path):
    """A shared job, a run that makes two things more, and the job that collects."""
    store, folder = tmp_path / "store", tmp_path / "store/sweeps/s"

    def product(name):
        return Product(
            stage="encode",
            kind="scores",
            name=name,
            path=str(store / "encode" / name),
            fingerprint=name,
            cost="",
        )

    def job(name, kind, made=(), makes=(), after=()):
        planned = PLANNED | {"makes": [f"encode/{x}" for x in makes]}
        products = tuple(map(product, made))
        return Job(
            name=name,
            kind=kind,
            folder=str(folder / name),
            flags=(),
            after=after,
            products=products,
            planned=planned if kind != LAST else PLANNED,
        )

    jobs = [
        job("first", SHARED, ("a",), ("a",)),
        job("run", RUN, ("a", "b", "c"), ("b", "c"), ("first",)),
        job("collect", LAST, after=("first", "run")),
    ]
    found = Record(folder=folder, jobs=jobs)
    found.write()
    return found


def make(path, size, peak, **more):
    path.mkdir(parents=True)
    took = {"seconds": 2.0, "cpu_seconds": 3.0, "compile_seconds": 0.5, "peak_bytes": peak}
    marker = {"fingerprint": path.name, "files": {"x": {"size": size}, "y": {"size": 1}}}
    marker |= {"took": took | {"peak_of": "process"} | more, "planned": PLANNED}
    (path / "done.json").write_text(json.dumps(marker))


def run(job, code=0):
    return work.Worker(["/bin/sh", "-c", f"sleep .2; exit {code}"], job.path).run()


def test_a_job_that_ends_well_says_what_it_took(record):
    store = record.folder.parents[1]
    for name, size, peak in (("a", 1000, 7 * 2**30), ("b", 20, 2**29), ("c", 30, 2**30)):
        make(store / "encode" / name, size, peak)
    assert run(record.job("run")) == 0
    found = json.loads((record.job("run").path / outcome.COST).read_text())
    took = found["took"]
    # Of what it makes itself: not of `a`, which the first job makes.
    assert truth.written(found) == 52 and took["peak_bytes"] == 2**30
    assert (took["seconds_of_steps"], took["compile_seconds"]) == (4.0, 1.0)
    assert 0.2 <= took["seconds"] == work.State.read(record.job("run").path).seconds < 5
    assert took["flop_per_s"] == pytest.approx(4e9 / took["seconds"])
    text = outcome.table(record)
    assert [x.split()[0] for x in text.splitlines()[2:4]] == ["run", "all"]
    assert "10.0 s" in text and "1.00" in text


def test_operations_that_steps_have_counted_stand_beside_those_planned(record):
    store = record.folder.parents[1]
    make(store / "encode/b", 20, 2**29, flop={"sweep": 3e9, "factor": 2e8})
    make(store / "encode/c", 30, 2**30)
    assert run(record.job("run")) == 0
    took = json.loads((record.job("run").path / outcome.COST).read_text())["took"]
    assert took["flop"] == {"sweep": 7e9, "factor": 2e8}  # of c as many as were planned
    assert took["flop_per_s"] == pytest.approx(7.2e9 / took["seconds"])
    assert "7.2 G" in outcome.table(record)


def test_a_job_that_fails_or_was_not_priced_says_nothing(record, tmp_path):
    assert run(record.job("first"), 2) == 2
    unpriced = dataclasses.replace(record.job("run"), planned={})
    dataclasses.replace(record, jobs=[unpriced]).write()
    assert (
        run(unpriced) == 0 and run(dataclasses.replace(unpriced, folder=str(tmp_path / "x"))) == 0
    )
    assert outcome.table(record) == "" and not [*tmp_path.glob(f"**/{outcome.COST}")]


def test_the_last_job_made_what_lies_in_its_folder(record):
    folder = record.job("collect").path
    make(folder / "collect/f1", 10, 5)
    make(folder / "report", 20, 6)
    assert run(record.job("collect")) == 0
    found = json.loads((folder / outcome.COST).read_text())
    assert set(found["files"]) == {"collect/f1", "report"} and found["took"]["peak_bytes"] == 6


def test_a_sweep_that_goes_on_keeps_its_first_plan(record):
    zero = [dataclasses.replace(x, planned=PLANNED | {"seconds": 0.0}) for x in record.jobs]
    again = dataclasses.replace(record, jobs=zero).resumed(record)
    assert [x.planned["seconds"] for x in again.jobs] == [10.0] * 3
    product = dataclasses.replace(record.jobs[0].products[0], fingerprint="other", path="p")
    changed = [dataclasses.replace(zero[0], products=(product,)), *zero[1:]]
    again = dataclasses.replace(record, jobs=changed).resumed(record)
    assert [x.planned["seconds"] for x in again.jobs] == [0.0, 10.0, 10.0]


def test_it_is_shown_when_no_job_runs_or_waits(capsys):
    lines = [status.Line("a", status.DONE, ""), status.Line("b", status.WAITING, "")]
    status.show(lambda: lines, lambda: "plan and truth\n")
    assert capsys.readouterr().out.startswith("a  done")
    status.show(lambda: lines[:1], lambda: "plan and truth\n")
    assert capsys.readouterr().out.startswith("plan and truth\na  done")
