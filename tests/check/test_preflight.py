"""The preflight against a cluster in which all is well, and in which one thing is not."""

from __future__ import annotations

import json
import re
import ssl
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
import trustme
import yaml

from kmproxy.check.namespaces import Tally
from kmproxy.check.permissions import is_allowed
from kmproxy.client.pin_file import SUFFIX
from kmproxy.client.pins import HEAD
from kmproxy.config.label_rules import Namespace, parse_rules
from kmproxy.errors import ConfigError, UpstreamError
from kmproxy.kube.permissions import NODE_METRICS
from kmproxy.own_file import replace_own
from kmproxy.simulator.api import ApiFault
from kmproxy.simulator.cadvisor import simulate_node
from kmproxy.simulator.cluster import DEFAULT_NAMESPACES
from kmproxy.simulator.kubelet import Fault, SimKubelet
from kmproxy.simulator.store import SERVICE_ACCOUNT
from tests.support.documents import block, section
from tests.support.preflight import Preflight
from tests.support.rbac import binding, role
from tests.support.sites import ForwardProxy

SURPLUS = (("get", "nodes/proxy"), ("get", "nodes"))


@pytest.fixture
def preflight(cluster, tmp_path):
    """A pod with no more permissions than it needs to ask kubelets themselves."""
    for verb, resource in SURPLUS:
        cluster.api.deny(verb, resource)
    for review in ("tokenreviews", "subjectaccessreviews"):
        cluster.api.deny("create", review)
    for verb in ("list", "watch"):
        cluster.api.deny(verb, "nodes")
    cluster.api.deny("get", "nodes/pods")
    return Preflight(cluster, tmp_path / "sa")


@pytest.fixture
async def another_kubelet(cluster):
    """A function that puts a kubelet with another certificate in the place of node-a's."""
    running = []

    async def start(leaf):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(context)
        kubelet = SimKubelet(
            simulate_node("node-a", DEFAULT_NAMESPACES, pods_per_namespace=1, started=0.0),
            context,
            authenticate=cluster.authority.authenticate,
            authorize=cluster.authority.allows,
        )
        await kubelet.start()
        running.append(kubelet)
        await cluster.kubelets["node-a"].stop()
        cluster.kubelets["node-a"] = kubelet
        return kubelet

    yield start
    for kubelet in running:
        await kubelet.stop()


def results(report, *, but=()):
    """The result of every row by its subject, without those that are `but`."""
    return {row.subject: row.result for row in report.findings if row.result not in but}


def message(report, subject):
    """What a row says."""
    (found,) = [row.message for row in report.findings if row.subject == subject]
    return found


def to_add(shown):
    """The rules that the text says are to be added."""
    return yaml.safe_load(shown.partition("of this identity:\n")[2])


class Reviewing:
    """An API server that answers every review with this."""

    def __init__(self, body):
        self.body = body

    async def post(self, path, document):
        assert path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        assert document["spec"] == {"resourceAttributes": NODE_METRICS.attributes()}
        return self.body


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        ('{"allowed": true}', True),
        ('{"allowed": false}', False),
        ('{"allowed": true, "denied": true}', False),
        ('{"allowed": false, "reason": "no opinion"}', False),
        ("{}", False),
    ],
)
async def test_what_a_review_says(status, allowed):
    """Only what is allowed and not denied is granted."""
    api = Reviewing(f'{{"kind": "SelfSubjectAccessReview", "status": {status}}}'.encode())
    assert await is_allowed(api, NODE_METRICS) is allowed


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b"[" * 100000])
async def test_what_is_no_review(body):
    """It is an error of the API server's, neither yes nor no."""
    with pytest.raises(UpstreamError, match="is not one"):
        await is_allowed(Reviewing(body), NODE_METRICS)


async def test_all_is_well(preflight):
    """Every row has its tick, three samples are shown, and the namespaces without a team."""
    report, shown = await preflight.run()
    assert report.ok
    assert set(results(report).values()) == {"ok"}
    assert list(results(report)) == [
        "identity", "list namespaces", "watch namespaces", "get nodes/metrics", "namespaces",
        "--label team", "kubelet's certificate", "metrics",
    ]  # fmt: skip
    assert "team: 4 of 7 have no value: default, kube-system, monitoring, no-team" in shown
    assert len(report.metrics.examples) == 3
    for sample, team in zip(
        report.metrics.examples, ("frontend", "frontend", "payments"), strict=True
    ):
        assert re.search(rf'namespace="[a-z0-9-]+",team="{team}"', sample)
        assert sample in shown
    namespaces = {re.search(r'namespace="([^"]+)"', each)[1] for each in report.metrics.examples}
    assert len(namespaces) == 3
    assert report.certificate.verified
    assert to_add(shown) is None


async def test_what_is_sent(preflight, cluster):
    """Reviews and one list to the API server, two of its metrics to the kubelet, nothing else."""
    await preflight.run()
    asked = [(record.method, record.path.partition("?")[0]) for record in cluster.api.requests]
    review = ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
    assert set(asked) == {review, ("GET", "/api/v1/namespaces")}
    assert asked.count(("GET", "/api/v1/namespaces")) == 1
    fetched = [(each.method, each.path) for each in cluster.kubelets["node-a"].requests]
    assert fetched == [("GET", "/metrics/cadvisor"), ("GET", "/metrics")]


WAYS = {
    "direct": ((), [("list", "namespaces"), ("watch", "namespaces"), ("get", "nodes/metrics")]),
    "every node": (("--all-nodes",), [("get", "nodes/metrics"), ("get", "nodes")]),
    "through": (("THROUGH", "--node-name-or-ip=node-a"), [("get", "nodes/proxy")]),
}


@pytest.mark.parametrize(
    ("flags", "verb", "resource"),
    [
        pytest.param(flags, *denied, id=f"{way}: {' '.join(denied)}")
        for way, (flags, permissions) in WAYS.items()
        for denied in permissions
    ],
)
async def test_a_permission_that_is_missing(preflight, cluster, flags, verb, resource):
    """It fails, and the rule that is shown, once it is granted, makes the check pass."""
    api = urlsplit(cluster.api.url)
    flags = [each.replace("THROUGH", f"--kube-apiserver=127.0.0.1:{api.port}") for each in flags]
    if "--all-nodes" in flags:
        flags.append("--node-name-or-ip=node-a")
        cluster.api.allow("get", "nodes")
    if len(flags) > 1 and "apiserver" in flags[0]:
        cluster.api.allow("get", "nodes/proxy")
    cluster.api.deny(verb, resource)
    report, shown = await preflight.run(*flags)
    assert not report.ok
    subject = next(each for each in results(report) if f"{each} ".startswith(f"{verb} {resource} "))
    assert results(report)[subject] == "failed"
    rules = to_add(shown)
    assert rules == [{"apiGroups": [""], "resources": [resource], "verbs": [verb]}]
    assert rules == report.document()["rules_to_add"]
    for rule in rules:
        for granted in rule["verbs"]:
            for each in rule["resources"]:
                cluster.api.allow(granted, each)
    report, shown = await preflight.run(*flags)
    assert report.ok, shown


@pytest.mark.parametrize(
    ("verb", "resource"), [*SURPLUS, ("create", "pods/exec"), ("list", "secrets")]
)
async def test_a_permission_too_many(preflight, cluster, verb, resource):
    """It is a warning that says what can be done with it, and no failure."""
    cluster.api.allow(verb, resource)
    report, _ = await preflight.run()
    assert report.ok
    assert results(report, but=("ok",)) == {f"{verb} {resource}": "warning"}
    assert message(report, f"{verb} {resource}").startswith("granted and not needed: ")
    if resource == "nodes/proxy":
        assert "run commands in every pod" in message(report, f"{verb} {resource}")


async def test_every_permission(preflight, cluster):
    """Who owns the cluster is told so once, not once for each thing it can do."""
    cluster.api.allow("*", "*")
    for verb, resource in SURPLUS:
        cluster.api.allow(verb, resource)
    report, _ = await preflight.run()
    assert results(report, but=("ok",)) == {"* *": "warning"}


async def test_a_kubelet_that_answers_all_the_same(preflight, cluster):
    """A role may name nodes, of which the API server is not asked: then it is a warning."""
    cluster.authority.deny("get", "nodes/metrics")
    rule = {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}
    account = {"kind": "ServiceAccount", "name": "kmproxy", "namespace": "kmproxy"}
    cluster.authority.rbac.apply(
        role("node-a", rule | {"resourceNames": ["node-a"]}),
        binding("ClusterRole", "node-a", account),
    )
    report, _ = await preflight.run()
    assert results(report, but=("ok",)) == {"get nodes/metrics": "warning"}


async def test_the_namespaces_cannot_be_listed(preflight, cluster):
    """The kubelet is tried all the same; what is fetched has no labels."""
    cluster.api.deny("list", "namespaces")
    report, _ = await preflight.run()
    assert results(report, but=("ok",)) == {
        "list namespaces": "failed",
        "namespaces": "failed",
        "metrics": "warning",
    }
    assert "resources [namespaces]" in message(report, "namespaces")
    assert report.namespaces is None
    assert report.metrics.samples > 0
    assert report.metrics.examples == ()


@pytest.mark.parametrize(
    ("kind", "problem", "flag"),
    [
        ("names", "mismatch", "with --kubelet-server-name=node-x"),
        ("expired", "expired", "with --kubelet-insecure-tls"),
        ("foreign", "unable to get local issuer", "with --kubelet-ca-file=FILE"),
    ],
)
async def test_a_certificate_that_does_not_verify(
    preflight, cluster, another_kubelet, kind, problem, flag
):
    """It is shown, with what is wrong and the flag that accepts it; no token has been sent."""
    ca = trustme.CA() if kind == "foreign" else cluster._authorities
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    kubelet = await another_kubelet(
        ca.issue_cert(
            "node-x" if kind == "names" else "127.0.0.1",
            not_after=long_ago if kind == "expired" else None,
        )
    )
    report, shown = await preflight.run()
    assert results(report, but=("ok",)) == {
        "kubelet's certificate": "failed",
        "metrics": "failed",
    }
    assert problem in message(report, "kubelet's certificate")
    assert any(each.startswith(flag) for each in report.certificate.accepted_by)
    assert report.certificate.certificate.issuer in shown
    assert kubelet.requests == []
    report, _ = await preflight.run("--kubelet-insecure-tls")
    assert results(report, but=("ok",)) == {"kubelet's certificate": "warning"}


async def test_what_would_be_pinned(preflight, cluster, another_kubelet, tmp_path):
    """The certificate and what becomes of it are told; the file of pins stays as it is."""
    path = tmp_path / f"labels{SUFFIX}"
    flags = ("--kubelet-tls-pin", f"--label-snapshot={tmp_path / 'labels'}")
    report, _ = await preflight.run(*flags)
    assert report.certificate.pin == "verified"
    assert message(report, "kubelet's certificate") == "verified"
    kubelet = await another_kubelet(trustme.CA().issue_cert("127.0.0.1"))
    report, shown = await preflight.run(*flags)
    assert results(report, but=("ok",)) == {"kubelet's certificate": "warning"}
    digest = report.certificate.digest
    assert message(report, "kubelet's certificate").endswith(
        f"it would be pinned, SHA-256 {digest}"
    )
    assert f"SHA-256   {digest}" in shown
    assert not path.exists()
    key = f"address:127.0.0.1:{kubelet.port}"
    replace_own(path, [HEAD + f"{key} {digest} 127.0.0.1\n".encode()])
    report, _ = await preflight.run(*flags)
    assert results(report, but=("ok",)) == {}
    assert report.certificate.pin == "same"
    kubelet.requests.clear()
    replace_own(path, [other := HEAD + f"{key} {'a' * 64} 127.0.0.1\n".encode()])
    report, _ = await preflight.run(*flags)
    assert results(report, but=("ok",)) == {
        "kubelet's certificate": "failed",
        "metrics": "failed",
    }
    assert f"restart kmproxy without its line in {path}" in message(report, "metrics")
    assert message(report, "kubelet's certificate") == message(report, "metrics")
    assert kubelet.requests == []
    assert path.read_bytes() == other


async def test_a_kubelet_that_is_down(preflight, cluster):
    """Permissions and namespaces are told all the same."""
    await cluster.kubelets["node-a"].stop()
    report, _ = await preflight.run()
    assert results(report, but=("ok",)) == {
        "kubelet's certificate": "failed",
        "metrics": "failed",
    }
    assert "cannot be reached: connection refused" in message(report, "metrics")


async def test_an_api_server_that_is_down(preflight, cluster):
    """What it does not say is not known; the certificate is looked at all the same."""
    await cluster.api.stop()
    report, shown = await preflight.run()
    assert not report.ok
    found = results(report)
    assert found["access reviews"] == found["namespaces"] == "failed"
    assert found["list namespaces"] == found["get nodes/metrics"] == "skipped"
    assert found["kubelet's certificate"] == "ok"
    assert "connection refused" in message(report, "access reviews")
    assert to_add(shown) is None


async def test_a_token_that_is_not_taken(preflight, cluster):
    """It is said of each who does not take it, and not shown."""
    cluster.authority.revoke(cluster.token)
    report, _ = await preflight.run()
    assert "does not accept our credentials (401)" in message(report, "access reviews")
    assert "does not accept our credentials (401)" in message(report, "metrics")


@pytest.mark.parametrize("silent", ["reviews", "namespaces", "kubelet"])
async def test_nobody_waits_for_ever(preflight, cluster, silent):
    """A step ends when its time is up, and the next begins."""
    if silent == "kubelet":
        cluster.kubelets["node-a"].fail(Fault.HANG_BEFORE_HEADERS)
    elif silent == "namespaces":
        cluster.api.fail("list", ApiFault.HANG)
    else:
        cluster.api.fail("self review", ApiFault.HANG)
    report, _ = await preflight.run("--cache-sync-timeout=300ms", seconds=2.0)
    failed = {"kubelet": "metrics", "reviews": "access reviews"}.get(silent, silent)
    assert results(report)[failed] == "failed"
    limit = "0.3" if silent == "namespaces" else "2"
    assert message(report, failed) == f"no answer within {limit} s"
    assert report.certificate.verified


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"fault": ApiFault.GARBAGE}, "the API server's access review is not one"),
        ({"fault": ApiFault.STATUS, "status": 403, "message": "planted"}, "answered 403 Forbidden"),
        (
            {"fault": ApiFault.STATUS, "status": 500, "message": "planted"},
            "answered 500 InternalError",
        ),
    ],
)
async def test_reviews_that_fail(preflight, cluster, needs, words):
    """No answer is neither yes nor no; what the API server says of it is not repeated."""
    cluster.api.fail("self review", needs.pop("fault"), **needs)
    report, shown = await preflight.run()
    assert words in message(report, "access reviews")
    assert results(report)["get nodes/metrics"] == "skipped"
    assert "planted" not in shown


async def test_one_of_many_nodes(preflight, cluster):
    """With every node served one is tried, the configured one if it is a Node, and named."""
    cluster.api.allow("get", "nodes")
    report, shown = await preflight.run("--all-nodes", "--node-name-or-ip=node-b")
    assert report.node == "node-b"
    assert "node-b, at 127.0.0.1" in shown
    assert len(cluster.kubelets["node-b"].requests) == 2
    cluster.api.allow("list", "nodes")
    report, _ = await preflight.run("--all-nodes", "--node-name-or-ip=10.0.0.1")
    assert report.node == "node-a"
    assert report.ok


async def test_the_node_that_is_to_be_tried(preflight, cluster):
    """As a Deployment's pod names its own node: no list of nodes is asked for."""
    cluster.api.allow("get", "nodes")
    status, out, err = await preflight.process(
        "--all-nodes", "--node-name-or-ip=localhost", KMPROXY_TRY_NODE="node-b"
    )
    assert (status, err) == (0, ""), out
    assert "node-b, at 127.0.0.1" in out
    assert len(cluster.kubelets["node-b"].requests) == 2
    status, out, _ = await preflight.process("--all-nodes", "--try-node=nobody")
    assert (status, "nobody" in out) == (1, True)


async def test_no_node_to_try(preflight, cluster):
    """To list nodes is not needed by the daemon: who may not has to name one."""
    cluster.api.allow("get", "nodes")
    report, _ = await preflight.run("--all-nodes", "--node-name-or-ip=localhost")
    assert results(report, but=("ok",)) == {"node": "failed", "metrics": "skipped"}
    assert "name one by --try-node" in message(report, "node")
    cluster.api.allow("list", "nodes")
    for name in ("node-a", "node-b"):
        cluster.api.store.remove("nodes", name)
    report, _ = await preflight.run("--all-nodes", "--node-name-or-ip=localhost")
    assert message(report, "node") == "the cluster has no nodes"


async def test_a_node_that_cannot_be_found(preflight, cluster):
    """The configured one is asked all the same, as the daemon does for the paths without a name."""
    report, _ = await preflight.run("--all-nodes")
    assert results(report, but=("ok",)) == {"get nodes": "failed", "node": "failed"}
    assert "resources [nodes]" in message(report, "node")
    assert report.metrics.enriched > 0


async def test_through_the_api_server(preflight, cluster):
    """Its certificate is looked at, and the fetch goes through it."""
    cluster.api.allow("get", "nodes/proxy")
    port = urlsplit(cluster.api.url).port
    flags = (f"--kube-apiserver=127.0.0.1:{port}", "--node-name-or-ip=node-b")
    report, _ = await preflight.run(*flags)
    assert report.ok
    assert results(report)["API server's certificate"] == "ok"
    assert results(report)["get nodes/metrics"] == "warning"
    assert report.metrics.url == f"{cluster.api.url}/api/v1/nodes/node-b/proxy/metrics/cadvisor"


async def test_plain_http(preflight, cluster):
    """The read-only port has no certificate and asks for no permission."""
    kubelet = cluster.kubelets["node-a"]
    cluster.api.deny("get", "nodes/metrics")
    port = urlsplit(kubelet.plain_url).port
    report, _ = await preflight.run("--kubelet-scheme=http", f"--node-port={port}")
    assert report.ok
    assert results(report, but=("ok",)) == {"kubelet's certificate": "skipped"}


@pytest.mark.parametrize(
    ("flags", "result", "words"),
    [
        (["--label=tema"], "warning", "no namespace has a value"),
        (["--label=tema", "--label-default=tema=x"], "warning", "no namespace has a value"),
        (["--label=*"], "ok", "3 of 7 namespaces have a value"),
        (["--annotation=owner"], "warning", "no namespace has a value"),
    ],
)
async def test_rules(preflight, flags, result, words):
    """A rule that nothing meets is probably misspelled: a warning."""
    report, _ = await preflight.run(*flags)
    assert report.ok
    (subject,) = [row.subject for row in report.findings if row.check == "rule"][-1:]
    assert results(report)[subject] == result
    assert words in message(report, subject)


async def test_samples_as_they_would_be_served(preflight):
    """What is selected, dropped and stripped by flags is so in the samples that are shown."""
    flags = ("--namespace=payments", "--keep-metric=container_memory_.*", "--timestamps=strip")
    report, _ = await preflight.run(*flags)
    for sample in report.metrics.examples:
        assert re.fullmatch(
            r'container_memory_\w+\{.*,namespace="payments",team="payments".*\} \S+', sample
        )
    assert len(report.metrics.examples) == 3


async def test_an_exposition_without_samples(preflight, cluster):
    """It is no failure, and strange enough for a warning."""
    cluster.kubelets["node-a"].fail(Fault.EMPTY)
    report, _ = await preflight.run()
    assert results(report, but=("ok",)) == {"metrics": "warning"}
    cluster.kubelets["node-a"].fail(Fault.CUT_GZIP)
    report, _ = await preflight.run()
    assert results(report, but=("ok",)) == {"metrics": "failed"}


async def test_no_identity(preflight):
    """A token that cannot be read ends the check, with the reason in its table."""
    (preflight.directory / "token").unlink()
    report, _ = await preflight.run()
    assert results(report) == {"identity": "failed"}
    assert "token" in message(report, "identity")


async def test_a_configuration_that_is_wrong(preflight, tmp_path):
    """It is one before it is tried."""
    with pytest.raises(ConfigError, match="--kubelet-ca-file"):
        await preflight.run(f"--kubelet-ca-file={tmp_path / 'missing'}")


async def test_flags_without_effect(preflight):
    """They are warnings here as well."""
    report, _ = await preflight.run("-zap-devel")
    assert "--zap-devel" in message(report, "settings")
    assert results(report)["settings"] == "warning"


def test_coverage():
    """By each rule's own key and source; an empty value is none; a bare default is no rule."""
    rules, problems = parse_rules(["team", "*"], ["owner"], ["team=x", "other=y"])
    assert problems == []
    spaces = [
        Namespace("b", {"team": ""}, {"owner": "o"}),
        Namespace("a", {"kubernetes.io/metadata.name": "a"}),
        Namespace("c", {"team": "t"}),
    ]
    tally = Tally(rules)
    tally.add(spaces[:1])
    tally.add(spaces[1:])
    found = [(each.rule, each.default, each.without) for each in tally.coverage()]
    assert found == [
        ("--label team", "x", ("a", "b")),
        ("--label *", "", ("a", "b")),
        ("--annotation owner", "", ("a", "c")),
    ]


async def test_as_a_command(preflight, cluster):
    """Exit status 0 with the text on standard output, and nothing said beside it."""
    status, out, err = await preflight.process()
    assert (status, err) == (0, "")
    assert out.startswith("Permissions, asked of https://")
    assert out.splitlines()[-1].startswith("✓ metrics ")
    cluster.api.deny("get", "nodes/metrics")
    status, out, _ = await preflight.process()
    assert status == 1
    assert to_add(out) == [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}]


async def test_where_there_is_only_ascii(preflight, cluster):
    """What is well and what failed can still be told from one another."""
    cluster.api.deny("get", "nodes/metrics")
    _, out, _ = await preflight.process(PYTHONIOENCODING="ascii")
    rows = out.partition("\n\n")[2].splitlines()
    assert rows[1].startswith("+ list namespaces")
    assert rows[3].startswith("x get nodes/metrics")


async def test_the_example_of_the_documents(preflight, cluster):
    """What is shown there is what is printed, but for where the cluster and its token are."""
    cluster.api.deny("get", "nodes/metrics")
    cluster.api.allow("get", "nodes/proxy")
    report, _ = await preflight.run()
    lines = report.table().splitlines()
    example = block("✓ identity")
    assert example.splitlines()[1:] == lines[1:]
    page = section("docs/install.md", "Check")
    keys = set(re.findall(r"`(\w+)`", page.partition("one document instead.")[2]))
    assert report.document().keys() <= keys
    assert {key for each in report.document()["permissions"] for key in each} <= keys
    assert {key for each in report.document()["checks"] for key in each} <= keys


async def test_as_json(preflight, cluster):
    """One document on standard output and nothing else; what is under way on standard error."""
    status, out, err = await preflight.process("--output=json")
    document = json.loads(out)
    assert (status, document["ok"]) == (0, True)
    assert err.splitlines()[-1] == "kmproxy: Metrics, fetched once"
    cluster.api.deny("watch", "namespaces")
    status, out, _ = await preflight.process("--output", "json")
    document = json.loads(out)
    assert (status, document["ok"]) == (1, False)
    assert document["rules_to_add"] == [
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["watch"]}
    ]


async def test_a_wrong_command_line(preflight):
    """Exit status 2 with every problem, those of serve's flags and of its own."""
    status, out, err = await preflight.process("--output=yaml", "--nonsense", "--label=0=0")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 3
    for words in ("--output: 'yaml'", "unknown flag --nonsense", "'0' is not a label name"):
        assert words in err


async def test_a_web_config(preflight, tmp_path):
    """It is loaded with all that it names; a broken one is a wrong configuration."""
    (tmp_path / "web.yaml").write_text("tls_server_config: {cert_file: a.crt, key_file: a.key}")
    flag = f"--web-config-file={tmp_path / 'web.yaml'}"
    with pytest.raises(ConfigError, match=r"a\.crt"):
        await preflight.run(flag)
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "a.crt"
    )
    (tmp_path / "a.key").write_bytes((tmp_path / "a.crt").read_bytes())
    report, _ = await preflight.run(flag)
    assert results(report)["web config"] == "ok"


async def test_a_kubeconfig(preflight, cluster, tmp_path):
    """A user's own permissions are checked the same way, and the file is named, not shown."""
    cluster.write_kubeconfig(tmp_path / "config")
    report, shown = await preflight.run(f"--kubeconfig={tmp_path / 'config'}")
    assert report.ok
    assert report.api_server == cluster.api.url
    assert str(tmp_path / "config") in shown


async def test_a_kubelet_section(preflight, cluster, tmp_path):
    """It is its CA, name and identity that are tried; behind a proxy no certificate is seen."""
    reader = "system:serviceaccount:monitoring:kubelet-reader"
    cluster.authority.allow("get", "nodes/metrics", user=reader)
    cluster.api.deny("get", "nodes/metrics", user=SERVICE_ACCOUNT)
    tls = {"ca": cluster.ca_pem.decode(), "server_name": "node-a"}
    section = {"bearer_token": cluster.authority.issue(reader), "tls_config": tls}
    path = tmp_path / "k.yaml"
    path.write_text(yaml.safe_dump({"kubelet": section}))
    report, shown = await preflight.run(f"--config={path}")
    assert {each.result for each in report.findings} == {"ok"}, shown
    assert section["bearer_token"] not in shown
    asked = [each.path for each in cluster.kubelets["node-a"].requests]
    assert asked == ["/metrics/cadvisor", "/metrics"]
    async with ForwardProxy() as forward:
        path.write_text(yaml.safe_dump({"kubelet": section | {"proxy_url": forward.url}}))
        report, _ = await preflight.run(f"--config={path}")
    assert "forward proxy" in message(report, "kubelet's certificate")
    assert len(forward.asked) == 1


@pytest.mark.parametrize(
    ("version", "granted", "expected", "words"),
    [
        ((1, 36), {"nodes/pods"}, {}, ""),
        ((1, 36), set(), {"get nodes/pods": "failed", "pods": "failed"}, "nodes/pods] and verbs"),
        (
            (1, 36),
            {"nodes/proxy"},
            {"get nodes/pods": "warning", "get nodes/proxy": "warning"},
            "",
        ),
        (
            (1, 32),
            {"nodes/pods"},
            {"get nodes/proxy": "failed", "pods": "failed"},
            "nodes/proxy] and verbs [get] (it is older than 1.33)",
        ),
        (
            (1, 32),
            set(),
            {"get nodes/proxy": "failed", "pods": "failed"},
            "nodes/proxy] and verbs [get] (it is older than 1.33)",
        ),
    ],
)
async def test_pods(preflight, cluster, version, granted, expected, words):
    """With --discovery the pods are listed once, and the permission that applies is named."""
    cluster.kubelets["node-a"].version = version
    for resource in granted:
        cluster.api.allow("get", resource)
    report, shown = await preflight.run("--discovery")
    assert results(report, but=("ok",)) == expected
    if words:
        assert words in message(report, "pods")
        resource = "nodes/proxy" if version < (1, 33) else "nodes/pods"
        assert to_add(shown) == [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]
    else:
        pods = len(cluster.kubelets["node-a"].node.pods)
        assert message(report, "pods").endswith(f" targets of {pods} pods")
    assert "pods" not in results((await preflight.run())[0])


TEXT = "text/plain; version=0.0.4"


def row(report, check):
    """The row of a check: its result and its message; None where there is none."""
    found = [(each.result, each.message) for each in report.findings if each.check == check]
    return found[0] if found else None


async def test_a_kubelet_that_asks_its_runtime(preflight, cluster):
    """It says so itself: a warning, as limits and namespaces may be missing; nothing has failed."""
    report, _ = await preflight.run()
    assert row(report, "provider") is None
    body = b'kubelet_metrics_provider{provider="cri"} 1\n'
    cluster.kubelets["node-a"].fail(Fault.BODY, path="/metrics", body=body, content_type=TEXT)
    report, shown = await preflight.run()
    assert report.ok
    result, message = row(report, "provider")
    assert (result, message.startswith("cri, not cadvisor")) == ("warning", True)
    assert "metrics provider" in shown


@pytest.mark.parametrize("fault", [Fault.STATUS, Fault.DISCONNECT, Fault.CUT_CHUNKED])
async def test_a_kubelet_that_does_not_say(preflight, cluster, fault):
    """Nothing is said of it, either."""
    cluster.kubelets["node-a"].fail(fault, path="/metrics")
    report, _ = await preflight.run()
    assert report.ok
    assert row(report, "provider") is None
    assert row(report, "metrics")[0] == "ok"


async def test_samples_of_containers_without_a_namespace(preflight, cluster):
    """As from some container runtimes: they can have no label, and that is said."""
    body = b'a{id="/kubepods/x",container="c"} 1\na{id="/",namespace=""} 1\n'
    cluster.kubelets["node-a"].fail(
        Fault.BODY, path="/metrics/cadvisor", body=body, content_type=TEXT
    )
    report, _ = await preflight.run()
    result, message = row(report, "no-namespace")
    assert (result, message.startswith("1 have an id and no namespace")) == ("warning", True)


async def test_the_way_to_the_api_server(preflight, cluster, tmp_path):
    """It is said which proxy leads there, and what named it."""
    cluster.write_kubeconfig(tmp_path / "config")
    document = json.loads((tmp_path / "config").read_text())
    async with ForwardProxy() as forward:
        document["clusters"][0]["cluster"]["proxy-url"] = forward.url
        (tmp_path / "config").write_text(json.dumps(document))
        report, _ = await preflight.run(f"--kubeconfig={tmp_path / 'config'}")
    assert report.ok
    said = f"{cluster.api.url} by the proxy {forward.url} (proxy-url)"
    assert said in message(report, "identity")
