"""Processes of jobs: which are tried again, what is kept of them, and how they are stopped."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxalign.sweeps import work


def shell(text):
    return ["/bin/sh", "-c", text]


@pytest.mark.parametrize(
    "code,tries", [(0, 1), (2, 1), (130, 1), (1, 2), (134, 4), (137, 4), (143, 4)]
)
def test_which_exit_codes_are_tried_again(tmp_path, code, tries):
    assert work.Worker(shell(f"echo said; exit {code}"), tmp_path).run() == code
    state = work.State.read(tmp_path)
    assert (state.tries, state.code, state.is_final) == (tries, code, True)
    log = (tmp_path / work.LOG).read_text().splitlines()
    assert log[1::2] == ["said"] * tries
    assert [x.split(" on ")[0] for x in log[::2]] == [f"--- try {i + 1}" for i in range(tries)]
    assert not work.is_alive(tmp_path, state)


def test_a_killed_process_is_started_again_and_can_finish(tmp_path):
    once = f"test -e {tmp_path}/again || {{ touch {tmp_path}/again; kill -9 $$; }}"
    assert work.Worker(shell(once), tmp_path).run() == 0
    assert work.State.read(tmp_path).tries == 2


def test_stopping_ends_the_process_and_starts_no_other(tmp_path):
    ended = tmp_path / "ended"
    worker = work.Worker(
        shell(f"trap 'touch {ended}; exit 143' TERM; while :; do sleep .1; done"), tmp_path
    )
    thread = threading.Thread(target=worker.run)
    thread.start()
    while not (tmp_path / work.LOG).exists():
        time.sleep(0.05)
    time.sleep(0.3)
    assert work.is_alive(tmp_path, work.State.read(tmp_path))
    worker.stop()
    thread.join(10)
    state = work.State.read(tmp_path)
    assert ended.exists() and (state.tries, state.code, state.is_final) == (1, 143, True)


def test_environment_of_the_job_is_added(tmp_path):
    code = work.Worker(
        shell('test "$CUDA_VISIBLE_DEVICES" = 3 && test -n "$PATH"'),
        tmp_path,
        {"CUDA_VISIBLE_DEVICES": "3"},
    ).run()
    assert code == 0


def test_a_job_whose_watcher_is_gone_is_not_alive(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    state = work.State(tries=1, host=work.socket.gethostname(), pid=process.pid)
    state.write(tmp_path)
    assert work.is_alive(tmp_path, state)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not work.is_alive(tmp_path, state)
    elsewhere = work.State(tries=1, host="another", pid=1)
    assert work.is_alive(tmp_path, elsewhere)  # its state was just written
    long_ago = time.time() - 2 * work.SILENT_S
    work.os.utime(tmp_path / work.STATE, (long_ago, long_ago))
    assert not work.is_alive(tmp_path, elsewhere)


def test_other_tasks_start_when_the_first_does_and_end_with_it(tmp_path):
    """What a state says of an earlier time that the job was in the queue counts nothing."""
    work.State(tries=7, code=143, session="1.0").write(tmp_path)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    lost_once = f"sleep 1; test -e {ours} && exit 0; touch {ours}; exit 137"
    first = work.Worker(shell(lost_once), tmp_path, session="1.1")
    other = work.Follower(shell(f"echo x >> {theirs}; exit 134"), tmp_path, "1.1", 1)
    codes = []
    thread = threading.Thread(target=lambda: codes.append(other.run()))
    thread.start()
    time.sleep(2 * work.FOLLOW_S)
    assert not theirs.exists()
    assert first.run() == 0
    thread.join(10)
    assert codes == [0] and theirs.read_text() == "x\nx\n"
    assert (tmp_path / f"{work.LOG}.1").read_text().startswith("--- try ")
    assert work.State.read(tmp_path).tries == 9


def test_another_task_that_is_asked_to_stop_starts_nothing(tmp_path):
    work.State(tries=1, session="1.0").write(tmp_path)
    other = work.Follower(shell("exit 0"), tmp_path, "1.0", 1)
    other.ask()
    assert other.run() == work.STOPPED and not (tmp_path / f"{work.LOG}.1").exists()
