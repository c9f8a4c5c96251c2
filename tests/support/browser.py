"""A real browser on a page that lies on the disk, and what must hold of every page there."""

import contextlib
import pathlib
import shutil
import urllib.parse

import pytest

DESKTOP, PHONE = (1280, 900), (390, 844)
MOST_BYTES = 6_000_000
READY_MS = 2000
_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
_FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
_GRAVE = ("serious", "critical")


@contextlib.contextmanager
def browser():
    """Start the system's Chromium; skip where there is none, or nothing that drives it."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    with sync_api.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=_FLAGS)
        try:
            yield started
        finally:
            started.close()


class View:
    """A page in a window of its own: what it asked for, and what it logged, of whatever kind."""

    def __init__(self, browser, path: pathlib.Path, size=DESKTOP, scheme="light"):
        width, height = size
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme
        )
        self.page = context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda said: self.errors.append(f"{said.type}: {said.text}"))
        self.page.goto(path.resolve().as_uri())

    def draw_all(self) -> int:
        """Scroll to every chart and table, and return the number of charts."""
        plots = self.page.locator(".plot")
        for i in range(plots.count()):
            plots.nth(i).scroll_into_view_if_needed()
            self.page.wait_for_function(
                "i => document.querySelectorAll('.plot')[i].dataset.state === 'drawn'", arg=i
            )
        for grid in self.page.locator("table.grid").all():
            grid.scroll_into_view_if_needed()
        self.page.wait_for_function(
            "document.querySelectorAll('table.grid').length"
            " === document.querySelectorAll('.dt-search input').length"
        )
        self.page.evaluate(
            "document.querySelectorAll('.scroll').forEach((x) => x.scrollTo(0, 0));"
            "window.scrollTo(0, 0)"
        )
        return plots.count()

    def ready_ms(self) -> float:
        """Return the time from the start of navigation until the page answers."""
        return self.page.evaluate("performance.getEntriesByName('ready')[0].startTime")

    def overflow(self) -> float:
        """Return by how much the page is wider than its window."""
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")

    def violations(self) -> list[str]:
        """Return what axe-core finds serious or critical."""
        package = pytest.importorskip("axe_playwright_python")
        script = pathlib.Path(package.__file__).with_name("axe.min.js")
        self.page.evaluate(script.read_text(encoding="utf-8"))
        found = self.page.evaluate("axe.run({ resultTypes: ['violations'] })")["violations"]
        return [f"{x['id']}: {x['nodes'][0]['html'][:200]}" for x in found if x["impact"] in _GRAVE]


def expect(locator):
    """Wait until what is said of elements holds: tables answer a click a moment later."""
    return pytest.importorskip("playwright.sync_api").expect(locator)


def check_page(path: pathlib.Path, shots: pathlib.Path, running=None) -> None:
    """Check what must hold of any page with charts.

    Args:
      path: of the page.
      shots: folder for screenshots.
      running: browser that was started; None: one of its own.
    """
    assert path.stat().st_size < MOST_BYTES
    with browser() if running is None else contextlib.nullcontext(running) as started:
        # Colours do not depend on the size of a window, nor what fits it on colours.
        for size, scheme in ((DESKTOP, "light"), (PHONE, "dark")):
            view = View(started, path, size, scheme)
            assert view.draw_all() > 0
            assert view.page.locator(r"text=/\bnan\b/i").count() == 0
            assert view.overflow() <= 0
            view.page.screenshot(path=shots / f"{scheme}.png", full_page=True)
            assert view.violations() == []
            assert view.errors == []
            schemes = {urllib.parse.urlsplit(x).scheme for x in view.requests}
            assert schemes <= {"file", "blob"}
            assert sum(x.startswith("file:") for x in view.requests) == 1
            view.page.context.close()
        assert min(View(started, path).ready_ms() for _ in range(3)) < READY_MS
