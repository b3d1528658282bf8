"""Builds HTML in which every text is escaped.

Knows elements, attributes and text. Must not know what is shown. Only `Markup` is taken as HTML.
Every other text is escaped, and its control characters and changes of the text's direction are
spelled out, so a value from the cluster can neither become an element nor imitate other text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from html import escape
from typing import Final

from kmproxy.errors import one_line


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = str | Markup | None
"""A text, an element, or nothing."""

EMPTY: Final = frozenset({"input", "meta", "link"})
"""Elements without an end tag."""


_NOT_PLAIN = re.compile("[^ !#-%(-;=?-~]")
"""Everything but printable ASCII without the five characters of HTML."""


def text(value: str) -> str:
    """A text, escaped for content and for attributes in double quotes. Markup stays as it is."""
    if type(value) is Markup or not _NOT_PLAIN.search(value):
        return value
    return escape(one_line(value))


def join(children: Iterable[Child]) -> Markup:
    """Children one after the other."""
    return Markup("".join([text(each) for each in children if each is not None]))


def element(tag: str, *children: Child, **attributes: str | bool | None) -> Markup:
    """An element. An attribute that is None or False is left out, and True has no value.

    A trailing underscore of an attribute's name is dropped, and the others become hyphens.
    """
    begin = f"<{tag}"
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        written = _attribute(name)
        begin += f" {written}" if value is True else f' {written}="{text(value)}"'
    if tag in EMPTY:
        return Markup(f"{begin}>")
    content = "".join([text(each) for each in children if each is not None])
    return Markup(f"{begin}>{content}</{tag}>")


@cache
def _attribute(name: str) -> str:
    return name.rstrip("_").replace("_", "-")
