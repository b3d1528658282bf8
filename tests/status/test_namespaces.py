"""Who owns what: owners, namespaces without one, search, order and pages."""

import pytest

from kmproxy.config.label_rules import LabelRule
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels.label_map import LabelMap
from kmproxy.status.namespaces import (
    MAX_LABELS,
    MAX_VALUE,
    MOST_OWNERS,
    PAGE_ROWS,
    STEP,
    NamespaceQuery,
    find_namespaces,
)
from tests.support.pages import whole

TEAM = LabelRule("label", "team", "team")
COST = LabelRule("annotation", "cost", "cc", "none")
SPACES = [
    ObjectMeta("cart", {"team": "checkout"}, {"cost": "7"}),
    ObjectMeta("default"),
    ObjectMeta("pay", {"team": "payments"}),
    ObjectMeta("pay-eu", {"team": "payments"}, {"cost": "8"}),
    ObjectMeta("zoo", {"team": ""}),
]


def label_map(spaces=SPACES, rules=(TEAM, COST)):
    """A map of these namespaces."""
    labels = LabelMap(rules)
    labels.replace(spaces, 0.0)
    return labels


def found(labels=None, seen=None, **query):
    """What a query finds."""
    return whole(find_namespaces(labels or label_map(), NamespaceQuery(**query), seen))


def names(result):
    """The names on the page."""
    return [row.name for row in result.rows]


def test_the_ones_without_an_owner():
    """For each rule, the namespaces without a value of their own; a default is none."""
    team, cost = found().missing
    assert (team.label, team.count, team.first) == ("team", 2, ["default", "zoo"])
    assert (cost.label, cost.count, cost.first) == ("cc", 3, ["default", "pay", "zoo"])
    assert names(found(missing="cc")) == ["default", "pay", "zoo"]


def test_owners():
    """Owners by the first rule or by another one, the one with the most namespaces first."""
    result = found()
    assert (result.by, [(each.name, each.count) for each in result.owners]) == (
        "team",
        [("payments", 2), ("checkout", 1)],
    )
    assert [(each.name, each.count) for each in found(by="cc").owners] == [("7", 1), ("8", 1)]
    assert names(found(owner="payments")) == ["pay", "pay-eu"]
    assert names(found(by="cc", owner="none")) == []
    assert names(found(owner="nobody")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pay", ["pay", "pay-eu"]),
        ("PAYments", ["pay", "pay-eu"]),
        ("checkout", ["cart"]),
        ("team", []),
        ('="', []),
        ("8", ["pay-eu"]),
    ],
)
def test_search(text, expected):
    """In names and values, in any case; never in the names of labels."""
    assert names(found(text=text)) == expected


def test_order():
    """By owner, the ones without an owner come first."""
    assert names(found()) == ["cart", "default", "pay", "pay-eu", "zoo"]
    assert names(found(sort="owner")) == ["default", "zoo", "cart", "pay", "pay-eu"]


def test_pages():
    """Each namespace is on one page. A page after the last is the last."""
    labels = label_map([ObjectMeta(f"n{number:03}") for number in range(2 * PAGE_ROWS + 1)])
    pages = [found(labels, page=number) for number in (1, 2, 3)]
    assert [len(each.rows) for each in pages] == [PAGE_ROWS, PAGE_ROWS, 1]
    assert len({name for each in pages for name in names(each)}) == 2 * PAGE_ROWS + 1
    assert found(labels, page=99).page == 3


def test_a_tenant_sees_its_own():
    """Nothing in the answer depends on namespaces of others."""
    mine = ["pay", "zoo", "gone"]
    worlds = [label_map(), label_map([SPACES[2], SPACES[4]])]
    for query in ({}, {"text": "c"}, {"owner": "checkout"}, {"missing": "team"}, {"sort": "owner"}):
        one, other = (found(labels, seen=mine, **query) for labels in worlds)
        assert one == other
        assert set(names(one)) <= {"pay", "zoo"}
    assert found(seen=mine).total == 2
    assert found(seen=[]).total == 0


def test_a_deleted_namespace_is_not_shown():
    """Its labels stay for its last scrapes only."""
    labels = label_map()
    labels.delete("cart", 1.0)
    assert names(found(labels)) == ["default", "pay", "pay-eu", "zoo"]
    assert [each.name for each in found(labels).owners] == ["payments"]


def test_a_row_is_bounded():
    """Many and long labels are cut, and the rest is counted."""
    many = {f"l{number}": "x" * 900 for number in range(MAX_LABELS + 2)}
    labels = label_map([ObjectMeta("n", many)], [LabelRule("label", "*", "")])
    (row,) = found(labels).rows
    assert (len(row.labels), row.more) == (
        len(row.labels),
        len(many) - len(row.labels) - _left_out(labels),
    )
    assert {len(value) for value in row.labels.values()} == {MAX_VALUE}
    assert found(labels).by == ""
    assert found(labels).owners == []


def _left_out(labels):
    return labels.left_out("namespace")


def test_without_rules():
    """No rule, no owner: the namespaces are still found."""
    result = found(label_map(rules=()))
    assert (result.total, result.missing, result.owners) == (5, [], [])


def test_values_that_look_like_labels():
    """A value with quotes, commas and an equals sign is one value."""
    evil = 'a",team="b\\'
    labels = label_map([ObjectMeta("n", {}, {"note": evil, "team": "real"})],
                       [LabelRule("annotation", "note", "note"), LabelRule("annotation", "team", "team")])  # fmt: skip
    assert [each.name for each in found(labels, by="team").owners] == ["real"]
    assert [each.name for each in found(labels, by="note").owners] == [evil]
    assert names(found(labels, by="note", owner=evil)) == ["n"]


def test_many_namespaces_are_read_in_steps():
    """Scrapes are served between the steps, and one page stays one page."""
    spaces = [ObjectMeta(f"n{number}", {"team": f"t{number}"}) for number in range(5 * STEP)]
    labels = label_map(spaces, [TEAM])
    for query, steps in (({}, 6), ({"text": "t7"}, 30)):
        turns = list(find_namespaces(labels, NamespaceQuery(**query)))
        assert len(turns) > steps
    result = found(labels)
    assert (len(result.rows), len(result.owners), result.owners_total) == (
        PAGE_ROWS,
        MOST_OWNERS,
        5 * STEP,
    )
