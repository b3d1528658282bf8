"""RBAC objects grant the same rights as in an API server."""

import pytest

from kmproxy.simulator.authority import Authority
from kmproxy.simulator.rbac import AUTHENTICATED, MASTERS, MONITORING, Attributes, Rbac
from tests.support.rbac import binding, role

ANN = {"kind": "User", "name": "ann"}
READ = {"apiGroups": ["metrics.k8s.io"], "resources": ["pods/metrics"], "verbs": ["get"]}
PODS = Attributes("get", resource="pods/metrics", group="metrics.k8s.io", namespace="payments")


@pytest.mark.parametrize(
    ("rule", "wanted", "allowed"),
    [
        (READ, PODS, True),
        (READ | {"verbs": ["*"]}, PODS, True),
        (READ | {"verbs": ["list"]}, PODS, False),
        (READ | {"apiGroups": ["*"]}, PODS, True),
        (READ | {"apiGroups": [""]}, PODS, False),
        (READ | {"resources": ["pods"]}, PODS, False),
        (READ | {"resources": ["*/metrics"]}, PODS, True),
        (READ | {"resources": ["*"]}, PODS, True),
        (READ | {"resourceNames": ["a"]}, PODS, False),
        ({"nonResourceURLs": ["/metrics"], "verbs": ["get"]}, Attributes("get", "/metrics"), True),
        ({"nonResourceURLs": ["/metrics"], "verbs": ["get"]}, Attributes("get", "/metric"), False),
        ({"nonResourceURLs": ["/m*"], "verbs": ["get"]}, Attributes("get", "/metrics/x"), True),
        ({"nonResourceURLs": ["*"], "verbs": ["get"]}, Attributes("get", "/"), True),
        ({"nonResourceURLs": ["*"], "verbs": ["get"]}, PODS, False),
        (READ, Attributes("get", "/metrics"), False),
    ],
)
def test_rules(rule, wanted, allowed):
    """Every part of a rule has to match; names only if the rule has names."""
    rbac = Rbac()
    rbac.apply(role("r", rule), binding("ClusterRole", "r", ANN))
    assert rbac.allows("ann", (), wanted) is allowed
    assert not rbac.allows("bob", (), wanted)


def test_a_role_binding_holds_in_its_namespace():
    """Only there, for a Role or a ClusterRole, and not for paths."""
    for kind in ("Role", "ClusterRole"):
        rbac = Rbac()
        paths = {"nonResourceURLs": ["*"], "verbs": ["get"]}
        rbac.apply(role("r", READ, paths, namespace="payments" if kind == "Role" else None))
        rbac.apply(binding(kind, "r", ANN, namespace="payments"))
        assert rbac.allows("ann", (), PODS)
        for namespace in ("frontend", ""):
            elsewhere = Attributes("get", "", PODS.resource, PODS.group, namespace)
            assert not rbac.allows("ann", (), elsewhere)
        assert not rbac.allows("ann", (), Attributes("get", "/metrics"))


@pytest.mark.parametrize(
    ("subject", "user", "groups"),
    [
        ({"kind": "Group", "name": "team"}, "x", ("team",)),
        (
            {"kind": "ServiceAccount", "name": "prom", "namespace": "mon"},
            "system:serviceaccount:mon:prom",
            (),
        ),
        ({"kind": "ServiceAccount", "name": "prom"}, "system:serviceaccount:payments:prom", ()),
    ],
)
def test_subjects(subject, user, groups):
    """Groups, and service accounts by the user names of their tokens."""
    rbac = Rbac()
    rbac.apply(role("r", READ), binding("ClusterRole", "r", subject, namespace="payments"))
    assert rbac.allows(user, groups, PODS)
    assert not rbac.allows("x", ("other",), PODS)


def test_objects_change():
    """A deleted object grants nothing. Other objects than RBAC's are refused."""
    authority = Authority()
    bound = binding("ClusterRole", "r", ANN)
    before = len(authority.rbac)
    authority.rbac.apply(role("r", READ), bound)
    assert authority.permits("ann", (), PODS)
    assert repr(authority.rbac) == f"<Rbac {before + 2} objects>"
    authority.rbac.delete(bound)
    assert not authority.permits("ann", (), PODS)
    with pytest.raises(ValueError, match="not an RBAC object: Pod"):
        authority.rbac.apply({"kind": "Pod"})
    with pytest.raises(ValueError, match="not a version of RBAC: v1"):
        authority.rbac.apply({"kind": "Role", "apiVersion": "v1"})


@pytest.mark.parametrize("spec", [{}, {"resourceAttributes": {}, "nonResourceAttributes": {}}])
def test_a_review_asks_for_one_thing(spec):
    """A review without attributes, or with both kinds, is invalid."""
    with pytest.raises(ValueError, match="exactly one"):
        Attributes.of(spec)


OF_A_NODE = "/api/v1/nodes/node-a/proxy/metrics/cadvisor"
NODE_METRICS = Attributes("get", resource="nodes/metrics", name="node-a")


@pytest.mark.parametrize(
    ("groups", "wanted", "allowed"),
    [
        ((), Attributes("get", OF_A_NODE), False),
        ((AUTHENTICATED,), Attributes("get", OF_A_NODE), True),
        ((AUTHENTICATED,), NODE_METRICS, False),
        ((AUTHENTICATED,), Attributes("get", "/healthz"), True),
        ((AUTHENTICATED,), Attributes("get", "/healthz/x"), False),
        ((AUTHENTICATED,), Attributes("get", "/version"), True),
        ((AUTHENTICATED,), Attributes("get", "/metrics"), False),
        ((AUTHENTICATED,), Attributes("get", "/sd/pods"), False),
        ((AUTHENTICATED,), Attributes("get", "/upstreams/x/metrics"), False),
        ((AUTHENTICATED,), Attributes("get", "/"), False),
        (
            (AUTHENTICATED,),
            Attributes("create", "", "selfsubjectaccessreviews", "authorization.k8s.io"),
            True,
        ),
        (("system:unauthenticated",), Attributes("get", "/healthz"), True),
        (("system:unauthenticated",), Attributes("get", OF_A_NODE), False),
        ((MONITORING,), Attributes("get", "/metrics"), True),
        ((MONITORING,), NODE_METRICS, True),
        ((MONITORING,), Attributes("get", "/metrics/cadvisor"), False),
        ((MASTERS,), NODE_METRICS, True),
        ((MASTERS,), Attributes("get", "/sd/pods"), True),
    ],
)
def test_what_every_cluster_grants(groups, wanted, allowed):
    """The default roles and bindings, for example /api/* for every authenticated user."""
    assert Authority().permits("eve", groups, wanted) is allowed
