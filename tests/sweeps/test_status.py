"""The table of a sweep at each moment, from markers, states, logs and a queue."""

import json
import os
import socket

import pytest

from jaxalign.sweeps import status, work
from jaxalign.sweeps.record import LAST, RUN, SHARED, Job, Product, Record


@pytest.fixture
def record(tmp_path):
    """An extraction, two runs that wait for it, and the job that collects."""

    def job(name, kind, after=(), made=("a",)):
        products = tuple(
            Product(
                stage="encode",
                kind="scores",
                name=x,
                path=str(tmp_path / "encode" / f"{name}-{x}"),
                fingerprint=f"{name}-{x}",
                cost="",
            )
            for x in made
        )
        folder = tmp_path / "sweeps/s" / name
        folder.mkdir(parents=True)
        return Job(
            name=name, kind=kind, folder=str(folder), flags=(), after=after, products=products
        )

    jobs = [
        job("extract-m", SHARED),
        job("m-p", RUN, ("extract-m",), ("a", "b")),
        job("m-q", RUN, ("extract-m",)),
    ]
    jobs.append(job("collect", LAST, tuple(x.name for x in jobs), ()))
    return Record(folder=tmp_path / "sweeps/s", jobs=jobs)


def finish(job, count=None):
    for product in job.products[:count]:
        path = type(job.path)(product.path)
        path.mkdir(parents=True)
        (path / "done.json").write_text(json.dumps({"fingerprint": product.fingerprint}))


def said(job, text):
    (job.path / work.LOG).write_text(text)


def test_nothing_has_begun(record):
    found = status.lines(record, {})
    assert [(x.state, x.note) for x in found] == [
        ("waiting", "for its turn"),
        ("waiting", "for extract-m"),
        ("waiting", "for extract-m"),
        ("waiting", "for extract-m and 2 more"),
    ]
    assert status.table(found).splitlines()[-1] == "4 waiting"


def test_one_runs_with_rate_and_time_left(record):
    finish(record.jobs[0])
    running, other = record.jobs[1:3]
    finish(running, 1)
    work.State(tries=2, host=socket.gethostname(), pid=os.getpid()).write(running.path)
    bar = "encode m:  40%|####      | 2/5 [00:08<00:12,  4.1s/ layers, best 3]"
    said(running, f"I1130 started\n{bar.replace('40', '20')}\r{bar}\r")
    found = status.lines(record, {})
    assert found[0].state == "done"
    assert found[1][1:3] == (
        "running",
        "1 of 2 artefacts, encode m 40 %, 4.1s/ layers, 00:12 left, try 2",
    )
    assert (found[2].state, found[2].note) == ("waiting", "for its turn")
    # A queue knows better than the signs of life of a job on another machine.
    queued = {other.name: "running"}
    assert status.lines(record, queued)[2].state == "running"
    queued = {other.name: "pending in Slurm (BeginTime)"}
    work.State(tries=1, host="another").write(other.path)
    assert status.lines(record, queued)[2][1:3] == (
        "waiting",
        "try 2, pending in Slurm (BeginTime)",
    )


def test_failed_jobs_show_why_and_who_waits_in_vain(record):
    work.State(tries=1, code=2, is_final=True, host="h", pid=1).write(record.jobs[0].path)
    said(record.jobs[0], "one\ntwo\nerror: encode.num_folds must be >= 3, got 2.\n")
    found = status.lines(record, {})
    assert [x.state for x in found] == ["failed", "failed", "failed", "waiting"]
    assert found[0].note == "bad input, not tried again"
    assert found[1].note == "not started, as extract-m has failed"
    table = status.table(found)
    assert "1 waiting, 3 failed" in table
    assert "extract-m:\n  one\n  two\n  error: encode.num_folds must be >= 3, got 2.\n" in table
    work.State(tries=4, code=137, is_final=True, host="h", pid=1).write(record.jobs[0].path)
    assert status.lines(record, {})[0].note == "exit code 137, tried 4 times"


def test_what_was_stopped_or_lost_can_go_on(record):
    work.State(tries=1, code=143, is_final=True, host="h", pid=1).write(record.jobs[0].path)
    work.State(tries=1, host="gone", pid=0).write(record.jobs[1].path)
    found = status.lines(record, {})
    assert found[0][1:3] == ("stopped", "--resume goes on where it was")
    assert found[1][1:3] == ("stopped", "lost on gone; --resume goes on where it was")


def test_the_last_job_is_done_when_its_process_says_so(record):
    for job in record.jobs[:3]:
        finish(job)
    assert status.lines(record, {})[3].state == "waiting"
    work.State(tries=1, code=0, is_final=True, host="h", pid=1).write(record.jobs[3].path)
    assert [x.state for x in status.lines(record, {})] == ["done"] * 4


def test_a_record_is_read_as_it_was_written(record):
    from jaxalign.sweeps import record as record_lib

    record.write()
    assert record_lib.read(record.folder) == record


def test_shares_keep_runs_of_one_extraction_together(record, tmp_path):
    def product(stage, name):
        return Product(stage=stage, kind="", name="", path="", fingerprint=name, cost="")

    def run(name, *stores):
        made = tuple(product("extract", x) for x in stores) + (product("encode", name),)
        return Job(name=name, kind=RUN, folder="", flags=(), after=tuple(stores), products=made)

    shared = [
        Job(name=x, kind=SHARED, folder="", flags=(), products=(product("extract", x),))
        for x in "abc"
    ]
    runs = [run("1", "a"), run("2", "b"), run("3", "a"), run("4", "c"), run("5", "b", "c")]
    last = Job(name="collect", kind=LAST, folder="", flags=(), after=())
    whole = Record(folder=tmp_path, jobs=[*shared, *runs, last])
    shares = [[x.name for x in whole.share(i, 3).jobs] for i in range(3)]
    assert shares == [
        ["a", "1", "3", "collect"],
        ["b", "c", "2", "4", "5", "collect"],
        ["collect"],
    ]
