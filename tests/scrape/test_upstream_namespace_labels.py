"""No label of a namespace takes the place of an upstream's namespace label."""

from __future__ import annotations

import pytest

from tests.support.exporters import Exporter, answer, config_file

MESH = {"a_ns": "a_", "b_ns": "b_"}


@pytest.mark.parametrize("conflict", ["keep", "overwrite"])
@pytest.mark.parametrize(
    ("names", "sample", "wanted"),
    [
        (
            ["exported_namespace", "namespace"],
            b'c{exported_namespace="payments",namespace="frontend-service2"} 1\n',
            'c{exported_namespace="payments",ns="gone",team="x",namespace="frontend-service2"} 1\n',
        ),
        (
            ["exported_namespace", "namespace"],
            b'c{namespace="payments"} 1\n',
            'c{namespace="payments",ns="gone",team="x"} 1\n',
        ),
        (
            MESH,
            b'c{a_ns="payments",b_ns="gone"} 1\n',
            'c{a_ns="payments",a_exported_namespace="frontend-service2",a_team="x",b_ns="gone"} 1\n',
        ),
    ],
)
async def test_a_wildcard_makes_none(front, cluster, tmp_path, conflict, names, sample, wanted):
    """A namespace whose labels are called like namespace labels changes nobody's namespace."""
    cluster.api.namespaces.apply(
        "payments", {"exported_namespace": "frontend-service2", "ns": "gone", "team": "x"}
    )
    async with Exporter(answer(sample)) as exporter:
        entry = {"name": "ksm", "url": exporter.url, "namespace-labels": names}
        proxy = await front(config_file(tmp_path, entry), "--label=*", f"--on-conflict={conflict}")
        assert await proxy.get("/upstreams/ksm/metrics") == (200, wanted)
