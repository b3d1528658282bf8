"""A page as a browser reads it."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "input"}


class Page(HTMLParser):
    """Elements, attributes and text of a page. Every element must be closed where it was opened."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self._texts, self._open = [], [], [], []
        self.feed(html)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] not in (["style"], ["script"]):
            self._texts.append(data)

    def of(self, tag, attribute):
        """The values of an attribute of all elements with a name."""
        return [value for each, name, value in self.attributes if (each, name) == (tag, attribute)]


def whole(steps):
    """The value of a generator that makes something in steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
