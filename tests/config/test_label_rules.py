"""From a namespace's metadata to the labels of its samples, and how long they last."""

import pytest

from kmproxy.config.label_rules import LabelRule, label_name, name_problem, parse_rules
from kmproxy.exposition.enricher import Enricher
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels.label_map import LabelMap


def rules(labels=(), annotations=(), defaults=()):
    """The rules of valid specifications."""
    made, problems = parse_rules(labels, annotations, defaults)
    assert problems == []
    return made


def rendered(namespace, labels=(), annotations=(), defaults=()):
    """The labels of a namespace's samples under these rules."""
    return LabelMap(rules(labels, annotations, defaults)).render(namespace).labels.decode()


def space(name="shop", /, **labels):
    """A namespace with labels."""
    return ObjectMeta(name, labels)


@pytest.fixture
def teams():
    """A map of three namespaces, listed at time 1000."""
    labels = LabelMap(rules(["team"]))
    labels.replace([space("a", team="x"), space("b", team="y"), space("c")], now=1000.0)
    return labels


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("team", "team"),
        ("Team_1", "Team_1"),
        ("app.kubernetes.io/part-of", "app_kubernetes_io_part_of"),
        ("cost-centre", "cost_centre"),
        ("a--b", "a__b"),
        ("9lives", "_9lives"),
        ("1", "_1"),
        ("9.a", "_9_a"),
        ("caf\u00e9", "caf_"),
        ("\u0663x", "_x"),
        ("a:b c", "a_b_c"),
    ],
)
def test_a_name_is_made_of_a_key(key, name):
    """Every character outside [a-zA-Z0-9_] becomes `_`. A leading digit gets one before it."""
    assert label_name(key) == name
    assert rules([key]) == (LabelRule("label", key, name),)


@pytest.mark.parametrize("name", ["team", "T", "_a", "a1", "exported_namespace", "x__y"])
def test_a_good_name(name):
    """A name that matches [a-zA-Z_][a-zA-Z0-9_]* is valid."""
    assert name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    ["", "1a", "a-b", "a.b", "a b", "__name__", "__x", "namespace", "\u00e9", "a\n", "a\u0661"],
)
def test_a_bad_name(name):
    """Other names, names reserved by Prometheus and `namespace` are refused with the reason."""
    assert repr(name) in name_problem(name)


@pytest.mark.parametrize(
    ("labels", "annotations", "defaults", "made"),
    [
        ((), (), (), ()),
        (["team"], (), (), [("label", "team", "team", "")]),
        (["a.b/c=tier"], (), (), [("label", "a.b/c", "tier", "")]),
        (["b", "a"], (), (), [("label", "b", "b", ""), ("label", "a", "a", "")]),
        (["b"], ["a"], (), [("label", "b", "b", ""), ("annotation", "a", "a", "")]),
        (["team"], ["team=owner"], (), [("label", "team", "team", ""), ("annotation", "team", "owner", "")]),
        (["team"], (), ["team=none"], [("label", "team", "team", "none")]),
        (["x=team"], (), ["team=a=b"], [("label", "x", "team", "a=b")]),
        (["team"], (), ["team="], [("label", "team", "team", "")]),
        (["*"], (), (), [("label", "*", "", "")]),
        (["*"], ["*"], (), [("label", "*", "", ""), ("annotation", "*", "", "")]),
        (["kubernetes.io/metadata.name"], (), (), [("label", "kubernetes.io/metadata.name", "kubernetes_io_metadata_name", "")]),
        (["namespace=ns"], (), (), [("label", "namespace", "ns", "")]),
        (["-=x"], (), (), [("label", "-", "x", "")]),
    ],
)  # fmt: skip
def test_rules_are_read(labels, annotations, defaults, made):
    """KEY or KEY=NAME, in order, labels before annotations."""
    assert rules(labels, annotations, defaults) == tuple(LabelRule(*rule) for rule in made)


@pytest.mark.parametrize(
    ("labels", "annotations", "defaults", "about"),
    [
        ([""], (), (), ["''"]),
        (["=team"], (), (), ["'=team'"]),
        (["team="], (), (), ["'team='"]),
        (["team=a-b"], (), (), ["'a-b'"]),
        (["team=a=b"], (), (), ["'a=b'"]),
        (["team=__team"], (), (), ["'__team'"]),
        (["team=namespace"], (), (), ["'namespace'"]),
        (["namespace"], (), (), ["'namespace'"]),
        (["_.a"], (), (), ["'__a'"]),
        (["*=all"], (), (), ["'*'"]),
        (["team", "team"], (), (), ["'team'"]),
        (["a.b", "a-b"], (), (), ["'a_b'"]),
        (["a", "b=a"], (), (), ["'a'"]),
        (["team"], ["team"], (), ["'team'"]),
        (["*", "*"], (), (), ["'*'"]),
        (["team"], (), ["tier=none"], ["tier=none"]),
        ((), (), ["team=none"], ["team=none"]),
        (["team"], (), ["team"], ["'team'"]),
        (["team"], (), ["=none"], ["''"]),
        (["team"], (), ["team=a", "team=b"], ["team=b"]),
        (["*"], (), ["__x=a"], ["'__x'"]),
        (["a=1", "b=", "c"], ["c"], ["d"], ["'1'", "'b='", "'c'", "'d'"]),
    ],
)
def test_bad_rules(labels, annotations, defaults, about):
    """One line for each problem, with the wrong text."""
    problems = parse_rules(labels, annotations, defaults)[1]
    assert len(problems) == len(about)
    for part in about:
        assert any(part in problem for problem in problems)
    assert not any("\n" in problem for problem in problems)


META = "kubernetes.io/metadata.name"
FULL = ObjectMeta("n", {"team": "x", "tier": "y", META: "n"}, {"owner": "o", "team": "z"})


@pytest.mark.parametrize(
    ("labels", "annotations", "defaults", "expected"),
    [
        (["team"], (), (), ',team="x"'),
        (["tier", "team"], (), (), ',tier="y",team="x"'),
        (["team=t", "tier"], (), (), ',t="x",tier="y"'),
        (["absent"], (), (), ""),
        (["absent", "team"], (), (), ',team="x"'),
        (["absent"], (), ["absent=none"], ',absent="none"'),
        (["team"], (), ["team=none"], ',team="x"'),
        ((), ["team"], (), ',team="z"'),
        (["team"], ["owner", "team=by"], (), ',team="x",owner="o",by="z"'),
        ([META], (), (), ',kubernetes_io_metadata_name="n"'),
        (["*"], (), (), ',team="x",tier="y"'),
        (["tier", "*"], (), (), ',tier="y",team="x"'),
        (["*", "tier"], (), (), ',team="x",tier="y"'),
        (["*", "absent=team"], (), (), ',tier="y"'),
        (["*", "tier=team"], (), (), ',tier="y",team="y"'),
        ((), ["*"], (), ',owner="o",team="z"'),
        (["*"], ["*"], (), ',team="x",tier="y",owner="o"'),
        (["team"], ["*"], (), ',team="x",owner="o"'),
        (["*"], (), ["team=none", "zone=here"], ',team="x",tier="y",zone="here"'),
    ],
)  # fmt: skip
def test_labels_are_rendered(labels, annotations, defaults, expected):
    """In the order of the rules, without absent ones. Explicit names have precedence over *."""
    assert rendered(FULL, labels, annotations, defaults) == expected


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"b": "1", "a": "2"}, ',a="2",b="1"'),
        ({"x-y": "1", "x.y": "2", "x_y": "3"}, ',x_y="1"'),
        ({"x_y": "3", "x.y": "2"}, ',x_y="2"'),
        ({"x-y": "", "x.y": "2"}, ',x_y="2"'),
        ({"9": "n"}, ',_9="n"'),
        ({META: "n", "a": "1"}, ',a="1"'),
        ({"namespace": "n", "a": "1"}, ',a="1"'),
        ({"__a": "n", "_.b": "n", "a": "1"}, ',a="1"'),
        ({}, ""),
    ],
)
def test_wildcard(metadata, expected):
    """Every label in sorted order. The first key of a name counts, and no reserved name appears."""
    assert rendered(ObjectMeta("n", metadata), ["*"]) == expected


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_value_is_none(value):
    """An empty label counts as absent, and gets the default."""
    metadata = {} if value is None else {"team": value}
    assert rendered(ObjectMeta("n", metadata), ["team"]) == ""
    assert rendered(ObjectMeta("n", metadata), ["*"]) == ""
    assert rendered(ObjectMeta("n", metadata), ["team"], (), ["team=none"]) == ',team="none"'


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("plain", "plain"),
        ('"', r"\""),
        ("\\", r"\\"),
        ("\n", r"\n"),
        ('\\n"\n', r"\\n\"\n"),
        ("}, =#{", "}, =#{"),
        ("tab\tcr\r", "tab\tcr\r"),
        ("\u00fcn\u00efc\u00f6de \U0001f680", "\u00fcn\u00efc\u00f6de \U0001f680"),
        ("\ud800", "?"),
    ],
)
def test_values_are_escaped(value, escaped):
    """A value is one line of valid UTF-8, with quotes and backslashes escaped."""
    namespace = ObjectMeta("n", {}, {"team": value})
    assert rendered(namespace, (), ["team"]) == f',team="{escaped}"'
    assert rendered(ObjectMeta("n"), ["t"], (), [f"t={value}"]) == f',t="{escaped}"'


def test_a_rendered_value_is_understood_by_the_enricher():
    """The enricher parses a sample with any rendered value."""
    labels = LabelMap(rules((), ["team"]))
    labels.put(ObjectMeta("n", {}, {"team": 'a"b\\c\nd}'}))
    line = Enricher(labels.lookup).feed(b'm{namespace="n"} 1\n')
    again = Enricher(labels.lookup)
    assert again.feed(line) == line
    assert (again.samples, again.unparsed, again.conflicts) == (1, 0, 1)


def test_lookup(teams):
    """A known namespace gets its labels. One without labels, or an unknown one, gets nothing."""
    assert [teams.lookup(name) for name in (b"a", b"b", b"c", b"d")] == [
        b',team="x"', b',team="y"', b"", b"",
    ]  # fmt: skip
    assert len(teams) == 3


def test_namespaces_without_a_value_are_counted():
    """Existing namespaces count, per explicit label. A default is not a value."""
    labels = LabelMap(rules(["team", "*"], ["owner"], ["team=none", "tier=low"]))
    assert labels.names == ("team", "owner")
    labels.replace([space("a", team="x"), space("b", team=""), space("c", tier="y")], now=0.0)
    assert (labels.lacking("team"), labels.lacking("owner")) == (2, 3)
    labels.put(ObjectMeta("b", {"team": "y"}, {"owner": "o"}))
    assert (labels.lacking("team"), labels.lacking("owner")) == (1, 2)
    labels.put(space("a"))
    labels.delete("c", now=0.0)
    assert (labels.lacking("team"), labels.lacking("owner")) == (1, 1)
    labels.replace([space("d", team="x")], now=1.0)
    assert (labels.lacking("team"), labels.lacking("owner")) == (0, 1)


def test_an_unknown_namespace_gets_the_defaults():
    """Before it is listed and after it is forgotten, it has only the defaults."""
    labels = LabelMap(rules(["team", "tier"], (), ["team=none"]))
    assert labels.lookup(b"new") == b',team="none"'
    labels.put(space("new", team="a", tier="b"))
    assert labels.lookup(b"new") == b',team="a",tier="b"'
    labels.delete("new", now=0.0)
    labels.expire(300.0)
    assert labels.lookup(b"new") == b',team="none"'


def test_put_changes_one(teams):
    """A new or changed namespace shows at once. Others stay."""
    teams.put(space("a", team="z"))
    teams.put(space("d", team="new"))
    assert [teams.lookup(name) for name in (b"a", b"b", b"d")] == [
        b',team="z"', b',team="y"', b',team="new"',
    ]  # fmt: skip
    assert len(teams) == 4
    teams.put(space("a"))
    assert teams.lookup(b"a") == b""


def test_a_deleted_namespace_keeps_its_labels_for_five_minutes(teams):
    """The last scrapes of its pods keep their labels. Then it is forgotten."""
    teams.delete("a", now=1000.0)
    assert len(teams) == 2
    teams.expire(1299.999)
    assert teams.lookup(b"a") == b',team="x"'
    teams.expire(1300.0)
    assert teams.lookup(b"a") == b""
    assert len(teams) == 2


def test_a_relist_without_a_namespace_is_its_deletion(teams):
    """A missing namespace keeps its labels for five minutes from the list."""
    teams.replace([space("b", team="new")], now=2000.0)
    assert len(teams) == 1
    assert (teams.lookup(b"a"), teams.lookup(b"b")) == (b',team="x"', b',team="new"')
    teams.expire(2299.9)
    assert teams.lookup(b"a") == b',team="x"'
    teams.expire(2300.0)
    assert (teams.lookup(b"a"), teams.lookup(b"b")) == (b"", b',team="new"')


def test_neither_a_relist_nor_a_second_deletion_prolongs_the_memory(teams):
    """The five minutes run from the first sign of the deletion."""
    teams.delete("a", now=1000.0)
    teams.delete("a", now=1100.0)
    teams.replace([space("b"), space("c")], now=1200.0)
    teams.expire(1299.0)
    teams.replace([space("b"), space("c")], now=1300.0)
    assert teams.lookup(b"a") == b""


@pytest.mark.parametrize("how", ["put", "replace"])
def test_a_namespace_that_comes_back_is_no_longer_deleted(teams, how):
    """A namespace that is created again has its new labels, without an end."""
    teams.delete("a", now=1000.0)
    if how == "put":
        teams.put(space("a", team="again"))
    else:
        teams.replace([space("a", team="again"), space("b"), space("c")], now=1100.0)
    assert len(teams) == 3
    teams.expire(5000.0)
    assert teams.lookup(b"a") == b',team="again"'


def test_a_namespace_that_comes_back_bare_has_no_old_labels(teams):
    """The labels of the deleted namespace are gone."""
    teams.delete("a", now=1000.0)
    teams.put(space("a"))
    assert teams.lookup(b"a") == b""


def test_each_deleted_namespace_has_its_own_time(teams):
    """Each deletion has its own time, and other namespaces have none."""
    teams.delete("a", now=1000.0)
    teams.delete("b", now=1060.0)
    teams.expire(1300.0)
    assert (teams.lookup(b"a"), teams.lookup(b"b")) == (b"", b',team="y"')
    teams.expire(1360.0)
    assert teams.lookup(b"b") == b""
    teams.expire(9999.0)
    assert len(teams) == 1


def test_deleting_what_was_never_there_is_nothing(teams):
    """Deleting an unknown namespace counts nothing, and is not remembered."""
    teams.delete("never", now=1000.0)
    assert len(teams) == 3
    teams.expire(1000.0)


def test_the_map_shows_its_status(teams):
    """The repr is a status line, and the rules are the given ones."""
    teams.delete("a", now=1000.0)
    assert repr(teams) == "<LabelMap 2 namespaces, 1 deleted and remembered>"
    assert teams.rules == (LabelRule("label", "team", "team"),)
