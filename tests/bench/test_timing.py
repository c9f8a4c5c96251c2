"""What is called when, and what is recorded; no test depends on how long anything takes."""

import functools
import json
import math

import numpy as np
import pytest

from jaxalign.bench import timing


def test_solvers_take_turns():
    calls = []
    solvers = {name: functools.partial(calls.append, name) for name in ("a", "b", "c")}
    found = timing.take_turns(solvers, repeats={"a": 3, "b": 1, "c": 2}, cold=("c",))
    assert "".join(calls) == "ab" + "abc" + "ac" + "a"
    assert [len(found[name].times_s) for name in "abc"] == [3, 1, 2]
    assert math.isnan(found["c"].first_s)
    assert found["a"].first_s >= 0


def test_median_of_the_repeats_without_the_first():
    found = timing.Timing(100.0, (3.0, 1.0, 2.0, 10.0), 0.0, None)
    assert found.median_s == 2.5


def load(megabytes):
    return (np.ones(megabytes * 10**6 // 8),)


def use(megabytes, inputs):
    return np.ones(megabytes * 10**6 // 8).sum() + inputs.sum()


@pytest.mark.slow
def test_peak_memory_is_beyond_the_inputs():
    found = timing.peak_memory(functools.partial(load, 300), functools.partial(use, 100))
    assert 90 < found["peak_mb"] < 200


def test_machine_is_plain_json():
    found = timing.machine()
    assert json.loads(json.dumps(found)) == found
    assert found["cpu"] and found["num_cores"] >= 1
    assert found["versions"]["jax"]
