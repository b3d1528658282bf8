"""The page as HTML: which facts it shows, and that no fact becomes markup."""

import base64
import hashlib
import re

import msgspec
import pytest

from kmproxy.status import page, words
from kmproxy.status.document import frame
from kmproxy.status.markup import element
from kmproxy.status.model import (
    Certificate,
    Labels,
    Missing,
    NamespaceRow,
    Namespaces,
    Nodes,
    Owner,
    Process,
    Rule,
    Scrape,
    Setting,
    Snapshot,
    Status,
)
from kmproxy.status.namespaces import NamespaceQuery
from kmproxy.status.process_section import DOCS
from kmproxy.status.query import PageQuery
from tests.support.documents import PAGES, ROOT, anchors
from tests.support.pages import Page, whole

EVIL = "<script>alert('\"&')</script>"
PATH = "/api/v1/nodes/{node}/proxy/metrics/cadvisor"
WELL = Scrape(path="/metrics/cadvisor", source="https://node-1:10250", state="well", code="200",
              ended=4.2, took=0.18, samples=1000, labelled=750, history="+++")  # fmt: skip
BAD = Scrape(path="/metrics", source="https://node-1:10250", state="failing", code="502", ended=9.0,
             took=0.002, samples=0, labelled=0, error="the kubelet refused", error_ago=9.0,
             failing_for=130.0, history="+--")  # fmt: skip
NEVER = Scrape(path="/metrics/probes", source="", state="never")
SPACES = Namespaces(
    total=312, found=312, page=1, pages=7, by="team",
    missing=[Missing(label="team", count=20, first=["default", "kube-system"]),
             Missing(label="cc", count=0, first=[])],
    owners=[Owner(name="payments", count=9), Owner(name="a/b & c", count=2)], owners_total=5,
    rows=[NamespaceRow(name="pay", labels={"team": "payments", "cc": "7", "x": "y"}, more=2, lacking=[]),
          NamespaceRow(name="default", labels={"cc": "none"}, more=0, lacking=["team", "cc"])],
)  # fmt: skip
STATUS = Status(
    health="well",
    problem=None,
    scrapes=[WELL, NEVER],
    nodes=Nodes(total=5000, failing=0, found=5000, rows=[msgspec.structs.replace(WELL, path=PATH, node="n-1")]),
    upstreams=[msgspec.structs.replace(WELL, path="/upstreams/ksm/metrics")],
    namespaces=SPACES,
    labels=Labels(confirmed=4.4, restored=False, trouble=None, on_conflict="keep",
                  rules=[Rule(source="label", key="team", name="team", default=None),
                         Rule(source="annotation", key="own/er", name="cc", default="nobody")],
                  snapshot=Snapshot(file="/data/labels", written=61.0, read_errors=0, write_errors=3)),
    paths=["/sd/pods?node={node}", "/sd/nodes"],
    certificates=[Certificate(name="serving", ends_in=62 * 86400.0)],
    process=Process(version="1.2.3", revision="abc123", up=7300.0, telemetry="0.0.0.0:8081"),
    settings=[Setting(name="listen", value=":8080", default=True),
              Setting(name="label", value="team\nown/er=cc", default=False)],
)  # fmt: skip


def html(query=None, **changes):
    """The page of a status with these changed facts."""
    status = msgspec.structs.replace(STATUS, **changes)
    body = whole(page.body(status, query or PageQuery(NamespaceQuery())))
    return frame().page(page.title(status), body).decode()


def shown(query=None, **changes):
    """The same as a browser reads it."""
    return Page(html(query, **changes))


def test_the_page_is_a_whole_document():
    """It declares its type, encoding and language, and has one heading and one main part."""
    text = html()
    assert text.startswith("<!doctype html>")
    assert text.rstrip().endswith("</html>")
    seen = Page(text)
    assert ("meta", "charset", "utf-8") in seen.attributes
    assert ("html", "lang", "en") in seen.attributes
    for tag in ("h1", "main", "header", "footer", "title"):
        assert seen.tags.count(tag) == 1
    assert len(seen.of("section", "id")) == len(set(seen.of("section", "id"))) == 7


@pytest.mark.parametrize(
    "fact",
    ["Every scrape is well", "kmproxy 1.2.3", "2 of 2", "4 s ago", "180 ms", "1,000", "75 %",
     "https://node-1:10250", "0 of 5,000 endpoints failing", "n-1", "… and 4,999 that are not worse",
     "/upstreams/ksm/metrics", "Never scraped /metrics/probes", "312 namespaces", "20 without team",
     "20 namespaces without team", "Every namespace has a value of its own for cc", "payments 9",
     "and 3 more with fewer", "none (default none)", 'x="y" and 2 more', "Page 1 of 7", "62 d",
     "Snapshot written 1 min ago, 3 failed writes, 0 failed reads", "annotation own/er nobody",
     "are kept", "Revision abc123", "2 h 1 min", "port 8081, /metrics", "/sd/nodes", "own/er=cc",
     "1 of 2 settings differ", "3 scrapes, 0 failed"],
)  # fmt: skip
def test_every_fact_is_shown(fact):
    """Scrapes, nodes, upstreams, namespaces, labels, the process and its settings."""
    seen = shown()
    assert fact in " ".join([seen.text, *seen.of("svg", "aria-label")])


@pytest.mark.parametrize(
    ("changes", "said", "kind"),
    [
        ({"health": "failing", "scrapes": [WELL, BAD]}, "1 of 3 scraped paths failing /metrics the kubelet refused", "failing"),
        ({"health": "failing", "nodes": Nodes(total=9, failing=2, found=9, rows=[])}, "2 endpoints of nodes failing", "failing"),
        ({"health": "unready", "problem": "namespaces are not loaded yet: 403"}, "no metrics are served namespaces are not loaded yet: 403", "failing"),
        ({"health": "waiting", "scrapes": [NEVER], "upstreams": []}, "nothing was scraped yet", "never"),
    ],
)  # fmt: skip
def test_the_first_words(changes, said, kind):
    """The heading says what is wrong, and its banner has the colour of it."""
    seen = shown(**changes)
    assert said in seen.text
    assert f"banner {kind}" in seen.of("div", "class")
    assert shown().text.count(said) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"certificates": [Certificate(name="serving", ends_in=-5.0)]}, "Certificate ends in ended"),
        ({"labels": msgspec.structs.replace(STATUS.labels, restored=True)}, "the snapshot, until the first list"),
        ({"labels": msgspec.structs.replace(STATUS.labels, confirmed=None)}, "Labels confirmed not yet"),
        ({"labels": msgspec.structs.replace(STATUS.labels, on_conflict="overwrite")}, "are overwritten"),
        ({"labels": msgspec.structs.replace(STATUS.labels, trouble="503")}, "Namespaces: 503"),
        ({"labels": msgspec.structs.replace(STATUS.labels, rules=[])}, "samples are served as the kubelet sends them"),
        ({"labels": msgspec.structs.replace(STATUS.labels, rules=[Rule(source="label", key="*", name="", default=None)])}, "its own name every label"),
        ({"labels": msgspec.structs.replace(STATUS.labels, rules=[Rule(source="label", key="", name="a", default="b")])}, "only the default b"),
        ({"scrapes": [msgspec.structs.replace(BAD, state="well", history="-+")]}, "the kubelet refused 9 s ago"),
        ({"scrapes": [msgspec.structs.replace(BAD, state="left", code="gone", history="~")]}, "1 scrape, 0 failed, 1 cut"),
        ({"scrapes": [msgspec.structs.replace(WELL, caller="ann")]}, "for ann"),
    ],
)  # fmt: skip
def test_other_states(changes, said):
    """Each state has words of its own."""
    for seen, expected in ((shown(**changes), True), (shown(), False)):
        assert (said in " ".join([seen.text, *seen.of("svg", "aria-label")])) is expected


def test_a_tenants_page_lacks_what_is_not_its_own():
    """No process and no settings."""
    seen = shown(process=None, settings=None, nodes=None, certificates=[])
    assert "settings" not in seen.of("section", "id")
    assert "1.2.3" not in seen.text
    assert "Your own scrapes." in seen.text


def test_a_search_is_kept():
    """Its form, its links and its words hold what was asked."""
    asked = NamespaceQuery(text="p&q", by="team", owner="a/b & c", missing="cc", sort="owner")
    seen = shown(PageQuery(asked, node="n-1"))
    assert "p&q" in seen.of("input", "value")
    assert "without cc with team=a/b & c with “p&q” · Show all" in seen.text
    keys = "q=p%26q&by=team&owner=a%2Fb%20%26%20c&missing=cc&sort=owner&node=n-1&page=2"
    assert f"?{keys}#found-namespaces" in seen.of("a", "href")
    assert "?by=team&owner=a%2Fb%20%26%20c&node=n-1#found-namespaces" in seen.of("a", "href")


def test_links():
    """A path with a placeholder has no link; a node's path has its name."""
    links = shown().of("a", "href")
    assert "/metrics/cadvisor" in links
    assert "/api/v1/nodes/n-1/proxy/metrics/cadvisor" in links
    assert not any("{" in each for each in links)


def hostile(value, text):
    """The same value with every text in it replaced."""
    match value:
        case str():
            return text
        case list():
            return [hostile(each, text) for each in value]
        case dict():
            return {text + name: text for name in value}
        case msgspec.Struct():
            kept = {"state", "health", "history", "pages", "page"}
            fields = {
                name: each if name in kept else hostile(each, text)
                for name in value.__struct_fields__
                for each in [getattr(value, name)]
            }
            return type(value)(**fields)
    return value


@pytest.mark.parametrize(
    "text",
    [
        EVIL,
        '"><img src=x onerror=alert(1)>',
        "' onmouseover='alert(1)",
        "</style></script></title><script>",
        "javascript:alert(1)",
        "//elsewhere.example/x",
        "{facts} {0} }} %s",
        "a\0b\x1b[31m\u202egnp.exe\u2066\ud800",
        "&lt;b&gt;&amp;&#x3c;",
        "\N{SNOWMAN}" * 400,
    ],
)
def test_nothing_shown_is_markup(text):
    """Every text of every fact replaced: no new element, no new attribute, no foreign address."""
    changed = hostile(STATUS, text)
    changed = msgspec.structs.replace(changed, problem=text, health="unready")
    query = PageQuery(NamespaceQuery(text=text, owner=text, missing=text, by=text), node=text)
    document = frame().page(page.title(changed), whole(page.body(changed, query))).decode()
    seen, usual = Page(document), shown(problem="x", health="unready")
    assert set(seen.tags) <= set(usual.tags) | {"span"}
    names = {(tag, name) for tag, name, _ in seen.attributes}
    usual_names = {(tag, name) for tag, name, _ in usual.attributes}
    assert names <= usual_names | {
        ("a", "aria-current"),
        ("option", "selected"),
        ("p", "role"),
        ("p", "class"),
        ("input", "value"),
        ("span", "class"),
    }
    assert not re.search("[\x00-\x08\x1b\u202a-\u202e\u2066-\u2069]", document)
    for target in seen.of("a", "href"):
        allowed = target.startswith(("?", "#", "./", "/", DOCS))
        assert allowed, target
        assert not target.startswith("//"), target
    assert document.count("<script>") == document.count("<style>") == 1


def test_the_links_to_the_documentation():
    """Each page and each heading exists, where the alert rules have their runbooks, too."""
    found = [each.removeprefix(f"{DOCS}/") for each in shown().of("a", "href") if DOCS in each]
    assert len(found) >= 5
    for each in found:
        path, _, anchor = each.partition("#")
        assert not anchor or anchor in anchors(f"docs/{path}")
        assert f"docs/{path}" in PAGES
    rules = (ROOT / "manifests/components/rules/kube-state-metrics.rules.yaml").read_text("utf-8")
    assert f"runbook_url: {DOCS}/runbooks.md#" in rules


def test_nothing_comes_from_elsewhere():
    """No image, frame or foreign resource; the only script and style are those of the policy."""
    seen, text = shown(), html()
    assert not set(seen.tags) & {"img", "iframe", "object", "embed", "base", "video"}
    assert not any(
        name.startswith("on") or name in {"src", "style"} for _, name, _ in seen.attributes
    )
    assert seen.of("link", "href") == ["data:,"]
    policy = frame().headers["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy
    for tag in ("style", "script"):
        source = re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
        assert "url(" not in source
        assert "@import" not in source
        assert "//" not in re.sub(r"^ *//.*$|http://\$", "", source, flags=re.MULTILINE)


def test_the_page_is_the_same_as_json():
    """The JSON of the facts gives the facts back."""
    text = msgspec.json.encode(STATUS)
    assert msgspec.json.decode(text, type=Status) == STATUS


def test_an_element():
    """Attributes are escaped; None and False leave one out; a trailing underscore is dropped."""
    made = element("p", "<", class_='"', data_x="é", hidden=True, id=None, role=False)
    assert made == '<p class="&quot;" data-x="é" hidden>&lt;</p>'


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (words.age(0.4), "0 s"), (words.age(59.9), "59 s"), (words.age(60), "1 min"),
        (words.age(3600), "1 h"), (words.age(3661), "1 h 1 min"), (words.age(90000), "1 d 1 h"),
        (words.ago(None), "never"), (words.ago(0.2), "just now"), (words.ago(3), "3 s ago"),
        (words.duration(0.0042), "4.2 ms"), (words.duration(0.18), "180 ms"),
        (words.duration(1.4), "1.40 s"), (words.duration(75), "1 min"),
        (words.share(0), "0 %"), (words.share(1), "100 %"), (words.share(0.5), "50 %"),
        (words.share(0.9999), "99.9 %"), (words.share(0.0001), "0.1 %"), (words.share(0.994), "99.4 %"),
        (words.several(1, "path"), "1 path"), (words.several(1200, "path"), "1,200 paths"),
        (words.size(12), "12 B"), (words.size(3500), "3.4 KiB"), (words.size(16 << 20), "16.0 MiB"),
        (words.size(5 << 40), "5120.0 GiB"),
    ],
)  # fmt: skip
def test_words(made, expected):
    """Numbers as a person reads them: never 100 % that is not all."""
    assert made == expected
