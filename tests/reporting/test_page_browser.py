"""The page in a real browser: it sorts, filters, answers a pointer, and changes its theme."""

import re

import browser
import numpy as np
import pandas as pd
import pytest
from score_rows import frame, row

from jaxalign.literature import properties, published
from jaxalign.reporting import findings
from jaxalign.reporting.findings import instructions
from jaxalign.reporting.findings import rows as finding_rows
from jaxalign.reporting.page import PAGE
from jaxalign.reporting.run import build
from jaxalign.reporting.run.contents import Contents, Instructions

pytestmark = pytest.mark.slow
CONTROLS = ("untrained", "shifted", "word_rate", "word_length", "length", "position")
ROIS = ("LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG")


@pytest.fixture(scope="module")
def papers(tmp_path_factory):
    """The page of 33 published models."""
    rows = published.score_rows("aw2024")
    models = properties.wide(properties.join([published.properties("aw2024")]))
    names = ("correlations", "models", "noise_ceilings")
    tables = {f"aw2024/{name}": published.table(f"aw2024/{name}") for name in names}
    options = findings.Options(paper="aw2024", apart=("GPT2",), num_resamples=99)
    found = findings.of_run(rows, models, options, tables)
    folder = tmp_path_factory.mktemp("papers")
    report = build.build(
        Contents(scores=rows, models=models, found=found, title="Published", provenance="none")
    )
    report.write(folder)
    return folder / PAGE


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """The page of a run of the size of Alice's: 6 regions, 28 subjects, 2 models, controls."""
    rng = np.random.default_rng(0)
    rows = []
    for model, num_layers in (("minilm", 6), ("stories", 5)):
        for name in (model, *CONTROLS):
            depth = num_layers if name in (model, "untrained", "shifted") else 0
            changes = {"num_layers": depth, "ceiling": 0.3}
            changes["control_of"] = "" if name == model else model
            for subject in [*(f"s{i}" for i in range(27)), "group"]:
                for roi in ROIS:
                    for layer in range(depth + 1):
                        folds = (rng.normal(0.1 + 0.1 * (name == model), 0.05, 6)).tolist()
                        rows.append(row(name, subject, roi, layer, folds, **changes))
    folder = tmp_path_factory.mktemp("encoded")
    report = build.build(Contents(scores=frame(rows), title="Encoded", provenance="none"))
    report.write(folder)
    return folder / PAGE


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """The page of a model without layers that was asked two things; no ceiling, no group."""
    rows = [
        row("net", f"s{i}", roi, 0, [0.2 + 0.1 * len(text), 0.3], num_layers=0, instruction=text)
        for i in range(3)
        for roi in ROIS
        for text in ("Count.", "Describe it.")
    ]
    folder = tmp_path_factory.mktemp("asked")
    kept, _ = instructions.asked(frame(rows))
    told = [Instructions(instructions.of_run(kept), ["net was asked twice.", "Instructions: two."])]
    build.build(
        Contents(scores=frame(rows), instruction="Count.", title="Asked", instructions=told)
    ).write(folder)
    return folder / PAGE


@pytest.fixture(scope="module")
def started():
    """One browser for all tests, each with windows of its own."""
    with browser.browser() as found:
        yield found


@pytest.fixture(scope="module")
def drawn(started, papers):
    """A window with all charts and tables drawn; who changes what it shows changes it back."""
    view = browser.View(started, papers)
    view.draw_all()
    return view


def cells(view, column: int) -> list[str]:
    """Return the text of a column of the table of models."""
    return view.page.locator("#models tbody tr").evaluate_all(
        "(rows, i) => rows.map((row) => row.cells[i].textContent)", column
    )


def test_the_table_of_models_sorts_and_filters(drawn):
    view = drawn
    heads = view.page.locator("#models th").all_inner_texts()
    heads = [x.split("\n")[0].strip() for x in heads]
    mmlu = heads.index("mmlu")
    head = view.page.locator("#models th").nth(mmlu)
    assert len(cells(view, mmlu)) == 33
    for order in ("ascending", "descending"):
        head.click()
        browser.expect(head).to_have_attribute("aria-sort", order)
        values = cells(view, mmlu)
        known = [float(x) for x in values if x != "–"]
        assert known == sorted(known, reverse=order == "descending")
        # 12 vanilla models have no value; they stand last either way.
        assert values[len(known) :] == ["–"] * 12
    region = view.page.locator(".scroll", has=view.page.locator("#models"))
    rows = view.page.locator("#models tbody tr")
    region.get_by_label("Filter").fill("llama")
    browser.expect(rows).to_have_count(8)
    browser.expect(region.get_by_role("status")).to_have_text(re.compile("^8 rows"))
    region.get_by_label("Filter").fill("no such model")
    browser.expect(rows).to_have_text([re.compile("No row")])
    region.get_by_label("Filter").fill("")
    browser.expect(rows).to_have_count(33)


def test_the_keyboard_sorts(drawn):
    view = drawn
    head = view.page.locator("#models th").first
    head.get_by_role("button").first.focus()
    view.page.keyboard.press("Enter")
    browser.expect(head).to_have_attribute("aria-sort", "ascending")
    assert cells(view, 0) == sorted(cells(view, 0))


def test_a_mark_tells_its_numbers(drawn):
    view = drawn
    figure = view.page.locator("figure", has_text="Alignment against parameters").first
    marks = figure.locator("path[aria-roledescription='point']")
    assert marks.count() == 4 * 33  # the average and three data sets
    mark = figure.locator("path[aria-label*='vicuna-33b'][aria-label*='average']")
    mark.hover()
    tip = view.page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    text = tip.inner_text()
    for said in ("vicuna-33b", "LLaMA", "instruction-tuned", "33B", "0.232"):
        assert said in text
    figure.locator("summary").click()
    browser.expect(figure.locator("tbody tr")).to_have_count(4 * 33)
    assert figure.get_by_role("link", name="Save as CSV").get_attribute("download")


def test_the_theme_changes_with_the_button(started, papers):
    view = browser.View(started, papers, scheme="light")
    back = lambda: view.page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = back()
    button = view.page.get_by_role("button", name="Theme")
    button.click()
    assert button.inner_text() == "Theme: light" and back() == light
    button.click()
    assert button.inner_text() == "Theme: dark" and back() != light
    # Charts follow without being drawn again.
    view.draw_all()
    label = view.page.locator(".plot svg text").first
    ink = view.page.evaluate("getComputedStyle(document.body).color")
    assert label.evaluate("x => getComputedStyle(x).fill") == ink


def test_what_does_not_follow_is_on_the_page(started, papers):
    text = browser.View(started, papers).page.locator("main").inner_text()
    assert "Published numbers that do not follow from the published tables" in text
    assert "tuned, LLaMA" in text and "published -0.54" in text


def test_a_page_of_published_models(started, papers, tmp_path):
    browser.check_page(papers, tmp_path, started)


def test_a_page_of_an_encoding_run(started, encoded, tmp_path):
    browser.check_page(encoded, tmp_path, started)


def test_a_page_of_numbers_that_are_undefined_everywhere(started, asked, tmp_path):
    browser.check_page(asked, tmp_path, started)
    text = asked.read_text()
    assert "ceiling" not in re.search(r'<p class="lead">(.*?)</p>', text)[1]
    [alt] = re.findall(r"<h3>Regions: models and their controls</h3>\n<p>(.*?)</p>", text)
    assert "ceiling" not in alt and "intervals" in alt


def test_what_was_found_stands_first(started, papers):
    view = browser.View(started, papers)
    first = view.page.locator("section").first
    text = first.inner_text()
    assert text.startswith("What to know first")
    for said in ("+6.3 % (mean of data sets", "+6.0 % on the printed average column"):
        assert said in text
    assert "Behavioural alignment (futrell2018) changes by -11.8 %" in text
    assert "r = 0.946" in text and "LLaMA 0.227" in text
    # The main findings are on the first screen.
    assert first.locator("p").first.bounding_box()["y"] < browser.DESKTOP[1]
    rows = view.page.locator("table").first.locator("tbody tr")
    counts = rows.filter(has_text="num_higher").first.inner_text()
    assert "\t16\t" in counts and "16.0" not in counts


def test_regions_and_layers_are_drawn(started, encoded):
    view = browser.View(started, encoded)
    assert view.draw_all() >= 5
    bars = view.page.locator("figure", has_text="Regions: models and").first
    # 2 models with 6 controls, in 6 regions.
    assert bars.locator("path[aria-roledescription='bar']").count() == 2 * 7 * 6
    for roi in ROIS:
        assert bars.locator("svg").get_by_text(roi, exact=True).count() == 2
    tables = view.page.locator("table.grid caption").all_inner_texts()
    assert any("paired differences" in x for x in tables)


def test_files_for_papers_are_beside_the_page(papers):
    folder = papers.parent
    found = pd.read_csv(folder / "findings.csv")
    assert list(found.columns) == list(finding_rows.COLUMNS)
    for name in ("scatter_num_parameters", "pairs", "correlations"):
        assert (folder / f"{name}.svg").read_text().startswith("<svg")
        assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    tex = (folder / "checks.tex").read_text()
    assert r"\toprule" in tex and "%" not in tex.replace(r"\%", "")
