"""The labels of namespaces, with the names that kube-state-metrics gives them."""

import random

import pytest

from kmproxy.config.label_rules import parse_rules
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels.namespace_info import NamespaceInfoMap, info_names

LABELS = """\
# HELP kube_namespace_labels [STABLE] Kubernetes labels converted to Prometheus labels.
# TYPE kube_namespace_labels gauge
"""
ANNOTATIONS = """\
# HELP kube_namespace_annotations Kubernetes annotations converted to Prometheus labels.
# TYPE kube_namespace_annotations gauge
"""


def exposition(*namespaces, labels=("*",), annotations=(), defaults=(), **options):
    """The series of these namespaces under these rules."""
    rules, problems = parse_rules(labels, annotations, defaults)
    assert not problems
    held = NamespaceInfoMap(rules, **options)
    held.replace(namespaces, 0.0)
    return b"".join(held.exposition(lambda _: True)).decode()


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("team", "label_team"),
        ("app.kubernetes.io/part-of", "label_app_kubernetes_io_part_of"),
        ("0_app", "label_0_app"),
        ("$app", "label__app"),
        ("ünïcode", "label__n_code"),
        ("fooBar", "label_foo_bar"),
        ("fooBarBaz", "label_foo_bar_baz"),
        ("aBC", "label_a_bc"),
        ("aBcD", "label_a_bc_d"),
        ("ABC", "label_abc"),
        ("a-B", "label_a_b"),
        ("9A", "label_9_a"),
        ("example.com/costCenter2X", "label_example_com_cost_center2_x"),
        ("", "label_"),
    ],
)
def test_names(key, name):
    """A prefix, underscores, snake case. A digit needs no underscore after the prefix."""
    assert info_names("label", [key]) == {key: name}


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ("a-b a.b", "a_b_conflict1 a_b_conflict2"),
        ("a-b a.b a/b aB a_b", "a_b_conflict1 a_b_conflict2 a_b_conflict3 a_b_conflict4 a_b_conflict5"),
        ("myTeam my_team other", "my_team_conflict1 my_team_conflict2 other"),
        # A name that a suffix would make may be taken, before or after.
        ("A.b.conflict1 a-b a.b", "a_b_conflict1 a_b_conflict2 a_b_conflict3"),
        ("a-b a.b a_b_conflict1", "a_b_conflict1_conflict1 a_b_conflict2 a_b_conflict1_conflict2"),
    ],
)  # fmt: skip
def test_conflicts(keys, names):
    """Keys of the same name are numbered in sorted order, and all names are unique."""
    keys = keys.split()
    found = info_names("label", reversed(keys))
    assert list(found.items()) == [
        (key, f"label_{name}") for key, name in zip(keys, names.split(), strict=True)
    ]


def test_no_name_twice():
    """No name occurs twice, for any keys, because Prometheus refuses such a sample."""
    draw = random.Random(13)
    for _ in range(2000):
        keys = {
            "".join(draw.choices("aB-._", k=draw.randint(1, 3)))
            + draw.choice(("", "_conflict1", ".conflict2", "-conflict1-conflict1"))
            for _ in range(draw.randint(1, 12))
        }
        names = info_names("label", keys)
        assert len(set(names.values())) == len(keys)
        assert list(names) == sorted(keys)


def test_many_conflicts_take_linear_time():
    """Each of thousands of keys of one name is numbered once."""
    keys = [f"{number:016b}".replace("0", "-").replace("1", ".") for number in range(1 << 14)]
    names = set(info_names("annotation", keys).values())
    assert names == {f"annotation_{'_' * 16}_conflict{n + 1}" for n in range(1 << 14)}


def test_all_labels():
    """One sample per namespace, sorted by name, with its labels sorted by key."""
    web = ObjectMeta(
        "web", {"team": 'T"\\', "myTeam": "x", "my-team": "y", "kubernetes.io/metadata.name": "web"}
    )
    text = exposition(web, ObjectMeta("pay", {}, {"note": "unasked"}))
    assert text == LABELS + (
        'kube_namespace_labels{namespace="pay"} 1\n'
        'kube_namespace_labels{namespace="web",label_my_team_conflict1="y",'
        'label_my_team_conflict2="x",label_team="T\\"\\\\"} 1\n'
    )


def test_the_rules_keys_and_defaults():
    """Names come from the keys. A missing key has the default of its rule."""
    text = exposition(
        ObjectMeta("a", {"team": "A", "costCenter": "7", "unasked": "x"}, {"note": "two\nlines"}),
        ObjectMeta("b", {"team": ""}),
        labels=("team=squad", "costCenter"),
        annotations=("note", "ownedBy=owner"),
        defaults=("squad=nobody", "owner=no,one"),
    )
    assert text == ANNOTATIONS + (
        'kube_namespace_annotations{namespace="a",annotation_note="two\\nlines",annotation_owned_by="no,one"} 1\n'
        'kube_namespace_annotations{namespace="b",annotation_owned_by="no,one"} 1\n'
    ) + LABELS + (
        'kube_namespace_labels{namespace="a",label_cost_center="7",label_team="A"} 1\n'
        'kube_namespace_labels{namespace="b",label_team="nobody"} 1\n'
    )  # fmt: skip


def test_defaults_beside_the_wildcard():
    """A default without a key stands for a label that `*` may make."""
    text = exposition(ObjectMeta("a", {"team": "A"}), ObjectMeta("b"), defaults=("team=none",))
    assert text == LABELS + (
        'kube_namespace_labels{namespace="a",label_team="A"} 1\n'
        'kube_namespace_labels{namespace="b",label_team="none"} 1\n'
    )


def test_limits():
    """Long values are left out, and keep their number in a conflict. Named rules come first."""
    labels = {"a-b": "x" * 11, "a.b": "y", "team": "T"}
    text = exposition(ObjectMeta("a", labels), labels=("*", "team"), max_value=10)
    assert text == LABELS + (
        'kube_namespace_labels{namespace="a",label_a_b_conflict2="y",label_team="T"} 1\n'
    )
    many = {f"k{number:05}": "v" * 10 for number in range(5000)} | {"team": "T"}
    text = exposition(ObjectMeta("a", many), labels=("*", "team"), max_value=10)
    assert 10_000 < len(text) < 17_000
    assert 'label_team="T"' in text


def test_deleted_namespaces_are_not_there():
    """A deleted namespace has no series, as in kube-state-metrics. Samples keep its labels."""
    held = NamespaceInfoMap(parse_rules(["team"], [], [])[0])
    held.replace([ObjectMeta("a", {"team": "A"}), ObjectMeta("b")], 0.0)
    held.delete("a", 1.0)
    held.put(ObjectMeta("b", {"team": "B"}))
    assert b"".join(held.exposition(lambda _: True)).decode() == LABELS + (
        'kube_namespace_labels{namespace="b",label_team="B"} 1\n'
    )
