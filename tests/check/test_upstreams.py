"""What the preflight finds out about upstreams, with real servers."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from kmproxy.check.upstreams import USUAL_LABELS
from kmproxy.simulator.state_metrics import CONTENT_TYPE, state_metrics, usual_state
from tests.support.exporters import Exporter, answer, config_file
from tests.support.preflight import Preflight
from tests.support.sites import Site, metrics, new_ca


@pytest.fixture
def preflight(cluster, tmp_path):
    """The check in a pod of the cluster."""
    return Preflight(cluster, tmp_path / "sa")


def rows(report, check):
    """The results and messages of a check."""
    return [(row.result, row.message) for row in report.findings if row.check == check]


async def test_kube_state_metrics(preflight, tmp_path):
    """How many samples bear which label, and three enriched ones."""
    spaces = {"payments": {}, "frontend-service1": {}, "frontend-service2": {}}
    text = b"".join(state_metrics(usual_state(spaces)))
    async with Exporter(answer(text, kind=CONTENT_TYPE)) as exporter:
        url = f"{exporter.url}?token=hunter2"
        report, shown = await preflight.run(config_file(tmp_path, {"name": "ksm", "url": url}))
    samples = sum(line[:1] != b"#" for line in text.splitlines())
    spaced = text.count(b'{namespace="')
    message = f"{spaced} of {samples} samples got a label; {spaced} bear namespace"
    assert rows(report, "upstream") == [("ok", message)]
    assert rows(report, "upstream-certificate") == [("skipped", "plain HTTP has none")]
    assert rows(report, "upstream-labels") == []
    (found,) = report.document()["upstreams"]
    assert found["namespace_labels"] == {"namespace": spaced}
    assert found["metrics"]["url"] == exporter.url
    assert len({line.partition('namespace="')[2] for line in found["metrics"]["examples"]}) == 3
    assert all(',team="' in line for line in found["metrics"]["examples"])
    assert f"{spaced:,} samples bear namespace" in shown
    assert "hunter2" not in shown + json.dumps(report.document())
    assert report.ok


async def test_a_hint(preflight, tmp_path):
    """Where none bears the configured label, others that are usual are named."""
    text = (
        b'a{exported_namespace="payments",x="namespace=\\"a\\""} 1\n' * 3
        + b'b{namespace=""} 1\nc 1\n'
    )
    async with Exporter(answer(text)) as exporter:
        report, shown = await preflight.run(
            config_file(tmp_path, {"name": "ksm", "url": exporter.url})
        )
    hint = "no sample bears namespace, but some bear exported_namespace: is namespace-labels right?"
    assert rows(report, "upstream-labels") == [("warning", hint)]
    message = "0 of 5 samples got a label; 0 bear namespace"
    assert rows(report, "upstream") == [("warning", message)]
    assert hint in shown
    assert report.ok


async def test_prefixes(preflight, tmp_path):
    """Each configured label is counted, and the examples bear the prefixed labels."""
    text = b'r{source_ns="payments",destination_ns="frontend-service2"} 1\nr{source_ns=""} 2\n'
    labels = {"source_ns": "source_", "destination_ns": "destination_"}
    async with Exporter(answer(text)) as exporter:
        entry = {"name": "mesh", "url": exporter.url, "namespace-labels": labels}
        report, _ = await preflight.run(config_file(tmp_path, entry))
    message = "1 of 2 samples got a label; 1 bear source_ns, 1 bear destination_ns"
    assert rows(report, "upstream") == [("ok", message)]
    (example,) = report.upstreams[0].metrics.examples
    assert 'source_team="payments"' in example
    assert 'destination_team="frontend"' in example


async def test_samples_without_labels(preflight, tmp_path):
    """No hint is given where no usual name occurs."""
    async with Exporter(answer(b'a{ns="payments"} 1\n')) as exporter:
        report, _ = await preflight.run(config_file(tmp_path, {"name": "x", "url": exporter.url}))
    assert rows(report, "upstream-labels") == []
    assert rows(report, "upstream")[0][0] == "warning"


@pytest.mark.parametrize(
    ("say", "message"),
    [
        (answer(b"x", status="403 Forbidden"),
         "the upstream ksm answered 403: it may want a credential, see its entry in upstreams"),
        (answer(b"<p>", kind="text/html"),
         "the upstream ksm answered Content-Type 'text/html', which is not Prometheus text"),
        (answer(b"m 1\n", length=9), "the upstream ksm's answer was cut short"),
    ],
)  # fmt: skip
async def test_upstreams_that_fail(preflight, tmp_path, say, message):
    """The check fails, and the next upstream is tried all the same."""
    async with Exporter(say) as exporter, Exporter(answer(b'm{namespace="payments"} 1\n')) as good:
        report, _ = await preflight.run(
            config_file(
                tmp_path, {"name": "ksm", "url": exporter.url}, {"name": "good", "url": good.url}
            )
        )
    (first, second) = rows(report, "upstream")
    assert first == ("failed", message)
    assert second[0] == "ok"
    assert not report.ok


async def test_an_upstream_that_hangs(preflight, tmp_path):
    """The time of a step is the limit."""

    async def hang(_):
        await asyncio.sleep(3600)

    async with Exporter(hang) as exporter:
        report, _ = await preflight.run(
            config_file(tmp_path, {"name": "ksm", "url": exporter.url}), seconds=1.0
        )
    assert rows(report, "upstream") == [("failed", "no answer within 1 s")]


async def test_certificates(preflight, cluster, tmp_path):
    """One that verifies, and one that does not; neither gets kmproxy's token."""
    ca = new_ca()
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    async with Site(lambda _: metrics(), ca) as site:
        entry = {"name": "ksm", "url": f"{site.url}/metrics"}
        good = entry | {"tls_config": {"ca_file": str(tmp_path / "ca.pem")}}
        open_ = entry | {"tls_config": {"insecure_skip_verify": True}, "name": "open"}
        report, shown = await preflight.run(
            config_file(tmp_path, good, entry | {"name": "other"}, open_)
        )
        assert cluster.token not in str(site.seen)
        assert len(site.seen) == 2
    results = rows(report, "upstream-certificate")
    assert [result for result, _ in results] == ["ok", "failed", "warning"]
    assert results[1][1].endswith("; see its tls_config")
    assert [result for result, _ in rows(report, "upstream")] == ["ok", "failed", "ok"]
    assert "Certificate of the upstream ksm" in shown


async def test_a_name_that_hides_an_address(preflight, tmp_path, monkeypatch):
    """It is not connected to for its certificate, either."""
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: real(
            "127.0.0.1" if host == "exporter.example" else host, *rest, **more
        ),
    )
    async with Exporter() as exporter:
        entry = {"name": "ksm", "url": f"https://exporter.example:{exporter.port}/"}
        report, _ = await preflight.run(config_file(tmp_path, entry))
        assert exporter.connections == 0
    for check in ("upstream-certificate", "upstream"):
        ((result, message),) = rows(report, check)
        assert result == "failed"
        assert "127.0.0.1 is a loopback address; write the address in its URL" in message


async def test_without_namespaces(preflight, cluster, tmp_path):
    """It is tried, though no labels are known."""
    cluster.authority.deny("list", "namespaces")
    async with Exporter(answer(b'm{namespace="payments"} 1\n')) as exporter:
        report, _ = await preflight.run(config_file(tmp_path, {"name": "ksm", "url": exporter.url}))
    assert rows(report, "upstream") == [("warning", "1 samples; no labels are known")]


async def test_without_upstreams(preflight):
    """Nothing is said about them."""
    report, shown = await preflight.run()
    assert report.document()["upstreams"] == []
    assert "the upstream" not in shown


def test_the_usual_labels():
    """Those that exporters use; each is the name of a label, once."""
    assert len(set(USUAL_LABELS)) == len(USUAL_LABELS) == 12
    assert all(name.isidentifier() for name in USUAL_LABELS)
