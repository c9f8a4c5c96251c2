"""One command gives the findings of a paper from its published figures, as users run it."""

import command
import pandas as pd
import pytest

from jaxalign.reporting.findings import rows as finding_rows

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


@pytest.mark.slow
def test_oota2025(tmp_path):
    _, rows, checks = _run("oota2025_findings", tmp_path)
    key = ("figure_contrast", "FLOC-PLACES", "InstructBLIP", "normalised alignment minus ViT-H")
    row = rows.loc[(*key, "difference")]
    assert (round(row["value"], 3), round(row.ci_low, 3), round(row.ci_high, 3)) == (
        0.292,
        0.28,
        0.304,
    )
    assert len(checks) == 6 and checks.remark.notna().all()
