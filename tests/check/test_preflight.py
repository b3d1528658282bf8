"""The preflight as a command: its rows, its exit status, and the flags and files that it reads."""

from __future__ import annotations

import json
import re

import pytest
import trustme
import yaml

from kmproxy.check.namespaces import Tally
from kmproxy.config.label_rules import parse_rules
from kmproxy.errors import ConfigError
from kmproxy.kube.objects import ObjectMeta
from kmproxy.simulator.authority import SERVICE_ACCOUNT
from tests.support.documents import block, section
from tests.support.preflight import message, results, to_add
from tests.support.sites import ForwardProxy


async def test_all_is_well(preflight):
    """Every row is ok. Three samples and the namespaces without a team are shown."""
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
    """Only reviews and one list to the API server, and two requests to the kubelet."""
    await preflight.run()
    asked = [(record.method, record.path.partition("?")[0]) for record in cluster.api.requests]
    review = ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
    assert set(asked) == {review, ("GET", "/api/v1/namespaces")}
    assert asked.count(("GET", "/api/v1/namespaces")) == 1
    fetched = [(each.method, each.path) for each in cluster.kubelets["node-a"].requests]
    assert fetched == [("GET", "/metrics/cadvisor"), ("GET", "/metrics")]


async def test_no_identity(preflight):
    """An unreadable token ends the check, with the reason in its table."""
    (preflight.directory / "token").unlink()
    report, _ = await preflight.run()
    assert results(report) == {"identity": "failed"}
    assert "token" in message(report, "identity")


async def test_a_configuration_that_is_wrong(preflight, tmp_path):
    """A wrong configuration is reported before any request."""
    with pytest.raises(ConfigError, match="--kubelet-ca-file"):
        await preflight.run(f"--kubelet-ca-file={tmp_path / 'missing'}")


async def test_flags_without_effect(preflight):
    """Flags without effect are warnings here, too."""
    report, _ = await preflight.run("-zap-devel")
    assert "--zap-devel" in message(report, "settings")
    assert results(report)["settings"] == "warning"


def test_coverage():
    """Counted by each rule's key and source. Empty values and bare defaults do not count."""
    rules, problems = parse_rules(["team", "*"], ["owner"], ["team=x", "other=y"])
    assert problems == []
    spaces = [
        ObjectMeta("b", {"team": ""}, {"owner": "o"}),
        ObjectMeta("a", {"kubernetes.io/metadata.name": "a"}),
        ObjectMeta("c", {"team": "t"}),
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
    """Exit status 0, the text on standard output, and no other output."""
    status, out, err = await preflight.process()
    assert (status, err) == (0, "")
    assert out.startswith("Permissions, asked of https://")
    assert out.splitlines()[-1].startswith("✓ metrics ")
    cluster.api.deny("get", "nodes/metrics")
    status, out, _ = await preflight.process()
    assert status == 1
    assert to_add(out) == [{"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}]


async def test_where_there_is_only_ascii(preflight, cluster):
    """Ok and failed rows have different marks in ASCII."""
    cluster.api.deny("get", "nodes/metrics")
    _, out, _ = await preflight.process(PYTHONIOENCODING="ascii")
    rows = out.partition("\n\n")[2].splitlines()
    assert rows[1].startswith("+ list namespaces")
    assert rows[3].startswith("x get nodes/metrics")


async def test_the_example_of_the_documents(preflight, cluster):
    """The documented output is the real one, but for addresses and tokens."""
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
    """One document on standard output. Progress goes to standard error."""
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
    """Exit status 2 with every problem, of serve's flags and of its own."""
    status, out, err = await preflight.process("--output=yaml", "--nonsense", "--label=0=0")
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 3
    for words in ("--output: 'yaml'", "unknown flag --nonsense", "'0' is not a label name"):
        assert words in err


async def test_a_web_config(preflight, tmp_path):
    """It is loaded with all its files. A broken one is a wrong configuration."""
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
    """A user's own permissions are checked, and the file is named, not shown."""
    cluster.write_kubeconfig(tmp_path / "config")
    report, shown = await preflight.run(f"--kubeconfig={tmp_path / 'config'}")
    assert report.ok
    assert report.api_server == cluster.api.url
    assert str(tmp_path / "config") in shown


async def test_a_kubelet_section(preflight, cluster, tmp_path):
    """The section's CA, name and identity are tried. Behind a proxy no certificate is seen."""
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
