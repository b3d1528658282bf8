"""The forward proxy of an upstream, by the variables of the environment."""

from __future__ import annotations

import pytest

from kmproxy.cli.read import read_config
from kmproxy.config.proxies import Proxies, Proxy
from kmproxy.daemon.clients import open_clients
from kmproxy.daemon.metrics import OwnMetrics
from tests.support.exporters import Exporter, answer, config_file


@pytest.mark.parametrize(
    ("excluded", "direct"), [("other:80", False), ("ksm:443", False), ("ksm:80", True)]
)
async def test_plain_http_goes_by_http_proxy(cluster, tmp_path, clock, excluded, direct):
    """HTTPS_PROXY is for https only, and without a port an http URL means 80."""
    path = tmp_path / "kubeconfig"
    cluster.write_kubeconfig(path)
    entry = {"name": "ksm", "url": "http://ksm/metrics", "proxy_from_environment": True}
    config, _ = read_config([f"--kubeconfig={path}", config_file(tmp_path, entry)])
    async with Exporter(answer(b"m 1\n")) as http, Exporter(answer(b"m 2\n")) as https:
        variables = {"HTTP_PROXY": http.url[: -len("/metrics")], "NO_PROXY": excluded}
        variables["HTTPS_PROXY"] = https.url[: -len("/metrics")]
        async with open_clients(config, variables, clock=clock, metrics=OwnMetrics()) as clients:
            upstream = clients.upstreams["ksm"]._upstream
            assert upstream._proxy is not None
            found = upstream._proxy("http://ksm/metrics")
            assert found == (None if direct else Proxy(variables["HTTP_PROXY"]))
            if not direct:
                async with clients.upstreams["ksm"].fetch() as exposition:
                    assert [piece async for piece in exposition.pieces] == [b"m 1\n"]
                assert http.heads[0].startswith("GET http://ksm/metrics HTTP/1.1\r\n")
        assert https.heads == []


def test_the_port_of_a_scheme():
    """An entry of NO_PROXY with a port counts for URLs that leave the port out."""
    proxies = Proxies(Proxy("http://p:3128"), "a:80,b:443")
    assert proxies.find("http://a/m") is None
    assert proxies.find("https://a/m") == Proxy("http://p:3128")
    assert proxies.find("http://b/m") == Proxy("http://p:3128")
    assert proxies.find("https://b/m") is None
