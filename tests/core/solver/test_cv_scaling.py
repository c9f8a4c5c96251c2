"""What a cross-validation holds and tells when targets are many: tiles ahead, memory, devices."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
from command import REPOSITORY
from solver_problems import ALPHAS, equal_folds, make_problem, settings

from jaxalign.core.solver.problem import Problem

MiB = 2**20


class Read:
    """Responses that say when their second tile is read."""

    def __init__(self, values):
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.second = threading.Event()

    def __getitem__(self, index):
        if index[1].start:
            self.second.set()
        return self.values[index]


def test_a_tile_is_read_while_the_one_before_is_computed(rng):
    X, Y = make_problem(rng)[:2]
    responses = Read(np.concatenate([Y] * 3, axis=1))
    method, execution = settings(ALPHAS, tile=16)
    tiles = Problem(X, responses, equal_folds(), method, execution).load()
    first = next(tiles)
    assert first.columns == range(16)
    # It is asked for before the first is given back.
    assert responses.second.wait(10)
    assert [x.columns for x in tiles] == [range(16, 3 * Y.shape[1])]
    assert 16 < 3 * Y.shape[1] <= 32


def cost(path, devices, *cases):
    command = [sys.executable, "-m", "tests.support.solver_cost", path, devices, *cases]
    run = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, cwd=REPOSITORY, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(path.read_text())


@pytest.mark.slow
def test_memory_does_not_grow_with_targets(tmp_path):
    """Ten times the targets: their scores are more, and nothing else is."""
    few, many = (cost(tmp_path / "found.json", 1, f"400,128,{v}")[0] for v in (5120, 51200))
    assert few["peak"] > 100 * MiB
    # Scores are held once by tile, once joined, and then as float64.
    most = 3 * (many["results"] - few["results"])
    assert many["peak"] - few["peak"] < most + 32 * MiB
    responses = 4 * 400 * (51200 - 5120)
    assert most + 32 * MiB < 1.5 * responses


@pytest.mark.slow
def test_devices_that_divide_targets_tell_each_other_nothing(tmp_path):
    found = cost(tmp_path / "found.json", 4)
    assert found["programs"] == 3  # a tile's targets, the search, and the scores
    assert found["told"] == 0
