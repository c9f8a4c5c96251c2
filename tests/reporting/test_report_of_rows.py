"""The report of score rows: data sets apart, nothing said that is undefined."""

import numpy as np
import pandas as pd
import pytest
from score_rows import NAN, frame, row, study

from jaxalign.reporting.findings import instructions
from jaxalign.reporting.run import build
from jaxalign.reporting.run.contents import Contents, Instructions


@pytest.fixture(scope="module")
def two():
    """The same models on two data sets, which have other scores and another number of folds."""
    other = study(dataset="other")
    for name in ("fold_scores", "fold_inner_r2", "fold_r2", "fold_alphas", "fold_ceilings"):
        other[name] = [[*values, values[-1]] for values in other[name]]
    other["score"] += 0.2
    other["fold_scores"] = [[x + 0.2 for x in values] for values in other.fold_scores]
    return build.build(Contents(scores=pd.concat([study(), other])))


def test_data_sets_have_charts_of_their_own(two):
    names = {name for name in two.charts if name.startswith(("rois", "layers"))}
    assert names == {"rois_toy", "rois_other", "layers_net_toy", "layers_net_other"}
    for dataset, score in (("toy", 0.31), ("other", 0.51)):
        chart = two.charts[f"rois_{dataset}"]
        assert chart.title.endswith(f": {dataset}") and chart.alt.startswith(f"{dataset}. Bars")
        bars = pd.DataFrame(chart.rows).set_index(["features", "roi"])
        assert bars.score["net", "LATL"] == pytest.approx(score)
        assert bars.num_subjects["net", "LATL"] == 3


def test_the_lead_is_of_one_data_set(two):
    assert two.lead.startswith("On toy, net predicts LATL best: mean r over 3 subjects 0.310 [")
    assert two.html.count("<td>other</td>") > 2  # a table of several says which


@pytest.mark.slow
def test_the_lead_says_nothing_that_is_undefined():
    rows = study(group=False, ceiling=NAN)
    lead = build.build(Contents(scores=rows)).lead
    assert "ceiling" not in lead and "group" not in lead and "nan" not in lead
    one_fold = [row("net", f"s{i}", "LATL", 0, [0.3], num_layers=0) for i in range(3)]
    assert "nan" not in build.build(Contents(scores=frame(one_fold))).lead
    nothing = study().assign(score=NAN, fold_scores=[np.full(2, NAN)] * len(study()))
    assert "nan" not in build.build(Contents(scores=nothing)).lead


def asked(*models):
    """Return rows of models that were asked "a" and "b"."""
    return pd.concat(
        [
            study(rename=lambda x, m=m: {"net": m}.get(x, x), group=False).assign(instruction=text)
            for m in models
            for text in "ab"
        ]
    )


@pytest.mark.slow
def test_models_that_were_asked_are_told_apart():
    rows, left_out = instructions.asked(asked("net", "net2"))
    assert left_out == [] and set(rows.model) == {"net", "net2"}
    told = [Instructions(instructions.of_run(rows), ["Both were asked."])]
    charts = build.build(
        Contents(scores=asked("net", "net2"), instruction="a", instructions=told)
    ).charts
    own = [chart for name, chart in charts.items() if name.startswith("winners")]
    assert [x.title.partition(": ")[2] for x in own] == ["net on toy", "net2 on toy"]
    assert [x.alt.partition(". ")[0] for x in own] == ["net on toy", "net2 on toy"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, said", [("protocol", "protocol"), ("context", "context"), ("folds_hash", "folds")]
)
def test_instructions_that_were_scored_otherwise_are_not_compared(name, said):
    rows = asked("net", "net2")
    rows.loc[(rows.model == "net") & (rows.instruction == "b"), name] = "ba9876543210"
    kept, left_out = instructions.asked(rows)
    assert set(kept.model) == {"net2"}
    assert left_out == [
        f"Instructions of net on toy are not compared, as their scores differ in {said} too."
    ]
    whole = build.build(Contents(scores=rows, instruction="a"))
    assert len(whole.tables["rois"]) == 4
