"""How cost grows: fits of rows made by hand, and a measurement on two simulated devices."""

import pandas as pd
import pytest
from refusals import refused

from jaxalign import config, runner
from jaxalign.bench import scaling, scaling_page
from jaxalign.io import rows as rows_lib

NONE = dict.fromkeys(("n", "p", "v", "layers", "models"), ())


def row(axis, size, **more):
    costs = {"flop": 3.0 * size**2, "seconds": 0.1 * size, "cpu_seconds": 0.5 * size**1.5}
    where = {"program": "targets", "data": 1, "model": 1, "collectives": 0, "peak_bytes": 100}
    return {"axis": axis, "size": size} | where | costs | more


def test_exponents_are_those_of_the_rows():
    rows = pd.DataFrame([row("n", 4, peak_bytes=150), row("n", 1), row("n", 2), row("p", 7)])
    [fit] = scaling_page.exponents(rows).itertuples()
    assert fit.axis == "samples" and fit.sizes == "1 to 4"
    assert (fit.flop, fit.cpu_seconds, fit.seconds) == pytest.approx((2.0, 1.5, 1.0))
    assert fit.memory == 1.5


def test_collectives_are_counted_in_finished_programs_alone(tmp_path):
    text = "%a = f32[2] all-reduce(%b)\n%c = f32[2] all-gather-start(%d)\n%e = add(%all-reduce.1)\n"
    for name in ("module_1.jit_f.cpu_after_optimizations.txt", "module_1.jit_f.before.txt"):
        (tmp_path / name).write_text(text)
    assert sorted(map(scaling.collectives, tmp_path.iterdir())) == [0, 2]


def test_bad_sizes_are_refused():
    with refused("bench_scaling.p must hold ascending sizes", "got (4, 2)"):
        scaling.Config(p=(4, 2))
    with refused("bench_scaling.n must hold sizes >= 10, got (9,)"):
        scaling.Config(n=(9,))
    with refused("bench_scaling.layers must hold sizes >= 1, got (0, 2)"):
        scaling.Config(layers=(0, 2))
    with refused("must have an axis with sizes, got none"):
        scaling.Config(devices=(), **NONE)


@pytest.mark.slow
def test_only_layers_that_are_divided_are_told(tmp_path, monkeypatch):
    small = {"n": 40, "p": 8, "v": 32, "layers": 2, "width": 64}
    monkeypatch.setattr(scaling, "MIDDLE", scaling.MIDDLE | small)
    sizes = scaling.Config(devices=(2,), num_repeats=1, **NONE)
    plan = runner.plan(config.pack(config.Common(), bench_scaling=sizes), workdir=tmp_path)
    assert runner.run(plan) == 2
    rows = rows_lib.read_table(plan.steps[0].artefact.path / scaling.ROWS)
    told = dict(zip(zip(rows.program, rows.model, strict=True), rows.collectives, strict=True))
    assert told["targets", 1] == told["passes", 1] == 0 < told["passes", 2]
    assert (rows.flop > 0).all() and (rows.cpu_seconds > 0).all()
    assert "(1, 2)" in (tmp_path / "bench_scaling/summary.txt").read_text()
