"""Makes the pictures of the documentation: `make screenshots` writes docs/images/*.png.

Needs Chromium. Everything on the pictures is simulated.
"""

from __future__ import annotations

import asyncio
import re
import sys
import tempfile
import threading
from pathlib import Path

from kmproxy.simulator.kubelet import Fault
from tests.support.browser import Visit, chromium, missing
from tests.support.demo import demo_process
from tests.support.png import reduced
from tests.support.status_site import Site

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDE = {"width": 1200, "height": 900}
NARROW = {"width": 360, "height": 800}


def save(name, tab, **how):
    """Write one picture."""
    IMAGES.mkdir(exist_ok=True)
    path = IMAGES / f"{name}.png"
    path.write_bytes(reduced(tab.screenshot(**how)))
    print(f"{path.relative_to(IMAGES.parents[1])}: {path.stat().st_size / 1024:.0f} KiB")


def of_the_daemon(browser, directory):
    """The page when all is well, and when scrapes are failing."""
    with Site(directory) as site:
        site.scrape_all(14)
        with Visit(browser, site.url, **WIDE) as visit:
            save("status-page", visit.tab)
        with Visit(browser, site.url, width=1200, height=2600) as visit:
            save("status-page-namespaces", visit.tab.locator("#namespaces"))
        site.fail("node-a1", Fault.STATUS, status=500, path="/metrics")
        site.fail("node-b2", Fault.STATUS, status=503)
        site.scrape_all(4)
        with Visit(browser, site.url, scheme="dark", **WIDE) as visit:
            save("status-page-failing", visit.tab)
        with Visit(browser, site.url, **NARROW) as visit:
            save("status-page-narrow", visit.tab)


def of_logs(browser):
    """The page of the demo of `kmproxy logs`."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    ready, over = threading.Event(), asyncio.Event()
    url = []

    async def run():
        async with demo_process("--logs") as (_, text):
            url.append(re.search(r"status page is at (\S+),", text)[1])
            await asyncio.sleep(3)
            ready.set()
            await over.wait()

    running = asyncio.run_coroutine_threadsafe(run(), loop)
    assert ready.wait(60)
    with Visit(browser, url[0], **WIDE) as visit:
        save("logs-page", visit.tab)
    loop.call_soon_threadsafe(over.set)
    running.result(30)
    loop.call_soon_threadsafe(loop.stop)


def main():
    """Make all pictures."""
    if missing():
        sys.exit(f"not installed: {missing()}")
    with tempfile.TemporaryDirectory() as directory, chromium() as browser:
        of_the_daemon(browser, Path(directory))
        of_logs(browser)


if __name__ == "__main__":
    main()
