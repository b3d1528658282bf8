"""The page in a real browser: what a person sees, with a script and without, wide and narrow."""

from __future__ import annotations

import pytest

from kmproxy.simulator.kubelet import Fault
from tests.support.browser import Visit, chromium, missing
from tests.support.status_site import Site

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(bool(missing()), reason=f"not installed: {missing()}"),
]


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests."""
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """One daemon for all tests, scraped twice by then."""
    with Site(tmp_path_factory.mktemp("site")) as running:
        running.scrape_all(2)
        yield running


@pytest.fixture
def visit(browser, site):
    """A function that opens the page."""
    opened = []

    def open_page(query="", **options):
        opened.append(Visit(browser, site.url + query, **options))
        return opened[-1]

    yield open_page
    wrong = [each.wrong.copy() for each in opened]
    for each in opened:
        each.__exit__()
    assert wrong == [[]] * len(opened)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_reader_can_read_it(visit, width, scheme):
    """No finding of axe, nothing wider than the window, nothing loaded from elsewhere."""
    page = visit(width=width, scheme=scheme)
    page.tab.click("#settings summary")
    if (width, scheme) in {(360, "light"), (1280, "dark")}:  # both widths and both schemes
        assert page.findings() == []
    assert page.overflow() <= 0
    cells = "[...document.querySelectorAll('#scrapes tbody td')].map(cell => cell.offsetWidth)"
    stacked = [each > 250 for each in page.tab.evaluate(cells) if each]
    assert stacked
    assert all(stacked) is (width == 360)
    assert {each.partition("?")[0] for each in page.requests} - {"data:,"} == {page.tab.url}
    dark = (
        page.tab.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(246, 248, 250)"
    )
    assert dark is (scheme == "dark")


def test_a_failing_scrape_turns_red(visit, site):
    """The page renews itself: red after a failure, green after the next good scrape."""
    page = visit()
    assert page.text("h1") == "✓ Every scrape is well"
    assert "well" in page.tab.title()
    assert page.text("#scrapes tbody tr:first-child td:nth-child(6)").endswith("%")
    green = page.tab.evaluate("getComputedStyle(document.getElementById('health')).borderColor")
    site.fail("node-a1", Fault.STATUS, status=500, path="/metrics")
    site.scrape("/metrics")
    renewed = visit()
    assert renewed.text("h1") == "✕ 1 of 4 scraped paths failing"
    assert "/metrics the kubelet answered with HTTP status 500" in renewed.text("#health")
    assert "✕ failing" in renewed.text("#scrapes tbody tr:first-child")
    assert renewed.findings() == []
    page.renew()
    page.expect("h1", "failing")
    assert "failing" in page.tab.title()
    red = page.tab.evaluate("getComputedStyle(document.getElementById('health')).borderColor")
    assert red != green
    site.fail("node-a1")
    site.scrape("/metrics")
    assert visit().text("h1") == "✓ Every scrape is well"


def test_a_label_moves(visit, site):
    """The namespace has its new owner, and is no longer among those without one."""
    page = visit("?q=tmp-loadtest")
    assert "none" in page.text("#found-namespaces tbody")
    assert "tmp-loadtest" in page.text("#owners")
    site.label("tmp-loadtest", **{"team": "search", "cost-center": "cc-2077"})
    try:
        page.renew()
        page.expect("#found-namespaces tbody", "search")
        assert "tmp-loadtest" not in page.text("#owners")
    finally:
        site.label("tmp-loadtest")


def test_a_hostile_label(visit, site):
    """Neither a new page nor a renewed one runs what a label says, or loads what it names."""
    evil = '"><img src=/x onerror=document.title=1><script>document.title=2</script>'
    page = visit("?q=tmp-loadtest")
    site.label("tmp-loadtest", team=evil)
    try:
        page.renew()
        page.expect("#found-namespaces tbody", evil)
        for each in (page, visit("?q=tmp-loadtest"), visit("?q=onerror&node=<script>")):
            assert evil in each.text("#found-namespaces tbody")
            assert each.tab.locator("img").count() == 0
            assert each.tab.title() == "Every scrape is well · kmproxy"
            assert not any("/x" in request for request in each.requests)
    finally:
        site.label("tmp-loadtest")


def test_search_without_a_script(visit):
    """The form, the owners and the order work by links alone."""
    page = visit(scripts=False)
    assert not page.tab.is_visible("#refresh")
    page.tab.fill("#search-q", "pay")
    page.tab.press("#search-q", "Enter")
    rows = "#found-namespaces tbody tr"
    assert page.tab.locator(rows).count() == 4  # ledger by its owner
    assert "4 namespaces with “pay”" in page.text("#found-namespaces")
    page.tab.click("text=Show all")
    page.tab.click("#owners >> text=data-platform")
    assert page.tab.locator(rows).count() == 3
    page.tab.select_option("#sort", "owner")
    page.tab.click("#namespaces button")
    assert "sort=owner" in page.tab.url
    assert "owner=data-platform" in page.tab.url


def test_search_as_one_types(visit):
    """With the script the list follows, and the focus stays in the field."""
    page = visit()
    page.tab.click("#search-q")
    page.tab.keyboard.type("suggest")
    page.expect("#found-namespaces", "1 namespace with “suggest”")
    assert page.tab.locator("#found-namespaces tbody tr").count() == 1
    assert page.tab.url.endswith("?q=suggest")
    assert page.tab.evaluate("document.activeElement.id") == "search-q"


def test_by_keyboard(visit):
    """The first tab stop skips to the content; the button tells its state."""
    page = visit()
    page.tab.keyboard.press("Tab")
    assert page.tab.evaluate("document.activeElement.innerText") == "Skip to the content"
    page.tab.keyboard.press("Enter")
    assert page.tab.evaluate("document.activeElement.id") == "main"
    page.tab.focus("#refresh")
    page.tab.keyboard.press("Space")
    assert page.tab.get_attribute("#refresh", "aria-pressed") == "false"
    assert page.text("#refresh") == "Refresh: off"


def test_when_kmproxy_is_gone(visit):
    """The page says that it is old instead of showing green for ever."""
    page = visit()
    page.tab.route("**/*", lambda route: route.fulfill(status=503))
    page.renew()
    page.expect("#lost", "did not answer (status 503)")
    page.wrong.clear()  # the browser's own words about the 503
