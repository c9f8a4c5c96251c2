"""Pages of single stages in a real browser: charts are drawn, in any theme and width."""

import browser
import command
import numpy as np
import pandas as pd
import pytest

from jaxalign.bench import solver_page

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "config, page, num_charts",
    [
        ("localizer.py", "localize", 2),
        ("next_word.py:stories260K,{text}", "next_word", 2),
    ],
)
def test_a_page_of_a_stage(config, page, num_charts, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Once upon a time, there was a little girl who liked to play. " * 100)
    done = command.call(config.format(text=text), tmp_path / "run")
    assert done.returncode == 0, done.stderr
    path = tmp_path / "run" / page / "index.html"
    assert path.read_text(encoding="utf-8").count('<figure class="chart">') == num_charts
    browser.check_page(path, tmp_path)


def test_a_page_of_the_bench(tmp_path):
    """Its panels have an axis each: the sizes that were measured."""
    found = []
    for axis, sizes, slope in (("n", (100, 200, 400), 2.0), ("v", (1000, 2000), 1.0)):
        for solver, unit in (("jaxalign", 1e-4), ("sklearn", 2e-3)):
            for size in sizes:
                row = {"name": "few", "axis": axis, "solver": solver, "size": size}
                seconds = unit * size**slope
                times = {"median_s": seconds, "min_s": 0.9 * seconds, "max_s": 1.1 * seconds}
                found.append(row | times | {"others_cores": 0.0, "num_repeats": 3})
    machine = {"cpu": "A", "num_cores": 2, "device": "cpu", "num_devices": 1, "versions": {}}
    rows = pd.DataFrame(found)
    solver_page.page(machine, None, [rows], "none").write(tmp_path)
    browser.check_page(tmp_path / "index.html", tmp_path)
    with browser.browser() as started:
        view = browser.View(started, tmp_path / "index.html")
        view.draw_all()
        texts = set(view.page.locator(".plot svg text").all_text_contents())
        assert {"samples (n)", "targets (v)", "jaxalign, slope 2.00", "400", "2000"} <= texts
        marks = view.page.locator("path[aria-roledescription='point']")
        assert marks.count() == len(rows)
        assert np.isfinite(view.ready_ms())
