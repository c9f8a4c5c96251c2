"""A run that is asked to stop finishes what is at hand, keeps it, and says so."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import small

from jaxalign import config, runner, stopping
from jaxalign.io import store
from jaxalign.stages import extract
from jaxalign.stages.extract.shards import Shards


@pytest.fixture
def listening(monkeypatch):
    """Hear the signals as a command line does, and forget them at the end."""
    monkeypatch.setattr(stopping._Asked, "is_asked", False)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    before = [signal.getsignal(x) for x in stopping.SIGNALS]
    stopping.listen()
    yield
    for number, handler in zip(stopping.SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def settings(tmp_path):
    data = small.write(tmp_path / "data", num_passages=12)
    return config.pack(
        config.Common(dataset=str(data)),
        extract=extract.Config(
            models=(str(small.BERT),), untrained_seed=-1, shard_stimuli=4, batch_tokens=64
        ),
    )


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_without_work_at_hand_a_run_ends_at_once(listening, number):
    with pytest.raises(stopping.Stopped):
        signal.raise_signal(number)
    assert stopping.requested()


class Cleared:
    """Is asked to stop while it is cleared away, where Python ignores every exception."""

    def __del__(self):
        signal.raise_signal(signal.SIGTERM)


def test_a_request_is_not_lost_while_objects_are_cleared_away(listening, capfd):
    with pytest.raises(stopping.Stopped):
        cleared = Cleared()
        del cleared
        assert stopping.was_asked()
        time.sleep(100 * stopping.AGAIN_S)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_work_at_hand_is_finished(listening, number):
    done, fed = [], []
    with pytest.raises(stopping.Stopped), stopping.at_work():
        for item in stopping.watch(range(9)):
            if item == 3:
                signal.raise_signal(number)
            done.append(item)
    assert done == [0, 1, 2, 3]
    stopping._Asked.is_asked = False
    with pytest.raises(stopping.Stopped), stopping.at_work():
        for item in stopping.until_requested(range(9)):
            if item == 3:
                signal.raise_signal(number)
            fed.append(item)
        fed.append("what was under way")
    assert fed == [0, 1, 2, 3, "what was under way"]


def test_nothing_happens_unasked(listening):
    with stopping.at_work():
        assert list(stopping.watch(range(3))) == list(stopping.until_requested(range(3)))
        stopping.check()
    assert not stopping.requested()


@pytest.mark.slow
def test_extraction_keeps_the_shards_it_has(listening, settings, tmp_path, monkeypatch):
    """What is under way is written, and the same command goes on with the rest."""
    whole, stopped = (runner.plan(settings, workdir=tmp_path / x) for x in ("whole", "stopped"))
    runner.run(whole)
    write, written = Shards._write, []

    def stop_after_one(self, index, partial):
        write(self, index, partial)
        written.append(index)
        signal.raise_signal(signal.SIGUSR2)

    monkeypatch.setattr(Shards, "_write", stop_after_one)
    with pytest.raises(stopping.Stopped):
        runner.run(stopped)
    artefacts = [plan.stages["extract"][0].artefact for plan in (whole, stopped)]
    assert not artefacts[1].is_marked
    opened = store.open_store(artefacts[1].path / store.ARRAY)
    there = [opened.has_whole_shard(i) for i in range(len(opened.shards))]
    assert [i for i, is_there in enumerate(there) if is_there] == sorted(written)
    assert 0 < len(written) < len(there)
    monkeypatch.setattr(stopping._Asked, "is_asked", False)
    monkeypatch.setattr(Shards, "_write", write)
    assert runner.run(stopped) == 1
    whole, stopped = (store.open_artefact(x) for x in artefacts)
    for layer in range(whole.shape[0]):
        np.testing.assert_array_equal(stopped.read_layer(layer), whole.read_layer(layer))


@pytest.mark.slow
def test_command_line_says_so_in_one_line(tmp_path):
    arguments = ["--config=configs/demo.py", f"--workdir={tmp_path / 'work'}"]
    with subprocess.Popen(
        [sys.executable, "-m", "jaxalign.main", *arguments],
        cwd=small.GOLDEN.parents[1],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        for line in process.stderr:
            if "stimuli in" in line:
                break
        process.send_signal(signal.SIGUSR2)
        rest = process.stderr.read()
    assert process.returncode == 143
    assert rest.splitlines()[-1].startswith("stopped: what is finished is kept; the same command")
    assert "Traceback" not in rest
