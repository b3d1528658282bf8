"""The frame of every page: head, style, script, and the policy under which a browser shows it.

Knows the two files beside this one, and their hashes. Must not know the facts of a page. A page
loads nothing, from kmproxy or from elsewhere, and runs only the script of this frame.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from kmproxy.status.markup import Markup, element, join

NO_STORE: Final = "no-store"


@dataclass(frozen=True, slots=True)
class Frame:
    """The style and the script of every page, and the headers that allow no others."""

    style: Markup
    script: Markup
    headers: Mapping[str, str]

    def page(self, title: str, body: Markup) -> bytes:
        """A whole HTML document."""
        head = join(
            (
                element("meta", charset="utf-8"),
                element("meta", name="viewport", content="width=device-width, initial-scale=1"),
                element("meta", name="color-scheme", content="light dark"),
                element("link", rel="icon", href="data:,"),
                element("title", title),
                element("style", self.style),
            )
        )
        content = join((body, element("script", self.script)))
        page = element("html", element("head", head), element("body", content), lang="en")
        return b"<!doctype html>\n" + page.encode(errors="replace") + b"\n"


@cache
def frame() -> Frame:
    """The frame. Its files are read once, when the first page is asked for."""
    style, script = (_read(name) for name in ("page.css", "page.js"))
    policy = (
        "default-src 'none'",
        f"style-src '{_hash(style)}'",
        f"script-src '{_hash(script)}'",
        "connect-src 'self'",  # the script asks for the page again
        "img-src data:",  # the empty icon: without it, browsers ask for /favicon.ico
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
    headers = {
        "Content-Security-Policy": "; ".join(policy),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": NO_STORE,
        "Vary": "Accept",
    }
    return Frame(style, script, headers)


def _read(name: str) -> Markup:
    return Markup(Path(__file__).with_name(name).read_text("utf-8").strip())


def _hash(source: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
