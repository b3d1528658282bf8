"""No series is ever without its team, whatever restarts or goes away."""

from __future__ import annotations

import signal
import time

import pytest

from tests.support.programs import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.program("prometheus")]

JOB = "kubelet-cadvisor"
OWNED = 'namespace=~"frontend-service1|frontend-service2|payments"'
CPU = "container_cpu_usage_seconds_total"


async def test_no_series_is_ever_without_its_team(stage):
    """API server outages and restarts of daemons and Prometheus, also during an outage."""
    await stage.deploy("daemonset")
    prometheus = await stage.prometheus(stage.shipped("instead"))
    start = time.time()
    await prometheus.up(JOB, 2)
    await prometheus.scraped(JOB, 2)
    first, second = stage.daemons

    await stage.cluster.api.stop()
    await prometheus.scraped(JOB, 3)
    await prometheus.up(JOB, 2)  # the last known labels

    await first.stop(signal.SIGKILL)
    await first.start(ready=False)

    async def refused():
        targets = (await prometheus.api("targets", state="active"))["activeTargets"]
        (why,) = [each["lastError"] for each in targets if first.address in each["scrapeUrl"]]
        assert "503" in why

    await eventually(refused)  # nothing at all rather than without labels
    await prometheus.scraped(JOB, 3, well=False)
    await stage.cluster.api.start()
    await prometheus.up(JOB, 2)

    await prometheus.stop()
    await second.stop()
    await prometheus.start()
    await prometheus.scraped(JOB, 2, well=False)
    await second.start(ready=False)
    await prometheus.up(JOB, 2)
    await prometheus.scraped(JOB, 2)

    end = time.time()
    span = {"start": f"{start:.3f}", "end": f"{end:.3f}"}
    params = {"match[]": f'{{{OWNED},team=""}}', **span}
    assert await prometheus.api("series", **params) == []
    whole = f"[{int(end - start) + 1}s]"
    assert await prometheus.query(f'count_over_time({CPU}{{{OWNED},team=""}}{whole})', end) == []
    found = await prometheus.query(f"count_over_time({CPU}{{{OWNED}}}{whole})", end)
    assert {labels["team"] for labels, _ in found} == {"frontend", "payments"}
    scrapes = await prometheus.query(f'count_over_time(up{{job="kubelet"}}{whole})', end)
    failed = await prometheus.query(
        f'count_over_time((up{{job="kubelet"}} == 0){whole[:-1]}:1s])', end
    )
    assert len(scrapes) == 2
    assert failed
