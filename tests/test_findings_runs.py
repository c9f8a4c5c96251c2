"""One command gives the findings of a paper from its published figures, as users run it."""

import browser
import command
import numpy as np
import pandas as pd
import pytest

from jaxalign.reporting.findings import rows as finding_rows
from jaxalign.reporting.page import PAGE

KEYS = ["analysis", "subset", "predictor", "outcome", "statistic"]


def _run(name, workdir):
    done = command.call(f"{name}.py", workdir)
    assert done.returncode == 0, done.stderr
    rows = pd.read_csv(workdir / "report" / "findings.csv", keep_default_na=False, na_values="")
    assert tuple(rows.columns) == finding_rows.COLUMNS
    assert not rows.duplicated(KEYS).any()
    checks = pd.read_csv(workdir / "report" / "checks.csv")
    return done.stdout, rows.set_index(KEYS).sort_index(), checks


@pytest.mark.slow
def test_aw2024(tmp_path):
    printed, rows, checks = _run("aw2024_findings", tmp_path)
    gain = ("gain", "all", "instruction tuning")
    for outcome, percent in (("pereira2018", 6.9), ("blank2014", 8.0), ("wehbe2014", 3.8)):
        assert abs(rows.value[*gain, outcome, "mean_percent"] - percent) < 0.2
    assert round(rows.value[*gain, "mean of data sets", "mean_percent"], 2) == 6.32
    assert round(rows.value[*gain, "average as printed", "mean_percent"], 2) == 5.98
    size = ("log10_num_parameters", "average as printed", "pearson")
    assert abs(rows.value["correlation", "tuned", *size] - 0.946) < 0.003
    assert round(rows.value["correlation", "all", *size], 2) == 0.92
    assert round(rows.value["correlation", "tuned, LLaMA", *size], 3) == 0.219
    assert (checks.follows.astype(str) == "False").sum() == 2
    assert "do not follow" in printed


@pytest.fixture(scope="module")
def oota(tmp_path_factory):
    """The page of the multimodal models, with the simulation of instructions; its findings."""
    workdir = tmp_path_factory.mktemp("oota")
    _, rows, checks = _run("oota2025_findings", workdir)
    return workdir / "report" / PAGE, rows, checks


@pytest.mark.slow
def test_oota2025(oota):
    _, rows, checks = oota
    key = ("figure_contrast", "FLOC-PLACES", "InstructBLIP", "normalised alignment minus ViT-H")
    row = rows.loc[(*key, "difference")]
    assert (round(row["value"], 3), round(row.ci_low, 3), round(row.ci_high, 3)) == (
        0.292,
        0.28,
        0.304,
    )
    assert len(checks) == 6 and checks.remark.notna().all()


@pytest.mark.slow
def test_a_page_with_a_simulation(oota, tmp_path):
    browser.check_page(oota[0], tmp_path)


@pytest.mark.slow
def test_the_winner_of_each_region_is_marked(oota):
    with browser.browser() as started:
        view = browser.View(started, oota[0])
        view.draw_all()
        own = view.page.locator(
            "section", has=view.page.get_by_role("heading", name="Instructions")
        )
        assert own.locator("p").first.inner_text().startswith("This is a SIMULATION")
        figure = own.locator("figure", has_text="Which instruction aligns best")
        texts = figure.locator("svg text").all_text_contents()
        drawn = sorted((float(x[1:]), x[0]) for x in texts if x[0] in "★☆")
        # One mark in each region that has a winner: filled where the interval of its margin lies
        # above 0, hollow where it holds 0.
        table = pd.read_csv(oota[0].parent / "instruction_winners.csv", keep_default_na=False)
        won = table[table.outcome == "winner"].sort_values("score")
        assert [mark for _, mark in drawn] == ["★" if x else "☆" for x in won.is_clear]
        np.testing.assert_allclose([x for x, _ in drawn], won.score.astype(float), atol=0.005)
        # What was planted is found, and none is in noise alone.
        assert set(won.roi[won.is_clear]) == set(table.roi) - {"noise"}
        assert own.locator("figure", has_text="What two instructions share").count() == 4
