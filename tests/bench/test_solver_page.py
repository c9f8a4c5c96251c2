"""Table, warnings and figure of rows made by hand."""

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from jaxalign.bench import solver_page
from jaxalign.reporting import charts

SVG = "{http://www.w3.org/2000/svg}"


def row(name="one", solver="jaxalign", median_s=1.0, **more):
    sizes = {"n": 10, "p": 3, "v": 5, "a": 4, "k": 3, "search": "grid"}
    times = {"median_s": median_s, "min_s": 0.9 * median_s, "max_s": 1.2 * median_s}
    rest = {"num_repeats": 3, "others_cores": 0.0, "on_disk": False, "first_s": 9.0}
    return {"name": name, "solver": solver} | sizes | times | rest | more


OURS = {
    "ratio": 1.0,
    "mean_r": 0.25,
    "num_nan": 0,
    "num_checked": 15,
    "num_untied": 12,
    "compile_s": 8.0,
    "evaluations": 4.0,
    "gflop": 50.0,
    "gflop_per_s": 50.0,
    "product_gflop_per_s": 100.0,
    "product_of": "numpy",
    "product_share": 0.5,
    "factorise_s": 0.5,
    "factorise_gflop_per_s": 20.0,
    "choose_s": 0.75,
    "choose_gflop_per_s": 80.0,
    "score_s": 0.25,
    "score_gflop_per_s": 60.0,
    "peak_mb": 123.4,
    "planned_mb": 456.7,
    "held_out": 0,
    "num_layers": 1,
}


def cases():
    return pd.DataFrame(
        [
            row(**OURS),
            row(solver="himalaya_ridge", median_s=9.0, ratio=9.0, same_share=0.999, max_dr=1e-6),
            row(solver="himalaya_kernel", median_s=7.5, ratio=7.5, same_share=1.0, max_dr=2e-6),
            row("two", **OURS),
        ]
    )


def test_remarks_name_layers_and_a_single_test_set():
    rows = pd.DataFrame([row(**(OURS | {"num_layers": 13, "layers_s": 12.5, "held_out": 6}))])
    (one,) = solver_page.remarks(rows)
    assert "13 layers take 12.5 s, 12.50 times one" in one
    assert "one test set of 6 samples, penalties from 3 inner ones" in one


def test_cases_are_laid_out():
    lines = [x.split() for x in solver_page.cases(cases()).splitlines()]
    (kernel,) = [x for x in lines if "himalaya_kernel" in x]
    assert {"7.5", "6.75", "9", "7.50", "100.00%", "2.0e-06"} <= set(kernel)
    assert len([x for x in lines if x[:1] in (["one"], ["two"])]) == 4


def test_remarks_name_the_faster_solver_of_himalaya():
    one, two = solver_page.remarks(cases())
    assert "(himalaya_kernel) takes 7.50 times as long" in one
    assert "compilation 8 s" in one and "123 MB" in one and "50% of a float32" in one
    assert "12 of 15 checked" in one
    assert "factorise 0.5 s at 20%, choose 0.75 s at 80%, score 0.25 s at 60% of that rate" in one
    assert "457 MB" in one and "layers" not in one and "one test set" not in one
    assert "himalaya" not in two and "device" not in two
    rows = cases().assign(device_peak_mb=[77.0, np.nan, np.nan, np.nan])
    assert "on the device 77 MB" in solver_page.remarks(rows)[0]
    assert "device" not in solver_page.remarks(rows)[1]


def test_times_while_others_were_busy_are_not_valid():
    assert solver_page.disturbed(cases()) == []
    rows = cases().assign(others_cores=[0.0, 0.5, 0.0, np.nan])
    (warning,) = solver_page.disturbed(rows)
    assert warning.startswith("DISTURBED: other processes used 0.50 cores while himalaya_ridge")
    # A hundredth of a second is what the kernel counts in.
    assert solver_page.disturbed(rows.assign(median_s=0.001)) == []


def sweep():
    points = [("n", x, 3e-3 * x**2) for x in (100, 200, 400)]
    points += [("v", x, 2.0) for x in (10, 20)]
    return pd.DataFrame([row("few", median_s=t, axis=axis, size=x) for axis, x, t in points])


def test_slopes_are_exponents():
    found = solver_page.slopes(sweep()).set_index("axis").slope
    assert found["n"] == pytest.approx(2)
    assert found["v"] == pytest.approx(0)
    text = solver_page.slopes_text(sweep())
    assert "n (samples), jaxalign: slope 2.00 (100: 30 s, 200: 120 s, 400: 480 s)" in text


@pytest.mark.slow
def test_figure_has_a_panel_for_each_axis_and_the_slopes():
    svg = charts.svg(solver_page.scaling(sweep()))
    root = ET.fromstring(svg)
    found = ["".join(x.itertext()).strip() for x in root.iter(f"{SVG}text")]
    assert {"samples (n)", "targets (v)", "time (s)", "jaxalign, slope 2.00"} <= set(found)
    assert {"100", "200", "400"} <= set(found)
    assert {"10", "100"} <= set(found) and not any("$" in x for x in found)
    assert svg == charts.svg(solver_page.scaling(sweep()))


def test_every_peer_has_a_colour():
    from jaxalign.bench import peers

    assert set(solver_page.COLOURS) == {solver_page.OURS, *peers.PEERS}
    assert set(solver_page.HIMALAYA) <= set(peers.PEERS)


def test_heading_leaves_out_what_is_not_installed():
    machine = {"cpu": "A", "num_cores": 2, "device": "cpu", "num_devices": 1}
    text = solver_page.heading(machine | {"versions": {"jax": "1.2", "torch": ""}})
    assert text == "Nested ridge on A, 2 cores; JAX on 1 x cpu; jax 1.2"
