"""Figures: well-formed SVG with legible text, in which marks lie where the scores say."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from score_rows import NAN, frame, layers, study

from jaxalign.data import controls
from jaxalign.reporting import plots

SVG = "{http://www.w3.org/2000/svg}"
NETWORK = plots.COLOURS["network"].lower()
FIGURES = {
    "profiles": lambda rows: plots.layer_profiles(rows, "net"),
    "bars": plots.roi_bars,
}


@pytest.fixture(params=FIGURES)
def draw(request):
    return FIGURES[request.param]


def texts(svg: bytes) -> list[str]:
    """Return all text of a figure, which must be well-formed."""
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return ["".join(x.itertext()).strip() for x in root.iter(f"{SVG}text")]


def outlines(svg: bytes, kind: str, colour: str) -> list[np.ndarray]:
    """Return the corners [m 2] of each path with this fill or stroke, in drawing order."""
    found = []
    for path in ET.fromstring(svg).iter(f"{SVG}path"):
        if f"{kind}: {colour}" in path.get("style", ""):
            numbers = re.findall(r"[ML] (\S+) (\S+)", path.get("d"))
            found.append(np.array(numbers, float))
    return found


def heights(svg: bytes, colour: str) -> list[float]:
    """Return the heights of the bars of one colour, without the legend's patch."""
    return [np.ptp(x[:, 1]) for x in outlines(svg, "fill", colour)][:-1]


def curves(svg: bytes, colour: str, num_points: int) -> list[np.ndarray]:
    """Return the lines of one colour through so many points, upwards; not the legend's flat one."""
    found = [-x[:, 1] for x in outlines(svg, "stroke", colour) if len(x) == num_points]
    return [line for line in found if np.ptp(line) > 0]


def same_shape(drawn, scores):
    """Whether drawn heights are the scores up to scale and origin."""
    drawn, scores = np.asarray(drawn), np.asarray(scores)
    drawn = (drawn - drawn[0]) / (drawn[1] - drawn[0])
    scores = (scores - scores[0]) / (scores[1] - scores[0])
    # A figure has coordinates to a millionth of a point, over curves of some ten points.
    np.testing.assert_allclose(drawn, scores, atol=1e-4)


def test_regions_and_the_legend_are_text(draw):
    found = texts(draw(study()))
    assert {"LATL", "LIFG", "net", "untrained", "word_rate"} <= set(found)
    # One title or tick for each region, one entry for each model.
    assert [found.count(x) for x in ("LATL", "LIFG", "untrained", "word_rate")] == [1, 1, 1, 1]


def test_profiles_have_axes_and_a_ceiling():
    found = texts(plots.layer_profiles(study(), "net"))
    assert found.count("layer") == 2
    assert found.count("noise ceiling") == 1
    assert found.count("Pearson r") == 2
    assert {"mean response of the group", "participants (mean, 95 % interval)"} <= set(found)


def test_without_group_rows_only_participants_are_drawn():
    found = texts(plots.layer_profiles(study(group=False), "net"))
    assert "participants (mean, 95 % interval)" in found
    assert "mean response of the group" not in found
    assert {"LATL", "LIFG"} <= set(found)


def test_without_ceilings_none_is_drawn():
    assert "noise ceiling" not in texts(plots.layer_profiles(study(ceiling=NAN), "net"))


def test_the_same_rows_are_the_same_bytes(draw):
    assert draw(study()) == draw(study())


def test_other_scores_are_another_figure(draw):
    rows = study()
    rows["score"] += 0.1 * (rows.layer == 1)
    rows["fold_scores"] = [
        x + 0.1 * (i == 1) for x, i in zip(rows.fold_scores, rows.layer, strict=True)
    ]
    assert draw(rows) != draw(study())


def test_nothing_is_fetched(draw):
    svg = draw(study()).decode()
    assert not re.search(r'(?:href|src)\s*=\s*"(?!#)', svg)
    assert "url(http" not in svg
    assert "<image" not in svg


def test_profiles_go_through_the_scores():
    lines = curves(plots.layer_profiles(study(), "net"), NETWORK, 3)
    # The group's two regions, then the participants'.
    group = [(0.30, 0.60, 0.50), (0.20, 0.25, 0.35)]
    subjects = [
        np.mean([(0.10, 0.30, 0.20), (0.12, 0.35, 0.21), (0.08, 0.28, 0.25)], axis=0),
        np.mean([(0.05, 0.10, 0.15), (0.02, 0.08, 0.20), (0.06, 0.11, 0.10)], axis=0),
    ]
    assert len(lines) == 4
    for line, scores in zip(lines, [*group, *subjects], strict=True):
        same_shape(line, scores)


def test_profiles_do_not_depend_on_the_order_of_rows():
    rows = study()
    rows = pd.concat([rows[rows.model != "net"], rows[rows.model == "net"].iloc[::-1]])
    lines = curves(plots.layer_profiles(rows, "net"), NETWORK, 3)
    expected = curves(plots.layer_profiles(study(), "net"), NETWORK, 3)
    assert sorted(np.ptp(x).round(4) for x in lines) == sorted(np.ptp(x).round(4) for x in expected)


def test_bars_are_as_high_as_the_scores_with_nested_layers():
    svg = plots.roi_bars(study())
    same_shape([0, *heights(svg, NETWORK)], [0, 0.31, (0.15 + 0.20 + 0.11) / 3])
    rate = heights(svg, plots.COLOURS["word_rate"].lower())
    # One scale for all bars.
    assert rate[0] / heights(svg, NETWORK)[0] == pytest.approx(0.20 / 0.31, abs=1e-4)
    assert rate[1] / rate[0] == pytest.approx(0.14 / 0.20, abs=1e-4)


def test_a_control_has_the_same_colour_whatever_else_is_drawn():
    rows = study()
    alone = plots.roi_bars(rows[rows.model != "untrained"])
    colour = plots.COLOURS["word_rate"].lower()
    assert len(heights(alone, colour)) == len(heights(plots.roi_bars(rows), colour)) == 2
    assert heights(alone, plots.COLOURS["untrained"].lower()) == []


def test_each_network_has_its_own_bars_and_profiles():
    rows = pd.concat([study(), study(rename=lambda name: {"net": "other"}.get(name, name))])
    found = texts(plots.roi_bars(rows))
    assert {"net", "other"} <= set(found)
    assert found.count("word_rate") == 2
    assert len(heights(plots.roi_bars(rows), NETWORK)) == 2 * 2 + 1
    assert "other" not in texts(plots.layer_profiles(rows, "net"))
    assert "net" not in texts(plots.layer_profiles(rows, "other"))


def test_names_are_escaped(draw):
    rename = lambda name: {"net": "net", "LATL": "<script>&", "LIFG": 'a"b'}.get(name, name)
    svg = draw(study(rename=rename))
    assert b"<script" not in svg
    assert {"<script>&", 'a"b'} <= set(texts(svg))


@pytest.mark.parametrize("name", ["$x$", r"a$\b$", "50% $"])
def test_names_are_no_formulas(draw, name):
    rename = lambda old: {"LATL": name}.get(old, old)
    assert name in texts(draw(study(rename=rename)))


def test_a_network_of_one_layer_and_no_controls():
    rows = frame(
        layers("net", "s1", "LATL", (0.3,), ceiling=0.5)
        + layers("net", "s2", "LATL", (0.5,), ceiling=0.5)
        + layers("net", "group", "LATL", (0.6,), ceiling=0.8)
    )
    for draw in FIGURES.values():
        assert {"net", "LATL"} <= set(texts(draw(rows)))


def test_undefined_scores_are_drawn_as_nothing(draw):
    rows = study()
    gone = (rows.roi == "LATL") & (rows.model == "net")
    rows.loc[gone, ["score", "ceiling"]] = NAN
    rows["fold_scores"] = [
        np.full(2, NAN) if x else y for x, y in zip(gone, rows.fold_scores, strict=True)
    ]
    svg = draw(rows)
    assert {"LATL", "LIFG", "net", "word_rate"} <= set(texts(svg))
    paths = [path.get("d", "") for path in ET.fromstring(svg).iter(f"{SVG}path")]
    assert any(paths)
    assert not any("nan" in path for path in paths)


def test_one_participant_has_no_interval():
    rows = study(group=False)
    svg = plots.layer_profiles(rows[rows.subject == "s1"], "net")
    same_shape(curves(svg, NETWORK, 3)[0], (0.10, 0.30, 0.20))
    assert b"fill-opacity: 0.15" not in svg
    assert b"fill-opacity: 0.15" in plots.layer_profiles(rows, "net")


@pytest.mark.parametrize("absent", [["group"], ["s1", "group"], ["s1"]], ids="+".join)
def test_a_region_may_be_missing_in_some_subjects_and_so_in_the_group(draw, absent):
    rows = study()
    rows = rows[~((rows.roi == "LIFG") & rows.subject.isin(absent))]
    assert {"LATL", "LIFG", "net", "word_rate"} <= set(texts(draw(rows)))


def test_every_control_has_a_colour():
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
    for control in controls.CONTROLS:
        rows = study(
            rename=lambda name, to=control: {"word_rate": to, "untrained": "net2"}.get(name, name)
        )
        rows = rows[rows.model != "net2"]
        assert len(heights(plots.roi_bars(rows), plots.COLOURS[control].lower())) == 2
