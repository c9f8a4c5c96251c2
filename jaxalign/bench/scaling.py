"""How cost grows: with devices at constant work on each, and with every size of the two programs.

Devices are simulated on the CPU, each number of them in a process of its own. They share its cores,
so it is the collectives of the compiled programs that say how work divides, not the seconds.
"""

import dataclasses
import functools
import json
import os
import pathlib
import re
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax.sharding import Mesh
from jaxtyping import Float

from jaxalign import processes
from jaxalign.bench import scaling_page, timing
from jaxalign.checks import Count, Rule, check
from jaxalign.core import folds as folds_lib
from jaxalign.core import mesh as mesh_lib
from jaxalign.core.solver import cv
from jaxalign.core.solver.method import Execution, Method
from jaxalign.core.solver.outline import Outline
from jaxalign.data.text import batches
from jaxalign.data.text.batches import Batch, Reads
from jaxalign.errors import InputError
from jaxalign.io import place, run_dir
from jaxalign.io import rows as rows_lib
from jaxalign.io.run_dir import Artefact
from jaxalign.models import readers, weights, zoo
from jaxalign.pricing import networks, solver, truth
from jaxalign.pricing.work import Layout
from jaxalign.reporting import page as page_lib
from jaxalign.reporting.page import SUMMARY
from jaxalign.stages import Job, Step, Upstream
from jaxalign.stages.extract import forward

VERSION = 1
ROWS = "rows"
METHOD = Method(np.logspace(-1, 4, 10))
FOLDS, TILE = 5, 1024
ROWS_OF_A_BATCH, LENGTH, BATCHES, VOCABULARY = 8, 128, 2, 1000
COLLECTIVES = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"
Sizes = Annotated[
    tuple[int, ...], Rule("hold ascending sizes", lambda x: list(x) == sorted(set(x)))
]
# Where others stay while one size varies; `v` is of each device, and so are rows of a batch.
MIDDLE = {"n": 800, "p": 128, "v": 4 * TILE, "layers": 4, "width": 256, "models": 1}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the stage: sizes along each axis, () for none."""

    devices: Sizes = (1, 2, 4)  # simulated, at constant work on each
    # Samples and features: of all of these the solver works on sums over blocks of samples.
    n: Sizes = (400, 800, 1600, 3200)
    p: Sizes = (128, 192, 256, 384)
    v: Sizes = (4096, 8192, 16384, 40960)  # targets
    layers: Sizes = (2, 4, 8, 16)
    models: Sizes = (1, 2, 4)
    num_repeats: Count = 3

    def __post_init__(self):
        check(self, "bench_scaling")
        every = {x.name: getattr(self, x.name) for x in dataclasses.fields(self)}
        for name, sizes in every.items():
            if isinstance(sizes, tuple) and any(x < 1 for x in sizes):
                raise InputError(f"bench_scaling.{name} must hold sizes >= 1, got {sizes}.")
        if any(x < 2 * FOLDS for x in self.n):
            raise InputError(f"bench_scaling.n must hold sizes >= {2 * FOLDS}, got {self.n}.")
        if not any(sizes for sizes in every.values() if isinstance(sizes, tuple)):
            raise InputError("bench_scaling must have an axis with sizes, got none.")


class Point(NamedTuple):
    """What is measured: a cross-validation, or passes of networks.

    Attributes:
      axis: that varies.
      size: on it.
      program: "targets" of the solver, or "passes".
      mesh: devices along data and model.
      sizes: of all axes, as in `MIDDLE`.
    """

    axis: str
    size: int
    program: str
    mesh: tuple[int, int]
    sizes: dict[str, int]


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan one artefact for each number of devices, one for all sizes, and the table.

    Raises:
      InputError: if this is one of several processes.
    """
    del upstream
    processes.check_alone("the bench")
    common = {
        "version": VERSION,
        "seed": job.seed,
        "machine": timing.machine(),
        "code": run_dir.hash_file(pathlib.Path(__file__)),
        "num_repeats": config.num_repeats,
    }
    groups = {f"{x} devices": (x, of_devices(x)) for x in config.devices}
    if points := of_sizes(config):
        groups["sizes"] = (1, points)
    steps = []
    for name, (number, points) in groups.items():
        artefact = Artefact(
            workdir=job.root,
            stage="bench_scaling",
            name=name,
            settings=common | {"devices": number, "points": [list(x) for x in points]},
            cost=f"{len(points)} points, each {config.num_repeats + 1} times",
        )
        make = functools.partial(_measure, number, points, config.num_repeats, job.seed)
        steps.append(Step(artefact=artefact, make=make))
    artefact = Artefact(
        workdir=job.workdir,
        stage="bench_scaling",
        name="summary",
        settings={"version": VERSION, "page": page_lib.VERSION},
        inputs=tuple(step.artefact for step in steps),
        cost="tables, page",
        latest_only=True,
    )
    return [*steps, Step(artefact=artefact, make=_summarize, shows=SUMMARY)]


def of_devices(number: int) -> list[Point]:
    """Return what is measured on some devices: all divide targets, rows of a batch, or layers."""
    more = MIDDLE | {"v": number * MIDDLE["v"]}
    found = [
        Point("devices", number, "targets", (number, 1), more),
        Point("devices", number, "passes", (number, 1), MIDDLE),
    ]
    if number > 1:
        found.append(Point("devices", number, "passes", (1, number), MIDDLE))
    return found


def of_sizes(config: Config) -> list[Point]:
    """Return what is measured on one device: along each axis, the others at their middle."""
    targets = {"n": config.n, "p": config.p, "v": config.v}
    passes = {"layers": config.layers, "models": config.models}
    return [
        Point(axis, size, program, (1, 1), MIDDLE | {axis: size})
        for program, axes in (("targets", targets), ("passes", passes))
        for axis, sizes in axes.items()
        for size in sizes
    ]


def _measure(number: int, points: list[Point], num_repeats: int, seed: int, artefact) -> dict:
    with place.scratch(artefact.path, "programs.") as folder:
        rows = timing.in_new_process(measure, number, points, num_repeats, seed, folder)
    rows_lib.write_table(artefact.path / ROWS, pd.DataFrame(rows))
    return {"num_rows": len(rows)}


def measure(
    number: int, points: list[Point], num_repeats: int, seed: int, folder: pathlib.Path
) -> list[dict[str, Any]]:
    """Measure points in a process that has not begun to compute.

    Args:
      number: of devices to simulate.
      points: what is measured.
      num_repeats: times that each is, after the first.
      seed: of data and weights.
      folder: where the compiler writes its programs.
    """
    dump = f"--xla_dump_to={folder} --xla_dump_hlo_as_text"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {dump}"
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", number)
    return [_of_point(point, num_repeats, seed, folder) for point in points]


def _of_point(point: Point, num_repeats: int, seed: int, folder: pathlib.Path) -> dict[str, Any]:
    mesh = mesh_lib.make_mesh(*point.mesh)
    prepare = _targets if point.program == "targets" else _passes
    run, flop = prepare(point, mesh, seed)
    jax.clear_caches()  # so that the programs of this point are compiled, and written, here
    before = set(folder.iterdir())
    run()
    programs = sorted(set(folder.iterdir()) - before)
    meters = []
    for _ in range(num_repeats):
        with truth.metered() as meter:
            found = run()
        meters.append(meter)
    median = lambda name: float(np.median([getattr(x, name) for x in meters]))
    return {
        "axis": point.axis,
        "size": point.size,
        "program": point.program,
        "data": point.mesh[0],
        "model": point.mesh[1],
        "collectives": sum(map(collectives, programs)),
        "flop": flop(found),
        "seconds": median("seconds"),
        "cpu_seconds": median("cpu_seconds"),
        "peak_bytes": max(x.peak_bytes for x in meters),
    }


def collectives(path: pathlib.Path) -> int:
    """Count the collectives of a program that XLA has written, those of a loop once.

    Args:
      path: of any of the compiler's files; those that are no finished program have none.
    """
    if not path.name.endswith("after_optimizations.txt"):
        return 0
    return len(re.findall(rf"\b(?:{COLLECTIVES})(?:-start)?\(", path.read_text(encoding="utf-8")))


class Drawn:
    """Responses that are drawn when they are read, and held by nobody."""

    def __init__(self, n: int, v: int):
        """Draw `n` samples of `v` targets."""
        self.shape, self.dtype = (n, v), np.dtype(np.float32)

    def __getitem__(self, index: tuple[slice, slice]) -> Float[np.ndarray, "n w"]:
        """Return all samples of some targets."""
        rows, columns = index
        rng = np.random.default_rng(columns.start)
        width = len(range(*columns.indices(self.shape[1])))
        return rng.standard_normal((self.shape[0], width), np.float32)[rows]


def _targets(point: Point, mesh: Mesh, seed: int):
    """Return a cross-validation, and what counts its operations from what it found."""
    n, p, v = (point.sizes[x] for x in ("n", "p", "v"))
    X = np.random.default_rng(seed).standard_normal((n, p), np.float32)
    folds = folds_lib.contiguous_folds(["run"] * n, FOLDS, gap=0)
    execution = Execution("adaptive", tile=TILE, mesh=mesh if mesh.size > 1 else None)
    outline = Outline(
        num_samples=n,
        num_features=p,
        num_targets=v,
        folds=folds,
        method=METHOD,
        execution=execution,
    )

    def flop(found: cv.Nested) -> float:
        layout = Layout(mesh.shape["data"], mesh.shape["model"], True)
        return solver.nested(outline, layout, float(found.num_computed.mean())).total_flop

    return lambda: cv.nested(X, Drawn(n, v), folds, METHOD, execution=execution), flop


def _passes(point: Point, mesh: Mesh, seed: int):
    """Return passes of networks of random weights, and what counts their operations."""
    layers, width, number = (point.sizes[x] for x in ("layers", "width", "models"))
    hf = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "max_position_embeddings": LENGTH,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 8,
        "intermediate_size": 4 * width,
    }
    design, config = zoo.configure(hf, source="bench_scaling")
    make = readers.family(design).network
    every = [
        weights.initialize(make, config, dtype=jnp.dtype("float32"), seed=seed + i, mesh=mesh)
        for i in range(number)
    ]
    batch = _batch(ROWS_OF_A_BATCH * mesh.shape["data"], seed)
    one = networks.flop(config, zoo.abstract(design, config), batches.shape(batch))

    def run() -> None:
        for network in every:
            for _ in forward.run(network, [batch] * BATCHES, mesh, tap="residual"):
                pass

    return run, lambda _: number * BATCHES * one


def _batch(rows: int, seed: int) -> Batch:
    """Return random tokens, of which each row is one part."""
    tokens = np.random.default_rng(seed).integers(VOCABULARY, size=(rows, LENGTH)).astype(np.int32)
    place = np.arange(LENGTH, dtype=np.int32)[None].repeat(rows, axis=0)
    weight = np.full(place.shape, 1 / LENGTH, np.float32)
    return Batch(
        tokens=tokens,
        mask=np.ones(tokens.shape, bool),
        pooled=Reads(place, weight, np.zeros_like(place)),
        part=np.arange(rows)[:, None],
        predicted=None,
        predicted_part=None,
        num_tokens=tokens.size,
    )


def _summarize(artefact: Artefact) -> dict:
    """Put the rows of all artefacts together."""
    rows = pd.concat([rows_lib.read_table(x.path / ROWS) for x in artefact.inputs])
    [machine] = {json.dumps(x.settings["machine"]) for x in artefact.inputs}
    provenance = page_lib.provenance(artefact, run_dir.git_commit())
    page = scaling_page.page(json.loads(machine), rows.reset_index(drop=True), provenance)
    return {"files": page.write(artefact.path)}
