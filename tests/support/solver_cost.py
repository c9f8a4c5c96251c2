"""Cross-validations of given sizes in a process of its own: memory, time, and what devices tell.

Writes JSON with one entry per case; a case is n,p,v[,seconds that a tile takes to read].
"""

import json
import pathlib
import resource
import sys
import time

import jax
import numpy as np

from jaxalign.core import folds as folds_lib
from jaxalign.core import mesh as mesh_lib
from jaxalign.core.solver import cv, division
from jaxalign.core.solver.method import Execution, Method
from jaxalign.core.solver.problem import Problem

METHOD = Method(np.logspace(-1, 4, 8))


class Responses:
    """Responses that are made when they are read, and held by nobody."""

    def __init__(self, X, num_targets, seconds):
        self.X, self.seconds = X, seconds
        self.shape = len(X), num_targets
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, index):
        columns = range(*index[1].indices(self.shape[1]))
        time.sleep(self.seconds)
        rng = np.random.default_rng(columns.start)
        W = rng.standard_normal((self.X.shape[1], len(columns)), np.float32)
        return self.X @ W + rng.standard_normal((len(self.X), len(columns)), np.float32) * 10


def problem(n, p, v, seconds=0.0):
    X = np.random.default_rng(0).standard_normal((n, p), np.float32)
    folds = folds_lib.cross(
        [folds_lib.Split(np.setdiff1d(np.arange(n), test), test)
         for test in np.array_split(np.arange(n), 5)]
    )  # fmt: skip
    return X, Responses(X, v, seconds), folds


def run(n, p, v, seconds=0.0):
    """Score, and return seconds, seconds of all cores, and the most memory until now, in bytes."""
    arguments = (*problem(n, p, v, seconds), METHOD)
    execution = Execution("adaptive", tile=1024)
    began, cpu = time.monotonic(), time.process_time()
    found = cv.nested(*arguments, execution=execution)
    assert np.isfinite(found.r).all()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": time.monotonic() - began,
        "cpu": time.process_time() - cpu,
        "peak": peak,
        "results": sum(x.nbytes for x in found),
    }


def told(num_devices):
    """Count the collectives of the sweep over targets, each device with as many as ever."""
    mesh = mesh_lib.make_mesh(num_devices, 1)
    arguments = (*problem(200, 120, 64 * num_devices), METHOD)
    solver = Problem(*arguments, Execution("adaptive", tile=64, mesh=mesh))
    names = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")
    text = []
    lower = solver._run

    def compiled(function, shared, targets, *others, ranks=(2,), **static):
        sizes = (solver.layout is None, len(others))
        divided = division.divided(function, mesh, sizes, ranks, tuple(sorted(static.items())))
        text.append(divided.lower(shared, targets.targets, *others).compile().as_text())
        return lower(function, shared, targets, *others, ranks=ranks, **static)

    solver._run = compiled
    choose, outer = solver.chooser(), solver.outer()
    formed = division.formed(mesh, solver.layout is None)
    for targets in solver.load():
        given = (solver.layout, targets.values, targets.offset)
        text.append(formed.lower(*given).compile().as_text())
        solver.score(outer, targets, choose(targets).place)
    return {"programs": len(text), "told": sum(x.count(f" {name}") for x in text for name in names)}


def main():
    out, devices, *cases = sys.argv[1:]
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", int(devices))
    if not cases:
        found = told(int(devices))
    else:
        sizes = [[float(x) if "." in x else int(x) for x in case.split(",")] for case in cases]
        found = [run(*x) for x in sizes]
    pathlib.Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
