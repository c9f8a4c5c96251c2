"""Figures by matplotlib: lines lie where the scores say, text is text, colours differ."""

import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from score_rows import NAN, study

from jaxalign.data import controls
from jaxalign.reporting import charts
from jaxalign.reporting.pages import plots

SVG = "{http://www.w3.org/2000/svg}"
NETWORK = plots.COLOURS["network"].lower()


def draw(rows, name="LATL"):
    """Draw the subjects' profile of a region."""
    with matplotlib.rc_context(plots.STYLE):
        figure = Figure()
        axis = figure.subplots()
        axis.set_title(name)
        own = rows[(rows.roi == "LATL") & (rows.subject != "group")]
        plots.profile(axis, own, "net")
        axis.legend()
        return plots.svg(figure)


def texts(svg: bytes) -> list[str]:
    """Return all text of a figure, which must be well-formed."""
    root = ET.fromstring(svg)
    assert root.tag == f"{SVG}svg"
    return ["".join(x.itertext()).strip() for x in root.iter(f"{SVG}text")]


def curves(svg: bytes, colour: str, num_points: int) -> list[np.ndarray]:
    """Return the lines of one colour through so many points, upwards; not the legend's flat one."""
    found = []
    for path in ET.fromstring(svg).iter(f"{SVG}path"):
        if f"stroke: {colour}" in path.get("style", ""):
            points = np.array(re.findall(r"[ML] (\S+) (\S+)", path.get("d")), float)
            if len(points) == num_points and np.ptp(points[:, 1]) > 0:
                found.append(-points[:, 1])
    return found


def test_lines_lie_where_the_scores_say():
    drawn = curves(draw(study()), NETWORK, 3)[0]
    scores = np.array([0.10, 0.31, 0.22])  # means over the three subjects
    # A figure has coordinates to a millionth of a point, over curves of some ten points.
    expected = (scores - scores[0]) / (scores[1] - scores[0])
    np.testing.assert_allclose((drawn - drawn[0]) / (drawn[1] - drawn[0]), expected, atol=1e-4)


def test_features_and_the_ceiling_are_in_the_legend():
    found = texts(draw(study()))
    assert {"net", "untrained", "word_rate", "noise ceiling"} <= set(found)
    assert "noise ceiling" not in texts(draw(study(ceiling=NAN)))


def test_one_participant_has_no_interval():
    rows = study(group=False)
    alone = draw(rows[rows.subject == "s1"])
    assert b"fill-opacity: 0.15" not in alone and b"fill-opacity: 0.15" in draw(rows)
    drawn = curves(alone, NETWORK, 3)[0]
    assert (drawn[2] - drawn[0]) / (drawn[1] - drawn[0]) == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize("name", ["<script>&", "$x$", r"a$\b$", "50% $"])
def test_names_are_escaped_and_no_formulas(name):
    svg = draw(study(), name)
    assert b"<script" not in svg and name in texts(svg)


def test_a_figure_is_the_same_bytes():
    assert draw(study()) == draw(study())


@pytest.mark.parametrize("colours", [plots.COLOURS, charts.COLOURS], ids=["figures", "page"])
def test_every_control_has_a_colour_of_its_own(colours):
    assert {"network", *controls.CONTROLS} <= set(colours)
    assert len(set(colours.values())) == len(colours)
