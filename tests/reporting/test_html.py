"""The page: well formed, self-contained, escaped, and legible without its figures."""

import base64
import html.parser
import re

import numpy as np
import pandas as pd
import pytest
from score_rows import NAN

from jaxalign.reporting import html as html_lib
from jaxalign.reporting.html import Figure, Section

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><text>r</text></svg>'
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(html.parser.HTMLParser):
    """Collect elements and text, and check that tags are closed in order."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.text: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)
            self.text.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        if self.stack:
            self.text[self.stack[-1]][-1] += data

    def all(self, tag) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


TABLE = pd.DataFrame(
    {
        "model": ["net", "other"],
        "best_layer": [3, 12],
        "ci_low": [0.12345, NAN],
        "layers": [[1, 2], [0, 0]],
    }
)


def render(**changes) -> str:
    sections = [
        Section("First", text=["A remark.", "Another."]),
        Section(
            "Second",
            tables=[("What the table says.", TABLE), ("Another.", TABLE.iloc[:0])],
            figures=[Figure("a", "Lines: scores.", SVG), Figure("b", "Bars: scores.", SVG + b"\n")],
        ),
    ]
    settings = {"title": "Brain alignment", "lead": "It works.", "sections": sections}
    settings |= {"provenance": '{\n "seed": 0\n}'} | changes
    return html_lib.page(**settings)


def test_the_page_is_well_formed_and_in_order():
    text = render()
    page = Page(text)
    assert text.startswith("<!doctype html>")
    assert page.all("html") == [{"lang": "en"}]
    assert page.all("meta")[0] == {"charset": "utf-8"}
    assert page.text["title"] == page.text["h1"] == ["Brain alignment"]
    assert page.text["h2"] == ["First", "Second", "Provenance"]
    assert page.text["p"] == ["It works.", "A remark.", "Another."]
    assert page.text["pre"] == ['{\n "seed": 0\n}']


def test_nothing_is_fetched():
    text = render()
    page = Page(text)
    links = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "poster")
    ]
    assert len(links) == 2
    assert all(link.startswith("data:image/svg+xml;base64,") for link in links)
    assert not {"script", "link", "iframe", "object", "embed"} & {tag for tag, _ in page.tags}
    assert not re.search(r"url\(|@import", page.text["style"][0])
    assert not re.search(r"https?://", text)


def test_figures_are_embedded_whole_and_have_alternative_text():
    images = Page(render()).all("img")
    assert [x["alt"] for x in images] == ["Lines: scores.", "Bars: scores."]
    found = [base64.b64decode(x["src"].partition(",")[2], validate=True) for x in images]
    assert found == [SVG, SVG + b"\n"]


def test_every_table_has_a_caption_and_headings():
    text = render()
    page = Page(text)
    assert page.text["caption"] == ["What the table says.", "Another."]
    assert len(page.all("table")) == 2
    assert len(re.findall(r"<table>\s*<caption>", text)) == 2
    assert page.text["th"] == ["model", "best layer", "ci low", "layers"] * 2
    assert all(x["scope"] == "col" for x in page.all("th"))
    regions = [x["aria-label"] for x in page.all("div") if x.get("role") == "region"]
    assert regions == page.text["caption"]


def test_cells_by_hand():
    page = Page(render())
    assert page.text["td"] == ["net", "3", "0.123", "[1, 2]", "other", "12", "\u2013", "[0, 0]"]
    # Numbers are set to the right, in the head and in the body.
    assert [x.get("class") for x in page.all("td")] == [None, "n", "n", None] * 2
    assert [x.get("class") for x in page.all("th")][:4] == [None, "n", "n", None]


@pytest.mark.parametrize(
    "value, text",
    [
        (0.1, "0.100"),
        (-0.12345, "-0.123"),
        (0.0005, "0.001"),
        (NAN, "\u2013"),
        (np.float64(0.5), "0.500"),
        (np.float64(NAN), "\u2013"),
        (3, "3"),
        (np.int32(3), "3"),
        (-1, "-1"),
        ("LATL", "LATL"),
        ("", ""),
        ([1, 2], "[1, 2]"),
    ],
)
def test_a_cell(value, text):
    assert html_lib.cell(value) == text


EVIL = "<script>alert('x')</script>&\"<b>"


@pytest.mark.parametrize("where", ["title", "lead", "provenance"])
def test_the_text_around_is_escaped(where):
    text = render(**{where: EVIL})
    page = Page(text)
    assert "<script" not in text
    assert page.all("script") == page.all("b") == []
    tag = {"title": "h1", "lead": "p", "provenance": "pre"}[where]
    assert page.text[tag][0] == EVIL


def test_names_in_sections_are_escaped():
    table = pd.DataFrame({EVIL: ["x"], "model": [EVIL]})
    section = Section(
        EVIL, text=[EVIL], tables=[(EVIL, table)], figures=[Figure("evil", EVIL, SVG)]
    )
    text = render(sections=[section])
    page = Page(text)
    assert "<script" not in text
    assert page.all("script") == page.all("b") == []
    assert page.text["h2"][0] == page.text["p"][1] == page.text["caption"][0] == EVIL
    assert page.text["th"] == [EVIL, "model"]
    assert page.text["td"] == ["x", EVIL]
    assert page.all("img")[0]["alt"] == EVIL
    assert page.all("div")[0]["aria-label"] == EVIL


def test_a_page_without_sections_has_its_provenance():
    page = Page(render(sections=[]))
    assert page.text["h2"] == ["Provenance"]
    assert page.all("table") == page.all("img") == []


def test_the_same_content_is_the_same_page():
    assert render() == render()
    assert render() != render(lead="It does not.")


@pytest.mark.parametrize(
    "name, value, shown",
    [
        ("p_t", 0.0, "&lt; .001"),
        ("group_p", 0.0009, "&lt; .001"),
        ("p_adjusted", 0.001, "0.001"),
        ("p", 1.0, "1.000"),
        ("p", NAN, "–"),
        ("num_parts", 0.0, "0"),
    ],
)
def test_p_values_are_never_zero(name, value, shown):
    text = render(sections=[Section("S", tables=[("T", pd.DataFrame({name: [value]}))])])
    assert f">{shown}</td>" in text
