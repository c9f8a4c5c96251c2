"""Charts: marks lie where the scores say, undefined numbers are nothing, names stay names."""

import itertools
import json
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from score_rows import NAN, study

from jaxalign.data import controls
from jaxalign.reporting import charts, page
from jaxalign.reporting.charts import labels, pdf_order
from jaxalign.reporting.charts import models as charts_models
from jaxalign.reporting.charts import parts as charts_parts
from jaxalign.reporting.charts import rois as charts_rois

SVG = "{http://www.w3.org/2000/svg}"
MODELS = pd.DataFrame(
    {
        "dataset": "d",
        "model": ["a", "b", "a-tuned", "b-tuned", "c"],
        "family": ["F", "F", "F", "F", "G"],
        "tuned": pd.Series([False, False, True, True, None], dtype=object),
        "base": ["", "", "a", "b", ""],
        "num_parameters": [1e6, 1e8, 1e6, 1e9, 1e7],
        "score": [0.1, 0.2, 0.15, 0.1, 0.3],
    }
)


def scatter(table=MODELS):
    return charts_models.scatter(
        table, "num_parameters", title="Size", label="parameters", log=True
    )


@pytest.mark.slow
def test_trends_are_least_squares():
    rows = pd.DataFrame(scatter().spec["datasets"]["table"])
    ends = rows[rows._drawn & (rows.family == charts_models.ALL)]
    slope, intercept = np.polyfit(np.log10(MODELS.num_parameters), MODELS.score, 1)
    expected = intercept + slope * np.log10(ends.num_parameters)
    np.testing.assert_allclose(ends.score, expected, atol=1e-5)
    # Of the one model of family G there is no line.
    assert set(rows[rows._drawn].family) == {charts_models.ALL, "F"}
    assert len(scatter().rows) == len(MODELS)


def test_too_few_models_have_no_scatter():
    assert scatter(MODELS.assign(num_parameters=[1e6, 1e7, NAN, NAN, NAN])) is None


def test_pairs_join_a_model_and_its_base():
    rows = {row["model"]: row for row in charts_models.pairs(MODELS).rows}
    assert set(rows) == {"a-tuned", "b-tuned"}
    assert rows["a-tuned"]["gain_percent"] == pytest.approx(50)
    assert (rows["b-tuned"]["change"], rows["b-tuned"]["base"]) == ("loss", "b")
    assert charts_models.pairs(MODELS[MODELS.model != "a"]).rows[0]["model"] == "b-tuned"
    assert charts_models.pairs(MODELS[MODELS.base == ""]) is None


@pytest.mark.slow
def test_bars_and_profiles_have_the_scores():
    bars = pd.DataFrame(charts_rois.roi_bars(study()).rows).set_index(["features", "roi"])
    assert bars.score["net", "LATL"] == pytest.approx(0.31)  # layer 1, by its inner R2
    assert bars.score["word_rate", "LIFG"] == pytest.approx(0.14)
    assert bars.ceiling["untrained", "LATL"] == pytest.approx(0.5)
    rows = pd.DataFrame(charts_rois.layer_profiles(study(), ["net"])[0].rows)
    own = rows[(rows.features == "net") & (rows.roi == "LATL")]
    group = own[own.level.str.contains("group")].sort_values("layer")
    np.testing.assert_allclose(group.score, [0.30, 0.60, 0.50])
    people = own[~own.level.str.contains("group")].sort_values("layer")
    np.testing.assert_allclose(people.score, [0.10, 0.31, 0.22])


@pytest.mark.slow
@pytest.mark.parametrize("make", [charts_rois.roi_bars, lambda x: charts_rois.depth(x)])
def test_undefined_numbers_are_null(make):
    rows = pd.concat([study(), study(rename=lambda x: {"net": "other"}.get(x, x))])
    nothing = rows.assign(score=NAN, ceiling=NAN, fold_scores=[np.full(2, NAN)] * len(rows))
    some = pd.concat([rows[rows.model != "net"], nothing[nothing.model == "net"]])
    some = pd.concat([some[some.roi == "LATL"], nothing[nothing.roi == "LIFG"]])
    chart = make(some)
    assert "NaN" not in json.dumps(chart.spec, allow_nan=False)
    # A panel of a region where nothing is defined would have axes alone.
    assert {row["roi"] for row in chart.rows} == {"LATL"}
    assert make(nothing) is None


@pytest.mark.slow
def test_what_is_undefined_everywhere_has_no_mark():
    """Vega warns of a layer without numbers, and a model without layers has no profile."""
    flat = study().query("layer == 0").assign(num_layers=0)
    assert charts_rois.layer_profiles(flat, ["net"]) == []
    with_ceilings, without = study(), study()
    without["fold_ceilings"] = [[NAN] * len(x) for x in without.fold_scores]
    drawn = [json.dumps(charts_rois.roi_bars(x).spec["vconcat"]) for x in (with_ceilings, without)]
    assert "ceiling_low" in drawn[0] and "ceiling_low" not in drawn[1]


def profile(rows) -> list[str]:
    """Return all text of the drawn profile, which must be well formed."""
    root = ET.fromstring(charts.svg(charts_rois.layer_profiles(rows, ["net"])[0]))
    assert root.tag == f"{SVG}svg"
    return ["".join(x.itertext()).strip() for x in root.iter(f"{SVG}text")]


@pytest.mark.slow
def test_features_and_the_ceiling_are_in_the_legend():
    found = profile(study())
    assert {"net", "untrained", "word_rate"} <= set(found)
    assert "model and controls (dotted: noise ceiling)" in found
    assert "model and controls" in profile(study(ceiling=NAN))


@pytest.mark.slow
def test_drawn_lines_lie_where_the_scores_say():
    """Of the paths that Vega draws in the network's colour, one has the means over subjects."""
    rows = study(group=False)
    rows = rows[rows.roi == "LATL"]
    root = ET.fromstring(charts.svg(charts_rois.layer_profiles(rows, ["net"])[0]))
    lines = [
        np.array(re.findall(r"[ML]([\d.-]+),([\d.-]+)", path.get("d")), float)
        for path in root.iter(f"{SVG}path")
        if path.get("stroke") == charts.COLOURS["network"]
    ]
    [drawn] = [-x[:, 1] for x in lines if len(x) == 3 and np.ptp(x[:, 1]) > 0]
    scores = np.array([0.10, 0.31, 0.22])  # means over the three subjects
    expected = (scores - scores[0]) / (scores[1] - scores[0])
    np.testing.assert_allclose((drawn - drawn[0]) / (drawn[1] - drawn[0]), expected, atol=1e-4)


@pytest.mark.slow
def test_one_participant_has_no_interval():
    rows = study(group=False)
    for own, has_band in ((rows[rows.subject == "s1"], False), (rows, True)):
        drawn = charts.svg(charts_rois.layer_profiles(own, ["net"])[0])
        assert (b'opacity="0.18"' in drawn) == has_band


@pytest.mark.slow
@pytest.mark.parametrize("name", ["<script>&", "$x$", r"a$\b$", "50% $"])
def test_names_are_escaped_and_no_formulas(name):
    rows = study(rename=lambda x: {"untrained": name}.get(x, x))
    assert name in profile(rows)
    assert b"<script" not in charts.svg(charts_rois.layer_profiles(rows, ["net"])[0])


def test_every_control_has_a_colour_of_its_own():
    assert {"network", *controls.CONTROLS} <= set(charts.COLOURS)
    assert len(set(charts.COLOURS.values())) == len(charts.COLOURS)


@pytest.mark.slow
def test_a_drawing_is_the_same_bytes_and_names_are_escaped():
    name = "<script>&$x$"
    chart = scatter(MODELS.replace({"family": {"F": name}}))
    drawn = charts.svg(chart)
    assert drawn == charts.svg(chart) and b"<script" not in drawn
    texts = ["".join(x.itertext()) for x in ET.fromstring(drawn).iter()]
    assert name in texts
    assert charts.pdf(drawn).startswith(b"%PDF")


@pytest.mark.parametrize(
    "d, area", [(0.0, math.pi), (3.0, 0.0), (1.0, 2 * math.pi / 3 - 3**0.5 / 2)]
)
def test_overlap_of_circles_by_hand(d, area):
    assert charts_parts.overlap(d, 1.0, 1.0) == pytest.approx(area)


def test_venn_areas_are_the_parts():
    table = {"panel": ["x", "y"], "first": "A", "second": "B"}
    table |= {"unique_first": [0.3, -0.1], "shared": [0.4, 0.2], "unique_second": [0.2, 0.1]}
    chart = charts_parts.venn(pd.DataFrame(table), name="v", title="V", unit="R2")
    rows = pd.DataFrame(chart.spec["datasets"]["table"])
    drawn = rows[rows._drawn]
    assert set(drawn.panel) == {"x"}  # no area is negative
    radius = {side: np.ptp(own._x) / 2 for side, own in drawn.groupby("_side")}
    assert (radius["first"] / radius["second"]) ** 2 == pytest.approx(0.7 / 0.6, rel=1e-4)
    centre = {side: own._x.mean() for side, own in drawn.groupby("_side")}
    d = centre["second"] - centre["first"]
    shared = charts_parts.overlap(d, radius["first"], radius["second"])
    assert shared / (np.pi * radius["first"] ** 2) == pytest.approx(0.4 / 0.7, rel=1e-3)
    assert [row["value"] for row in chart.rows] == [0.3, 0.4, 0.2, -0.1, 0.2, 0.1]


def test_latex_is_escaped_and_has_rules():
    table = pd.DataFrame({"best_model": ["a_b & 50%"], "score": [NAN], "n": [3]})
    text = page.latex(table, "x")
    assert r"a\_b \& 50\%" in text and r"\toprule" in text and "best model" in text
    assert "--" in text and "nan" not in text.lower()


def test_files_have_names_that_files_can_have():
    assert page.file_name("layers_org/model b") == "layers_org_model_b"
    assert page.file_names(["a/b", "a_b", "A/b"]) == ["a_b", "a_b_2", "A_b_3"]
    long = [page.file_name(x * 300) for x in ("a", "日", "日本")]
    assert len(set(long)) == 3 and max(len(x.encode()) for x in long) <= 200


@pytest.mark.slow
def test_no_two_names_are_cut_to_one_label():
    names = [f"meta-llama/Llama-2-{size}-hf-instruction-tuned-{x}" for size in "ab" for x in "ab"]
    for room in (150.0, 30.0):
        short = labels.shortened([*names, "net"], room)
        assert len(set(short.values())) == 5 and short["net"] == "net"
    assert labels.shortened(names[:1], 150.0)[names[0]].endswith("tuned-a")
    renamed = study(rename=lambda x: {"net": names[0], "word_rate": names[1]}.get(x, x))
    [chart] = charts_rois.layer_profiles(renamed, [names[0]])
    drawn = ET.fromstring(charts.svg(chart))
    texts = {"".join(x.itertext()) for x in drawn.iter(f"{SVG}text")}
    assert set(labels.shortened(names[:2], 220.0).values()) <= texts


def test_a_pdf_has_its_objects_in_an_order_of_their_own():
    """Lists of fonts and opacities, and objects, may come in any order."""
    head, parts = b"%PDF-1.7\n", [b"1 0 obj\n<<\n  /A 2 0 R\n  /B 3 0 R\n>>\nendobj\n"]
    parts += [b"2 0 obj\n<<\n  /Length 9\n>>\nstream\n  /B 3 0 R\nendstream\nendobj\n"]
    parts += [b"3 0 obj\n(b)\nendobj\n"]
    found = set()
    for order in itertools.permutations(range(3)):
        made, at = head, {}
        for i in order:
            at[i] = len(made)
            made += (
                parts[i]
                if i or order[0]
                else parts[0].replace(b"  /A 2 0 R\n  /B 3 0 R\n", b"  /B 3 0 R\n  /A 2 0 R\n")
            )
        table = b"".join(b"%010d 00000 n \n" % at[i] for i in range(3))
        end = b"xref\n0 4\n0000000000 65535 f \n" + table
        end += b"trailer\n<<\n  /Size 4\n  /Root 1 0 R\n>>\n"
        found.add(pdf_order.in_order(made + end + b"startxref\n%d\n%%%%EOF" % len(made)))
    [same] = found
    assert b"stream\n  /B 3 0 R\nendstream" in same and same.count(b" obj\n") == 3


@pytest.mark.slow
def test_models_of_a_page_have_the_same_axes():
    rows = study()
    more = study(rename=lambda x: {"net": "net2"}.get(x, x))
    more["fold_scores"] = [[3 * x for x in values] for values in more.fold_scores]
    drawn = charts_rois.layer_profiles(pd.concat([rows, more]), ["net", "net2"])
    ends = [re.findall(r'"domain": (\[[^"\]]*\])', json.dumps(x.spec)) for x in drawn]
    assert ends[0] and ends[0] == ends[1]
    assert '"title": "R2"' in json.dumps(charts_rois.roi_bars(rows.assign(metric="r2")).spec)


def test_untrained_networks_can_be_told_apart():
    several = charts.untrained(charts.networks(["a", "b", "c"]))
    assert len(set(several.values())) == 3
    assert set(charts.untrained(charts.networks(["a"])).values()) == {charts.COLOURS["untrained"]}
