"""Measure what the devices at hand reach, so that plans are priced by it.

python -m jaxalign.calibrate
"""

import dataclasses
import datetime
import functools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags, logging

from jaxalign import allocators, command_line
from jaxalign.core import folds as folds_lib
from jaxalign.core import mesh as mesh_lib
from jaxalign.core.solver import columns, cv, outline, ridge
from jaxalign.core.solver.method import ADAPTIVE, Method
from jaxalign.data.text.batches import Reads, Shape
from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.models import readers, weights, zoo
from jaxalign.pricing import chips, networks, solver, truth
from jaxalign.pricing.chips import Machine
from jaxalign.pricing.work import NETWORKS, Layout
from jaxalign.stages.extract import forward

_OUT = flags.DEFINE_string(
    "out", "", "File to write. Default: that of the chip in ~/.cache/jaxalign/chips."
)

# Two layers, wide enough that products take most of the time, and two shapes of a batch.
WIDTH = {"cpu": 384}
ACCELERATED = 4096
ROWS = {"cpu": ((64, 64), (8, 512))}
ACCELERATED_ROWS = ((64, 512), (16, 1024))
# Samples, features and targets of the ridge; the second is so small that calls take all of the
# time.
PROBLEM, TINY = (480, 384, 1024), (60, 8, 16)
ALPHAS = tuple(10.0 ** (k / 2) for k in range(-2, 15))
REPEATS = 3


def calibrate(machine: Machine) -> dict:
    """Measure rates and constants of the devices at hand.

    Args:
      machine: these.

    Returns:
      The content of a calibration, see `chips.calibrated`.
    """
    layout = machine.layout((-1, 1))
    rates, compiling, reading = {}, [], []
    for dtype in NETWORKS:
        rates[dtype], programs = _network(machine, layout, dtype)
        compiling += programs
    rates |= _factorisation(layout)
    sweep, fit_s, solver_s = _ridge(machine, layout, rates)
    rates["sweep"] = sweep
    reading.append(_read())
    efficiency = {kind: rate / machine.chip.peak(kind) for kind, rate in rates.items()}
    return {
        "version": chips.VERSION,
        "chip": machine.chip.name,
        "measured": datetime.date.today().isoformat(),
        "versions": run_dir.versions("jax", "numpy"),
        "efficiency": efficiency,
        "network_compile_s": statistics.mean(compiling),
        "solver_compile_s": solver_s,
        "fit_s": fit_s,
        "read": statistics.median(reading),
    }


def _fastest(call: Callable[[], object]) -> float:
    """Return the median time of a call, whose programs are compiled already."""
    call()
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _network(machine: Machine, layout: Layout, dtype: str) -> tuple[float, list[float]]:
    """Return operations/s of one device in passes of a network, and seconds to compile each."""
    name = machine.chip.name
    width = WIDTH.get(name, ACCELERATED)
    hf = {
        "model_type": "gpt2",
        "vocab_size": 1024,
        "n_positions": 1024,
        "n_embd": width,
        "n_layer": 2,
        "n_head": width // 64,
    }
    design, config = zoo.configure(hf, source="calibrate")
    mesh = mesh_lib.make_mesh(-1, 1)
    network = weights.initialize(
        readers.family(design).network, config, dtype=jnp.dtype(dtype), seed=0, mesh=mesh
    )
    abstract = zoo.abstract(design, config, dtype)
    devices = 1 if layout.is_cpu else layout.size
    flop = seconds = 0.0
    compiling = []
    for rows, length in ROWS.get(name, ACCELERATED_ROWS):
        shape = Shape(rows * devices, length, 1, length)
        place = lambda x: jax.device_put(x, mesh_lib.sharding(mesh, ("batch", None), x.shape))
        full = lambda value, dtype, shape=shape: np.full((shape.rows, shape.length), value, dtype)
        reads = Reads(full(0, np.int32), full(1.0, np.float32), full(0, np.int32))
        arrays = jax.tree.map(place, (full(5, np.int32), full(True, bool), reads, None))
        run = functools.partial(forward._forward, network, arrays, num_sums=(1, 0), tap="residual")
        with truth.metered() as meter:
            jax.block_until_ready(run())
        compiling.append(meter.compile_seconds)
        seconds += _fastest(lambda run=run: jax.block_until_ready(run()))
        flop += networks.flop(config, abstract, shape)
    return flop / seconds / devices, compiling


def _factorisation(layout: Layout) -> dict[str, float]:
    """Return operations/s of products, and of eigenproblems, in float64."""
    del layout  # they run on one device
    n, p, _ = PROBLEM
    X = columns.Columns(np.random.default_rng(0).standard_normal((n, p)))
    kernel = functools.partial(ridge.kernel, X)
    product = _fastest(lambda: jax.block_until_ready(kernel()))
    rows = ridge.Rows(
        np.arange(n - 80),
        np.ones(n - 80, bool),
        n - 80 + np.arange(80)[None],
        np.ones((1, 80), bool),
    )
    settings = ridge.Settings(True, False, "primal")
    # A thread for each problem and one of LAPACK in each, as the solver has them.
    whole = _fastest(lambda: jax.block_until_ready(ridge.factorize(X, rows, settings)))
    products = 4.0 * (n - 80) * p**2 + 2.0 * 80 * p**2
    rate = 2.0 * n**2 * p / product
    eigen = ridge.EIGENPROBLEM * p**3 / max(whole - products / rate, whole / 10)
    return {"factor": rate, "eigen": eigen}


def _ridge(machine: Machine, layout: Layout, rates: dict) -> tuple[float, float, float]:
    """Return operations/s of the sweep over targets, the seconds of a fit and of a compilation."""
    mesh = mesh_lib.make_mesh(-1, 1)
    execution = ADAPTIVE._replace(mesh=mesh if mesh.size > 1 else None)
    taken, planned = [], []
    for n, p, v in (TINY, PROBLEM):
        rng = np.random.default_rng(0)
        X = rng.standard_normal((n, p))
        Y = X @ rng.standard_normal((p, v)) + 10 * rng.standard_normal((n, v))
        folds = folds_lib.contiguous_folds(np.zeros(n, int), 6, gap=0)
        method = Method(ALPHAS)
        sizes = outline.Outline(
            num_samples=n,
            num_features=p,
            num_targets=v,
            folds=folds,
            method=method,
            execution=execution,
        )
        planned.append(solver.nested(sizes, layout).flop)
        run = functools.partial(cv.nested, X, Y, folds, method, execution=execution)
        with truth.metered() as meter:
            run()
        taken.append(_fastest(run))
    fit_s, whole = taken
    spent = sum(planned[1][kind] / rates[kind] for kind in ("factor", "eigen"))
    sweep = max(whole - fit_s - spent, whole / 10)
    devices = 1 if layout.is_cpu else layout.size
    compiled = meter.compile_seconds / len(solver.PROGRAMS)
    return planned[1]["sweep"] / sweep / devices, fit_s, compiled


def _read() -> float:
    """Return bytes/s from a file that was just written to a device."""
    values = np.random.default_rng(0).standard_normal(16_000_000, dtype=np.float32)
    with tempfile.TemporaryFile() as file:
        np.save(file, values)

        def read():
            file.seek(0)
            jax.block_until_ready(jax.device_put(np.load(file)))

        return values.nbytes / _fastest(read)


def main(argv: list[str]) -> None:
    """Calibrate the devices at hand, and write what was measured."""
    if len(argv) > 1:
        raise InputError(f"only flags are understood, got argument {argv[1]!r}.")
    jax.config.update("jax_enable_compilation_cache", False)  # compilation is measured
    machine = chips.at_hand()
    if machine is None:
        raise InputError(
            f"calibrate needs a chip of jaxalign/pricing/chips.py, found {jax.devices()[0]}."
        )
    path = chips.calibration_path(machine.chip, _OUT.value)
    found = calibrate(machine)
    path.parent.mkdir(parents=True, exist_ok=True)
    run_dir.write_json(path, found)
    chip = dataclasses.replace(machine.chip, efficiency=found["efficiency"])
    for kind, share in found["efficiency"].items():
        logging.info("%s: %.3g FLOP/s, %.1f %% of peak", kind, chip.rate(kind), 100 * share)
    sys.stdout.write(f"{path}\n")


def cli() -> None:
    """Run `main`; see `command_line.ends_in_one_line` for how it ends."""
    allocators.set_up()
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    with command_line.ends_in_one_line():
        app.run(main)


if __name__ == "__main__":
    cli()
