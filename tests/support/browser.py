"""Chromium, driven by Playwright, and axe-core in its pages."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

from tests.support.programs import which

DRIVER = "playwright"
AXE = "axe_playwright_python"


def missing():
    """What a browser lacks here, or an empty text."""
    lacks = [] if which("chromium") else ["chromium"]
    lacks += [each for each in (DRIVER, AXE) if importlib.util.find_spec(each) is None]
    return ", ".join(lacks)


@contextlib.contextmanager
def chromium():
    """A browser without a window."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - not installed everywhere

    flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=which("chromium"), args=flags)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """A tab of a browser on a page, and what went wrong in it."""

    def __init__(self, browser, url, *, width=1280, height=900, scheme="light", scripts=True):
        self.wrong = []
        self._context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,
            java_script_enabled=scripts,
            locale="en-GB",
            reduced_motion="reduce",
        )
        self.tab = self._context.new_page()
        self.tab.on("console", lambda said: self.wrong.append(said.text))
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("requestfailed", lambda request: self.wrong.append(request.url))
        self.requests = []
        self.tab.on("request", lambda request: self.requests.append(request.url))
        self.tab.goto(url)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._context.close()

    def text(self, selector):
        """The text that a person sees of an element."""
        return " ".join(self.tab.inner_text(selector).split())

    def renew(self):
        """Let the page's own script ask for the page again, by turning the refresh off and on."""
        self.tab.click("#refresh")
        self.tab.click("#refresh")

    def expect(self, selector, text):
        """Wait until an element shows a text."""
        from playwright.sync_api import expect  # noqa: PLC0415 - not installed everywhere

        expect(self.tab.locator(selector)).to_contain_text(text, timeout=15_000)

    def overflow(self):
        """By how many pixels the page is wider than its window."""
        return self.tab.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )

    def findings(self):
        """What axe finds: each a rule, and the first element at fault."""
        script = Path(importlib.util.find_spec(AXE).origin).with_name("axe.min.js")
        self.tab.evaluate(script.read_text("utf-8"))
        tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
        found = self.tab.evaluate("tags => axe.run({runOnly: tags})", tags)
        return [
            f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in [*found["violations"]]
        ]
