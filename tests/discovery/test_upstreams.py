"""/sd/upstreams: each upstream as a target at kmproxy's own address."""

from __future__ import annotations

import json

from tests.support.exporters import config_file

KSM = {"name": "ksm", "url": "http://ksm.monitoring.svc:8080/metrics?resources=pods"}
MESH = {"name": "mesh", "url": "https://[fd00::7]/metrics"}
SD = "/sd/upstreams"


async def test_the_document(front, tmp_path):
    """The address that the request was sent to, the path, the job and the upstream's instance."""
    proxy = await front(config_file(tmp_path, MESH, KSM))
    async with proxy.session.get(
        proxy.url + SD, headers={"Host": "kmproxy.x.svc:8080"}
    ) as response:
        assert response.headers["Content-Type"] == "application/json; charset=utf-8"
        assert json.loads(await response.read()) == [
            {
                "targets": ["kmproxy.x.svc:8080"],
                "labels": {
                    "__metrics_path__": f"/upstreams/{name}/metrics",
                    "instance": instance,
                    "job": name,
                },
            }
            for name, instance in (
                ("mesh", "[fd00::7]:443"),
                ("ksm", "ksm.monitoring.svc:8080"),
            )
        ]
    metric = "kmproxy_discovery_requests_total"
    assert await proxy.metric(metric, path=SD, code="200") == 1


async def test_it_is_served_at_once(front, cluster, tmp_path):
    """Without --discovery, and before the namespaces are loaded: the list needs neither."""
    proxy = await front(config_file(tmp_path, KSM), loaded=False)
    assert (await proxy.get(SD))[0] == 200
    assert (await proxy.get("/sd/pods"))[0] == 404


async def test_a_list_that_is_known(front, tmp_path):
    """It is 304 by its ETag."""
    proxy = await front(config_file(tmp_path, KSM))
    async with proxy.session.get(proxy.url + SD) as response:
        tag = response.headers["ETag"]
    status, text = await proxy.get(SD, If_None_Match=tag)
    assert (status, text) == (304, "")
    status, _ = await proxy.get(SD, If_None_Match=tag, Host="other:8080")
    assert status == 200


async def test_bad_requests(front, tmp_path):
    """A query key, and a Host that is none."""
    proxy = await front(config_file(tmp_path, KSM))
    assert (await proxy.get(SD + "?namespace=a"))[0] == 400
    status, text = await proxy.get(SD, Host="a/b@c")
    assert (status, text) == (400, "the Host header is not HOST or HOST:PORT\n")
    async with proxy.session.post(proxy.url + SD) as response:
        assert response.status == 405
