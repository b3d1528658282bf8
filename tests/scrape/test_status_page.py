"""The status page: it shows every fact, and runs or loads nothing."""

import dataclasses
from html.parser import HTMLParser

import pytest

from kmproxy.config.label_rules import LabelRule
from kmproxy.scrape.status_page import Status, status_page

STATUS = Status(
    version="1.2.3",
    ready=True,
    trouble=None,
    namespaces=312,
    sync_age=4.4,
    restored=False,
    rules=(LabelRule("label", "team", "squad"), LabelRule("annotation", "own/er", "owner", "nobody")),
    on_conflict="keep",
    paths=("/metrics/cadvisor", "/api/v1/nodes/{node}/proxy/metrics"),
    source="https://node-1:10250",
)  # fmt: skip
EVIL = "<script>alert('\"&')</script>"


class Page(HTMLParser):
    """A page as a browser reads it: elements, attributes and text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.texts = [], [], []
        self.feed(html)
        self.close()
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.texts.append(data)

    def links(self):
        """The targets of its links."""
        return [value for tag, name, value in self.attributes if (tag, name) == ("a", "href")]


def page(**changes):
    """The page of a status with these changed facts."""
    return Page(status_page(dataclasses.replace(STATUS, **changes)))


def test_the_page_is_a_whole_document():
    """The page declares its type, encoding and language, and has one heading."""
    html = status_page(STATUS)
    assert html.startswith("<!doctype html>")
    assert html.rstrip().endswith("</html>")
    assert ("meta", "charset", "utf-8") in Page(html).attributes
    assert Page(html).tags.count("h1") == 1
    assert "{{" not in html


@pytest.mark.parametrize(
    "fact",
    ["kmproxy 1.2.3", "ready", "Namespaces 312", "4 s ago", "Trouble none", "https://node-1:10250",
     "are kept", "label team squad", "annotation own/er owner nobody", "/metrics/cadvisor"],
)  # fmt: skip
def test_every_fact_is_shown(fact):
    """The page shows the state, the age of the labels, the rules, the source and the paths."""
    assert fact in page().text


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"ready": False}, "not ready"),
        ({"sync_age": None}, "never"),
        ({"sync_age": 0.0}, "0 s ago"),
        ({"trouble": "the API server answered 503"}, "Trouble the API server answered 503"),
        ({"on_conflict": "overwrite"}, "are overwritten"),
        ({"rules": ()}, "none: samples are served as the kubelet sends them"),
        ({"rules": (LabelRule("label", "*", ""),)}, "every label its own name"),
        ({"rules": (LabelRule("label", "", "team", "x"),)}, "no key, only the default team x"),
    ],
)
def test_other_states(changes, shown):
    """Each state has its own words, different from those of the usual state."""
    assert shown in page(**changes).text
    assert shown not in page().text


def test_the_colour_tells_the_state():
    """The colour shows whether the daemon is ready."""
    assert status_page(STATUS) != status_page(dataclasses.replace(STATUS, ready=False))
    assert "#1a7f37" not in status_page(dataclasses.replace(STATUS, ready=False))


def test_what_can_be_opened_is_a_link():
    """A path with a placeholder is shown without a link."""
    shown = page()
    assert shown.links() == ["/metrics/cadvisor"]
    assert "/api/v1/nodes/{node}/proxy/metrics" in shown.text


@pytest.mark.parametrize(
    "changes",
    [
        {"version": EVIL},
        {"trouble": EVIL},
        {"source": EVIL},
        {"paths": (EVIL,)},
        {"paths": (EVIL + "{node}",)},
        {"rules": (LabelRule("label", EVIL, "a"),)},
        {"rules": (LabelRule("label", "a", EVIL),)},
        {"rules": (LabelRule("label", "a", "a", EVIL),)},
    ],
)
def test_nothing_shown_is_markup(changes):
    """Facts are shown as text. They create no element and no attribute."""
    shown, usual = page(**changes), page()
    assert EVIL in "".join(shown.texts)
    assert set(shown.tags) <= set(usual.tags)
    assert {name for _, name, _ in shown.attributes} <= {name for _, name, _ in usual.attributes}


def test_braces_are_text():
    """A fact that looks like a placeholder stays as it is."""
    assert "{facts} {0} }}" in page(trouble="{facts} {0} }}").text


def test_nothing_comes_from_elsewhere():
    """No script, image, frame or foreign address: the page works under the strictest policy."""
    shown = page()
    assert not set(shown.tags) & {"script", "img", "iframe", "link", "object", "form", "base"}
    assert not any(name.startswith("on") or name == "src" for _, name, _ in shown.attributes)
    html = status_page(dataclasses.replace(STATUS, source="here"))
    assert "//" not in html
    assert "url(" not in html
    assert "@import" not in html
