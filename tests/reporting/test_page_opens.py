"""One page opens in a real browser, where there is one: the slow tests look at it closely."""

import browser
from score_rows import study

from jaxalign.reporting.page import PAGE
from jaxalign.reporting.run import build
from jaxalign.reporting.run.contents import Contents


def test_a_page_opens_and_draws(tmp_path):
    build.build(Contents(scores=study(), title="Small", provenance="none")).write(tmp_path)
    with browser.browser() as started:
        view = browser.View(started, tmp_path / PAGE)
        assert view.draw_all() >= 2
        assert view.page.locator(".plot svg").count() >= 2
        assert view.errors == []
        assert view.overflow() <= 0
