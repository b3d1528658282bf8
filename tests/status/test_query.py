"""The query of the page, and the choice between HTML and JSON."""

from urllib.parse import urlencode

import pytest

from kmproxy.exposition.selection import QueryError
from kmproxy.status.namespaces import NamespaceQuery
from kmproxy.status.query import KEYS, PageQuery, read_query, wanted


def test_a_query():
    """Each key is read, and `keys` gives back what was asked."""
    keys = {
        "q": "pay",
        "by": "cc",
        "owner": "a&b",
        "missing": "team",
        "sort": "owner",
        "page": "2",
        "node": "n1",
    }
    query = read_query(urlencode(keys), ("team", "cc"))
    asked = NamespaceQuery(text="pay", by="cc", owner="a&b", missing="team", sort="owner", page=2)
    assert query == PageQuery(asked, "n1")
    assert query.keys == keys
    assert read_query("", ()) == PageQuery(NamespaceQuery())
    assert read_query("q=&page=&sort=", ()).keys == {}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("x=1", ", ".join(KEYS)),
        ("q=1&q=2", "'q' may be given once"),
        ("page=0", "from 1 to"),
        ("page=-1", "from 1 to"),
        ("page=1e3", "from 1 to"),
        ("page=%D9%A1", "from 1 to"),
        ("page=" + "9" * 500, "from 1 to"),
        ("sort=size", "one of name, owner"),
        ("missing=nothing", "a label of the rules: team"),
        ("by=nothing", "a label of the rules: team"),
        ("q=" + "a" * 1025, "over 1024 characters"),
    ],
)
def test_a_wrong_query(query, says):
    """The error names what is known."""
    with pytest.raises(QueryError) as error:
        read_query(query, ("team",))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("accept", "answer"),
    [
        ("", "html"),
        ("*/*", "html"),
        ("application/json", "json"),
        ("Application/JSON; charset=utf-8", "json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "html"),
        ("application/json, text/html", "html"),
        ("application/json, text/html;q=0.9", "json"),
        ("text/html;q=0, */*", "json"),
        ("application/json;q=0", "html"),
        ("application/json;q=x", "html"),
        ("application/*", "json"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5,*/*;q=0.1", "html"),
        (";;,q=1,=", "html"),
    ],
)
def test_html_or_json(accept, answer):
    """JSON only for a caller that prefers it."""
    assert wanted(accept) == answer
