"""Seeded problems -> times, agreement and memory of the nested ridge and other packages."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from jaxalign import processes
from jaxalign.bench import peers as peers_lib
from jaxalign.bench import phases, problems, timing
from jaxalign.bench import solver_page as tables
from jaxalign.checks import Count, Rule, among, at_least, build_rows, check, one_of
from jaxalign.core import folds as folds_lib
from jaxalign.core import metrics
from jaxalign.core.solver import cv
from jaxalign.core.solver.method import Execution, Method
from jaxalign.core.solver.outline import Outline
from jaxalign.errors import InputError
from jaxalign.io import place, run_dir
from jaxalign.io import rows as rows_lib
from jaxalign.io.run_dir import Artefact
from jaxalign.pricing import solver as pricing
from jaxalign.pricing.work import Layout
from jaxalign.reporting import page as page_lib
from jaxalign.reporting.page import SUMMARY
from jaxalign.stages import Job, Step, Upstream

VERSION = 2
ROWS = "rows"
SEARCHES = ("adaptive", "grid", "bound")
AXES = {"n": "n", "p": "p", "v": "v", "a": "num_alphas", "k": "num_folds"}
# Two best inner errors closer than this, relative to the best: either penalty will do.
TIE = 1e-4
Sizes = Annotated[
    tuple[int, ...], Rule("hold ascending sizes", lambda x: x and list(x) == sorted(set(x)))
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One problem, and who solves it how often."""

    n: Count  # samples
    p: Count  # features
    v: Count  # targets
    num_alphas: Count = 20
    low: float = -1.0  # smallest penalty, as an exponent of ten
    high: float = 5.0  # largest
    # Contiguous test blocks. Each is an outer one, and the inner ones are the others; with
    # `held_out` they are the inner ones of a single outer test set, of so many samples at the end.
    num_folds: Annotated[int, at_least(3)] = 5
    held_out: Annotated[int, at_least(0)] = 0
    search: Annotated[str, one_of(SEARCHES)] = "adaptive"
    # Variance of feature j is proportional to (j + 1)^-decay.
    decay: Annotated[float, at_least(0)] = 0.0
    on_disk: bool = False  # targets are read from a tensorstore array; peers cannot do that
    peers: Annotated[tuple[str, ...], among(peers_lib.PEERS)] = (
        "himalaya_ridge",
        "himalaya_kernel",
    )
    num_repeats: Count = 5
    peer_repeats: Count = 3
    peer_warmup: bool = True
    num_layers: Count = 1  # feature sets that are solved one after another, and timed in all

    def __post_init__(self):
        check(self)
        least = 2 * self.num_folds + self.held_out
        if self.n < least:
            raise InputError(f"n must be >= {least}, got {self.n}.")
        if not self.low < self.high:
            raise InputError(f"low must be below high, got {self.low} and {self.high}.")
        if self.on_disk and self.peers:
            raise InputError(f"peers must be () for targets on disk, got {self.peers}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Sizes along five axes; while one varies, the others stay at the middle of theirs."""

    n: Sizes = (250, 500, 1000, 2000, 4000)
    p: Sizes = (192, 384, 768, 1536, 3072)
    v: Sizes = (500, 1000, 2000, 4000, 8000)
    a: Sizes = (5, 10, 20, 40, 80)  # penalties
    k: Sizes = (3, 4, 5, 8, 10)  # outer folds
    low: float = -1.0
    high: float = 5.0
    search: str = "adaptive"
    decay: float = 0.0
    peers: tuple[str, ...] = ()
    num_repeats: int = 3

    def __post_init__(self):
        check(self)
        for axis, size, _ in self.points():
            try:
                self.case(axis, size)
            except InputError as error:
                raise InputError(f"{axis}={size}: {error}") from error

    def points(self) -> list[tuple[str, int, bool]]:
        """Return axis and size of every point, and whether it is the base that all axes share."""
        found = []
        for axis in AXES:
            sizes = getattr(self, axis)
            if len(sizes) > 1:
                found += [(axis, size, size == sizes[len(sizes) // 2]) for size in sizes]
        return found

    def case(self, axis: str, size: int) -> Case:
        """Return the problem at one point."""
        middle = {x: getattr(self, x)[len(getattr(self, x)) // 2] for x in AXES}
        return Case(
            **{AXES[x]: value for x, value in (middle | {axis: size}).items()},
            low=self.low,
            high=self.high,
            search=self.search,
            decay=self.decay,
            peers=self.peers,
            num_repeats=self.num_repeats,
            peer_repeats=self.num_repeats,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the bench stage."""

    # By name, each the rows of one table. A ConfigDict holds them as plain dictionaries.
    cases: Mapping[str, Case] | Mapping[str, dict[str, Any]]
    sweeps: Mapping[str, Sweep] | Mapping[str, dict[str, Any]] = dataclasses.field(
        default_factory=dict
    )
    num_checked: Count = 500  # targets, drawn at random, that are solved in float64 too

    def __post_init__(self):
        build_rows(self, "bench", {"cases": Case, "sweeps": Sweep})
        check(self, "bench")
        if not self.cases and not self.sweeps:
            raise InputError("bench must have a case or a sweep, got none.")
        if both := set(self.cases) & set(self.sweeps):
            raise InputError(f"bench.cases and bench.sweeps must differ, both have {min(both)!r}.")


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan one artefact for each case and sweep, and the table of them all.

    The machine, the versions and the solver's own source are settings, so what was measured stands
    until one of them changes; another --workdir measures again.

    Raises:
      InputError: if a package that a case is compared with is not installed, or this is one of
        several processes.
    """
    processes.check_alone("the bench")
    for field, rows in (("cases", config.cases), ("sweeps", config.sweeps)):
        for name, row in rows.items():
            for peer in row.peers:
                if absent := peers_lib.missing(peer):
                    raise InputError(
                        f"bench.{field}.{name}.peers has {peer!r}, which needs "
                        f"{', '.join(absent)}: pip install -e .[bench]"
                    )
    common = {"version": VERSION, "seed": job.seed, "machine": timing.machine(), "code": _code()}
    steps = []
    for name, case in config.cases.items():
        artefact = Artefact(
            workdir=job.root,
            stage="bench",
            name=name,
            settings=common | {"case": dataclasses.asdict(case), "num_checked": config.num_checked},
            cost=f"n={case.n} p={case.p} v={case.v} a={case.num_alphas} k={case.num_folds}, "
            f"{case.search} search, against {', '.join(case.peers) or 'nobody'}",
        )
        make = functools.partial(_measure_case, case, job.seed, config.num_checked)
        steps.append(Step(artefact=artefact, make=make))
    for name, sweep in config.sweeps.items():
        artefact = Artefact(
            workdir=job.root,
            stage="bench",
            name=name,
            settings=common | {"sweep": dataclasses.asdict(sweep)},
            cost=f"{len(sweep.points())} sizes, against {', '.join(sweep.peers) or 'nobody'}",
        )
        steps.append(
            Step(artefact=artefact, make=functools.partial(_measure_sweep, sweep, job.seed))
        )
    artefact = Artefact(
        workdir=job.workdir,
        stage="bench",
        name="summary",
        settings={
            "version": VERSION,
            "page": page_lib.VERSION,
            "names": [*config.cases, *config.sweeps],
        },
        inputs=tuple(step.artefact for step in steps),
        cost="tables, charts, page",
        latest_only=True,
    )
    steps.append(Step(artefact=artefact, make=_summarize, shows=SUMMARY))
    return steps


def _code() -> str:
    """Hash the sources of what is timed, so that a changed solver is measured again."""
    modules = (folds_lib, metrics, peers_lib, phases, problems, timing)
    sources = [pathlib.Path(path) for path in (__file__, *(x.__file__ for x in modules))]
    sources += sorted(pathlib.Path(cv.__file__).parent.glob("*.py"))
    return run_dir.hash_text("".join(path.name + run_dir.hash_file(path) for path in sources))


def _alphas(case: Case) -> Float[np.ndarray, " a"]:
    return np.logspace(case.low, case.high, case.num_alphas)


def _folds(case: Case) -> tuple[folds_lib.Fold, ...]:
    trained = case.n - case.held_out
    folds = folds_lib.contiguous_folds(["run"] * trained, case.num_folds, gap=0)
    if not case.held_out:
        return folds
    outer = folds_lib.Split(np.arange(trained), np.arange(trained, case.n))
    return (folds_lib.Fold(outer, tuple(fold.outer for fold in folds)),)


def _write_inputs(case: Case, seed: int, folder: pathlib.Path) -> None:
    problem = problems.Problem(case.n, case.p, case.v, case.decay, seed)
    problems.write(folder, problem, on_disk=case.on_disk)


def _method(case: Case) -> tuple[Method, Execution]:
    return Method(_alphas(case), standardize=False), Execution(search=case.search)


def _solve(case: Case, X: np.ndarray, Y: Any) -> cv.Nested:
    method, execution = _method(case)
    return cv.nested(X, Y, _folds(case), method, execution=execution)


def _plan(case: Case, evaluations: float) -> tuple[dict[str, float], float]:
    """Return the operations of each phase, and the memory planned for, inputs included, in bytes.

    They depend on how many penalties were tried for each target.
    """
    method, execution = _method(case)
    outline = Outline(
        num_samples=case.n,
        num_features=case.p,
        num_targets=case.v,
        folds=_folds(case),
        method=method,
        execution=execution,
    )
    work = pricing.nested(outline, Layout(), evaluations)
    flop = work.flop
    scores = pricing.scores(outline, Layout())
    parts = (flop["factor"] + flop["eigen"], flop["sweep"] - scores, scores)
    return dict(zip(phases.PHASES, parts, strict=True)), work.process_bytes(Layout())


def _phases(case: Case, X: np.ndarray, Y: Any, flop: dict[str, float]) -> dict[str, float]:
    """Return seconds and FLOP/s of each phase; the median of so many runs as ours is timed."""
    method, execution = _method(case)
    runs = [phases.measure(X, Y, _folds(case), method, execution) for _ in range(case.num_repeats)]
    found = {}
    for phase in phases.PHASES:
        seconds = float(np.median([run[phase] for run in runs]))
        found |= {f"{phase}_s": seconds, f"{phase}_gflop_per_s": flop[phase] / seconds / 1e9}
    return found


def _layers(case: Case, seed: int, Y: Any) -> dict[str, float]:
    """Return the seconds that all layers take, one after another, once."""
    if case.num_layers == 1:
        return {}
    draw = functools.partial(problems.features, case.n, case.p, decay=case.decay)
    layers = [draw(seed=seed + i) for i in range(case.num_layers)]
    solve = lambda: [_solve(case, X, Y) for X in layers]
    taken = timing.take_turns({"layers": solve}, repeats={"layers": 1}, cold=("layers",))
    return {"layers_s": taken["layers"].median_s}


def _time(case: Case, X: np.ndarray, Y: Any) -> dict[str, timing.Timing]:
    """Time ours and the peers on one problem."""
    folds, alphas = _folds(case), _alphas(case)
    solvers = {tables.OURS: functools.partial(_solve, case, X, Y)}
    for name in case.peers:
        solvers[name] = functools.partial(peers_lib.PEERS[name].solve, X, Y, folds, alphas)
    repeats = {tables.OURS: case.num_repeats} | dict.fromkeys(case.peers, case.peer_repeats)
    return timing.take_turns(solvers, repeats=repeats, cold=() if case.peer_warmup else case.peers)


def _measure_case(case: Case, seed: int, num_checked: int, artefact: Artefact) -> dict:
    """Write one row for ours and one for each peer."""
    with place.scratch(artefact.path, "inputs.") as folder:
        _write_inputs(case, seed, folder)
        memory = timing.peak_memory(
            functools.partial(problems.read, folder), functools.partial(_solve, case)
        )
        X, Y = problems.read(folder)
        jax.clear_caches()  # a case of the same sizes may have been compiled before
        timings = _time(case, X, Y)
        evaluations = float(timings[tables.OURS].result.num_computed.mean())
        flop, planned = _plan(case, evaluations)
        parts = _phases(case, X, Y, flop) | _layers(case, seed, Y)
        products = timing.product_flop_per_s()
        rng = np.random.default_rng([seed, 2])
        checked = np.sort(rng.choice(case.v, min(case.v, num_checked), replace=False))
        truth, errors = peers_lib.reference(
            X, problems.columns(Y, checked), _folds(case), _alphas(case)
        )
    untied = ~is_tied(errors)
    ours = timings[tables.OURS]
    grid = np.log(_alphas(case))
    rows = []
    for name, timed in timings.items():
        found = peers_lib.Solution(timed.result.r, timed.result.alphas)
        row = _timing_row(name, case, timed) | {
            "ratio": timed.median_s / ours.median_s,
            "mean_r": float(metrics.mean_defined(found.r)),
            "num_nan": int(np.isnan(found.r).sum()),
            "num_checked": untied.size,
            "num_untied": int(untied.sum()),
        }
        if name != tables.OURS:
            row |= agreement(found, ours.result, grid, checked, untied)
        some = peers_lib.Solution(found.r[:, checked], found.alphas[:, checked])
        against_truth = agreement(some, truth, grid, np.arange(len(checked)), untied)
        row |= {f"reference_{key}": value for key, value in against_truth.items()}
        rows.append(row)
    total, product = sum(flop.values()), max(products.values())
    rows[0] |= {
        "compile_s": ours.first_s - ours.median_s,
        "evaluations": evaluations,
        "gflop": total / 1e9,
        "gflop_per_s": total / ours.median_s / 1e9,
        "product_gflop_per_s": product / 1e9,
        "product_of": max(products, key=lambda name: products[name]),
        "product_share": total / ours.median_s / product,
        **parts,
        **memory,
        "planned_mb": planned / 1e6,
    }
    return _write_rows(rows, artefact)


def _measure_sweep(sweep: Sweep, seed: int, artefact: Artefact) -> dict:
    """Write one row for each size and solver; the base is measured once."""
    rows, base = [], None
    for axis, size, is_base in sweep.points():
        case = sweep.case(axis, size)
        if is_base and base is not None:
            timings = base
        else:
            with place.scratch(artefact.path, "inputs.") as folder:
                _write_inputs(case, seed, folder)
                timings = _time(case, *problems.read(folder))
        if is_base:
            base = timings
        rows += [
            {"axis": axis, "size": size} | _timing_row(name, case, timed)
            for name, timed in timings.items()
        ]
    return _write_rows(rows, artefact)


def _timing_row(name: str, case: Case, timed: timing.Timing) -> dict[str, Any]:
    return {
        "solver": name,
        "n": case.n,
        "p": case.p,
        "v": case.v,
        "a": case.num_alphas,
        "k": case.num_folds,
        "held_out": case.held_out,
        "num_layers": case.num_layers,
        "search": case.search,
        "decay": case.decay,
        "on_disk": case.on_disk,
        "num_repeats": len(timed.times_s),
        "median_s": timed.median_s,
        "min_s": min(timed.times_s),
        "max_s": max(timed.times_s),
        "first_s": timed.first_s,
        "times_s": json.dumps(timed.times_s),
        "others_cores": timed.others_cores,
    }


def _write_rows(rows: list[dict[str, Any]], artefact: Artefact) -> dict:
    frame = pd.DataFrame(rows)
    frame.insert(0, "name", artefact.name)
    rows_lib.write_table(artefact.path / ROWS, frame)
    return {"num_rows": len(rows)}


def is_tied(errors: Float[np.ndarray, "k a v"]) -> Bool[np.ndarray, "k v"]:
    """Mark the folds and targets whose two least errors differ by less than `TIE`, relatively."""
    if errors.shape[1] < 2:
        return np.zeros((errors.shape[0], errors.shape[2]), bool)
    least = np.partition(errors, 1, axis=1)
    return least[:, 1] - least[:, 0] < TIE * least[:, 0]


def agreement(
    theirs: peers_lib.Solution,
    ours: peers_lib.Solution | cv.Nested,
    grid: Float[np.ndarray, " a"],
    checked: Int[np.ndarray, " w"],
    untied: Bool[np.ndarray, "k w"],
) -> dict[str, float]:
    """Compare two solutions of the same targets; NaN where there is nothing to compare.

    Args:
      theirs: one solution.
      ours: the other.
      grid: logarithms of the penalties, ascending.
      checked: targets that `untied` speaks of.
      untied: folds and checked targets that are not ties.

    Returns:
      `same_share` of equal penalties, `same_untied_share` of equal ones where untied, `max_dr`, the
      largest difference of r where they are equal.
    """
    between = (grid[1:] + grid[:-1]) / 2
    # Peers return penalties in float32, or from a logarithm: compare places in the grid.
    place = lambda solution: np.searchsorted(between, np.log(solution.alphas))
    same = place(theirs) == place(ours)
    difference = np.abs(theirs.r - ours.r)[same]
    difference = difference[~np.isnan(difference)]
    same_untied = same[:, checked][untied]
    return {
        "same_share": float(same.mean()),
        "same_untied_share": float(same_untied.mean()) if same_untied.size else float("nan"),
        "max_dr": float(difference.max()) if difference.size else float("nan"),
    }


def _summarize(artefact: Artefact) -> dict:
    """Put the rows of all artefacts together."""
    parts = [(x, rows_lib.read_table(x.path / ROWS)) for x in artefact.inputs]
    cases = [frame for x, frame in parts if "case" in x.settings]
    sweeps = [frame for x, frame in parts if "sweep" in x.settings]
    machines = {json.dumps(x.settings["machine"]) for x, _ in parts}
    assert len(machines) == 1  # all were planned in one process
    rows = pd.concat(cases, ignore_index=True) if cases else None
    provenance = page_lib.provenance(artefact, run_dir.git_commit())
    page = tables.page(json.loads(machines.pop()), rows, sweeps, provenance)
    return {"files": page.write(artefact.path)}
