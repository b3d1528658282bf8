"""The permissions that settings need, and the rules that grant them."""

from __future__ import annotations

import pytest
import yaml

from kmproxy.cli.read import read_config
from kmproxy.kube.permissions import (
    EVERYTHING,
    NAMESPACES,
    NODE_METRICS,
    NODE_PROXY,
    NODES,
    Permission,
    advice,
    needed,
    rules,
    rules_yaml,
    unneeded,
)

ALWAYS = ["list namespaces", "watch namespaces"]


def config(*flags):
    """The configuration of a command line."""
    return read_config(flags)[0]


@pytest.mark.parametrize(
    ("flags", "more"),
    [
        ((), ["get nodes/metrics"]),
        (("--all-nodes",), ["get nodes/metrics", "get nodes"]),
        (("--kubelet-scheme=http",), []),
        (("--kube-apiserver=api", "--node-name-or-ip=n1"), ["get nodes/proxy n1"]),
        (
            ("--kube-apiserver=https://api:6443", "--all-nodes", "--node-name-or-ip=n1"),
            ["get nodes/proxy", "get nodes"],
        ),
        (("--kube-apiserver=http://localhost:8001",), []),
        (("--discovery",), ["get nodes/metrics", "get nodes/pods"]),
        (
            ("--discovery", "--all-nodes"),
            ["get nodes/metrics", "get nodes", "get nodes/pods", "list nodes"],
        ),
        (
            ("--discovery", "--kube-apiserver=api", "--all-nodes"),
            ["get nodes/proxy", "get nodes", "list nodes"],
        ),
        (("--discovery", "--kubelet-scheme=http"), []),
        *[
            (
                (f"--authorization={mode}",),
                [
                    "get nodes/metrics",
                    "create tokenreviews.authentication.k8s.io",
                    "create subjectaccessreviews.authorization.k8s.io",
                ],
            )
            for mode in ("kubernetes", "tenant")
        ],
    ],
)
def test_what_is_needed(flags, more):
    """Exactly the requests of the daemon with these flags. Plain HTTP needs no right at kubelets.

    The node proxy of one node is needed by name, because a role may name the node.
    """
    assert [str(each) for each in needed(config(*flags))] == ALWAYS + more


@pytest.mark.parametrize(
    "flags",
    [(), ("--all-nodes",), ("--kube-apiserver=api",), ("--kube-apiserver=api", "--all-nodes")],
)
def test_what_is_not_needed(flags):
    """Dangerous rights and those of other settings, never a needed one. `*` comes first."""
    kinds = {each.kind for each in needed(config(*flags))}
    rest = unneeded(config(*flags))
    assert rest[0] is EVERYTHING
    assert not kinds & {each.kind for each in rest}
    assert len({each.kind for each in rest}) == len(rest)
    for one in (NODE_METRICS, NODE_PROXY, NODES):
        assert (one.kind in kinds) != (one.kind in {each.kind for each in rest})
    assert {"list secrets", "create pods/exec", "create nodes/proxy"} <= {
        str(each) for each in rest
    }


def test_another_identity(tmp_path):
    """With another identity in the `kubelet` section, kmproxy's own needs no right there."""
    for section, more in (
        ("{bearer_token: t}", []),
        ("{tls_config: {cert_file: /c, key_file: /k}}", []),
        ("{tls_config: {server_name: n}}", ["get nodes/metrics"]),
    ):
        (tmp_path / "k.yaml").write_text(f"kubelet: {section}")
        flags = (f"--config={tmp_path / 'k.yaml'}",)
        assert [str(each) for each in needed(config(*flags))] == ALWAYS + more


def test_why_not():
    """A right to run commands is named as such. A right of another setting names the setting."""
    why = {str(each): each.why for each in unneeded(config())}
    assert why["get nodes/proxy"] == "it can run commands in every pod"
    assert why["get nodes"] == "needed only with --all-nodes"
    why = {str(each): each.why for each in unneeded(config("--kube-apiserver=api"))}
    assert why["get nodes/metrics"] == (
        "needed only without --kube-apiserver or an identity of its own"
    )


@pytest.mark.parametrize(
    ("permission", "attributes"),
    [
        (NAMESPACES[0], {"resource": "namespaces", "verb": "list"}),
        (NODE_METRICS, {"resource": "nodes", "subresource": "metrics", "verb": "get"}),
        (
            Permission("create", "tokenreviews", "", "authentication.k8s.io"),
            {"group": "authentication.k8s.io", "resource": "tokenreviews", "verb": "create"},
        ),
        (
            Permission("get", "nodes", "", name="n1"),
            {"resource": "nodes", "verb": "get", "name": "n1"},
        ),
        (EVERYTHING, {"group": "*", "resource": "*", "verb": "*"}),
    ],
)
def test_attributes(permission, attributes):
    """The attributes of an access review, without the empty ones."""
    assert permission.attributes() == attributes


@pytest.mark.parametrize(
    ("permission", "text"),
    [
        (EVERYTHING, "* *"),
        (Permission("create", "tokenreviews", "", "authentication.k8s.io"),
         "create tokenreviews.authentication.k8s.io"),
        (Permission("get", "nodes/proxy", "", name="n1"), "get nodes/proxy n1"),
    ],
)  # fmt: skip
def test_names(permission, text):
    """The names that kubectl auth can-i takes."""
    assert str(permission) == text


def test_rules():
    """One rule per resource with all its verbs, for every object. The YAML says the same."""
    review = Permission("create", "tokenreviews", "", "authentication.k8s.io")
    wanted = (*NAMESPACES, review, Permission("get", "nodes/proxy", "", name="n1"), NAMESPACES[0])
    expected = [
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["list", "watch"]},
        {
            "apiGroups": ["authentication.k8s.io"],
            "resources": ["tokenreviews"],
            "verbs": ["create"],
        },
        {"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]},
    ]
    assert rules(wanted) == expected
    assert yaml.safe_load(rules_yaml(wanted)) == expected


def test_advice():
    """Advice is one line, with the API group unless it is the core group."""
    assert advice(*NAMESPACES) == (
        "add a ClusterRole rule with resources [namespaces] and verbs [list, watch]"
    )
    review = Permission("create", "tokenreviews", "", "authentication.k8s.io")
    assert advice(review) == (
        "add a ClusterRole rule with apiGroups [authentication.k8s.io], "
        "resources [tokenreviews] and verbs [create]"
    )
