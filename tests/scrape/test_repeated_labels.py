"""An answer with a sample that repeats a label thousands of times, where labels are overwritten."""

from __future__ import annotations

import pytest

from kmproxy.simulator.kubelet import Fault

GET = b"GET /metrics/cadvisor HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LINE = b'hostile_metric{namespace="payments",' + b'team="",' * 50_000 + b"} 1\n"
COMMENTS = b"#\n" * 300_000
REASON = "the label 'team', which --on-conflict=overwrite replaces: mend its exporter"


@pytest.mark.parametrize(("before", "code"), [(b"", "502"), (COMMENTS, "broken")])
async def test_the_scrape_fails(front, cluster, caplog, before, code):
    """It is refused before it grows: counted, and with the metric in the log, not in the answer."""
    proxy = await front("--on-conflict=overwrite")
    kubelet = cluster.kubelets["node-a"]
    kubelet.fail(Fault.BODY, body=before + LINE, content_type="text/plain; version=0.0.4")
    answer, end = await proxy.raw(GET)
    assert b"hostile_metric" not in answer
    if before:
        assert (end, answer.startswith(b"HTTP/1.1 200 ")) == ("reset", True)
        assert b"team" not in answer
    else:
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert REASON.encode() in answer
    assert await proxy.metric("kmproxy_scrapes_total", code=code) == 1
    assert await proxy.metric("kmproxy_upstream_errors_total", reason="repeated_label") == 1
    (said,) = [each.getMessage() for each in caplog.records if "repeats" in each.getMessage()]
    assert REASON in said
    assert said.endswith("--drop-metric; the metric is 'hostile_metric'")


@pytest.mark.parametrize("flag", ["--drop-metric=hostile_metric", "--drop-label=team"])
async def test_the_remedy_in_the_message(front, cluster, flag):
    """Without the metric, or the label, the rest of the answer is served."""
    proxy = await front("--on-conflict=overwrite", flag)
    cluster.kubelets["node-a"].fail(
        Fault.BODY, body=LINE + b"up 1\n", content_type="text/plain; version=0.0.4"
    )
    status, text = await proxy.get()
    assert (status, text[-5:]) == (200, "up 1\n")
    assert len(text) < len(LINE)
