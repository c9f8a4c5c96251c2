"""Jobs as Slurm runs them; a whole sweep on a real Slurm is in test_runs.py."""

import pickle
import signal
import subprocess

import pytest
from refusals import refused

from jaxalign.sweeps import engines, record, work
from jaxalign.sweeps.engines import slurm


@pytest.mark.parametrize(
    "code,is_final,starts",
    [(0, True, True), (2, True, False), (137, True, False), (143, True, True), (137, False, True)],
)
def test_a_job_starts_unless_one_that_it_needs_has_failed_for_good(
    tmp_path, code, is_final, starts
):
    """What was stopped or lost on the way is made by whoever needs it."""
    needed = record.Job(name="first", kind=record.SHARED, folder=str(tmp_path / "first"), flags=())
    needed.path.mkdir()
    work.State(tries=1, code=code, is_final=is_final).write(needed.path)
    made = tmp_path / "made"
    argv = ["/bin/sh", "-c", f"touch {made}", f"--workdir={tmp_path / 'second'}"]
    command = pickle.loads(pickle.dumps(slurm.Command(argv, [needed])))
    if starts:
        assert command() == 0
    else:
        with pytest.raises(RuntimeError, match="not started, as first has failed"):
            command()
    assert made.exists() == starts


def test_signals_before_submitit_hears_them_do_not_end_a_job():
    """Slurm counts a job that dies of one as failed, and does not put it back in the queue."""
    script = (
        "import os, signal; print('starts'); input(); print('goes on'); "
        "signal.signal(signal.SIGUSR2, lambda *_: os._exit(7)); print('hears'); input()"
    )
    with subprocess.Popen(
        ["/bin/sh", "-c", f'exec {slurm.python()} -u -c "{script}"'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        said = [process.stdout.readline()]
        for number in (signal.SIGCONT, signal.SIGUSR2, signal.SIGTERM):
            process.send_signal(number)
        process.stdin.write("\n")
        process.stdin.flush()
        said += [process.stdout.readline(), process.stdout.readline()]
        process.send_signal(signal.SIGUSR2)
        assert process.wait(20) == 7
    assert said == ["starts\n", "goes on\n", "hears\n"]


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"nodes_per_job": 3}, "--tasks_per_job must be a multiple of --nodes_per_job=3, got 2"),
        ({"cpus_per_job": 5}, "--cpus_per_job must be a multiple of --tasks_per_job=2, got 5"),
        ({"devices_per_job": 1}, "--devices_per_job must be a multiple of --tasks_per_job=2"),
    ],
)
def test_what_cannot_be_divided_over_tasks_is_refused(changes, message):
    given = {"tasks_per_job": 2, "devices_per_job": 2, **changes}
    with refused(message):
        slurm.check(engines.Options(**given))
