"""Upstreams that do harm, or fail in every way: bounded, told in one line, and without a secret."""

from __future__ import annotations

import asyncio
import gzip
import logging

import pytest
from aiohttp import web

from tests.support.exporters import TEXT, Exporter, answer, config_file
from tests.support.sites import ForwardProxy, Site, metrics, new_ca

KSM = "/upstreams/ksm/metrics"
GET = f"GET {KSM} HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: 1\r\n\r\n".encode()


@pytest.fixture
async def start(front, tmp_path):
    """A function that starts a daemon in front of an exporter."""

    async def start(exporter, *flags):
        entry = {"name": "ksm", "url": f"{exporter.url}?key=hunter2"}
        return await front(config_file(tmp_path, entry), *flags)

    return start


@pytest.mark.parametrize(
    ("say", "reason"),
    [
        (answer(b"m 1\n", kind="text/plain; x=\x01"), "content_type"),
        (answer(b"m 1\n", kind="text/plain; x=\u00e4"), "content_type"),
        (answer(b"m 1\n", f"X-Long: {'x' * 1_000_000}"), "protocol"),
        (answer(b"m 1\n", *[f"X-{n}: x" for n in range(100_000)]), "protocol"),
        (answer(b"m 1\n", "Transfer-Encoding: chunked"), "protocol"),
        (answer(b"m 1\n", "Transfer-Encoding: gzip, chunked").replace(b"Content-Length: 4\r\n", b""),
         "protocol"),
        (answer(b"m 1\n", length=-1), "protocol"),
        (answer(b"m 1\n", "Content-Encoding: gzip, gzip"), "encoding"),
        (answer(b"no gzip", "Content-Encoding: gzip"), "truncated"),
        (answer(gzip.compress(b"m 1\n")[:-8] + b"12345678", "Content-Encoding: gzip"), "gzip"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nm 1\n", "status"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nm 1\n", "content_type"),
    ],
)  # fmt: skip
async def test_answers_that_are_none(start, say, reason):
    """They are 502, kubelets are scraped as before, and the reason is one of a bounded set."""
    async with Exporter(say) as exporter:
        proxy = await start(exporter)
        status, text = await proxy.get(KSM)
        assert (status, text.count("\n")) == (502, 1)
        assert text.startswith("the upstream ksm")
        assert "hunter2" not in text
        assert (await proxy.get())[0] == 200
    errors = "kmproxy_upstream_errors_total"
    assert await proxy.metric(errors, upstream="ksm", reason=reason) == 1


async def test_a_body_without_end(start):
    """It ends at the size, and is never taken for whole."""

    async def endless(writer):
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\n".encode())
        writer.write(b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"4\r\nm 1\n\r\n" * 10_000)
            await writer.drain()

    async with Exporter(endless) as exporter:
        proxy = await start(exporter, "--max-response-bytes=5000000")
        _, end = await proxy.raw(GET.replace(b": 1\r\n", b": 60\r\n"))
        assert end == "reset"
    errors = "kmproxy_upstream_errors_total"
    assert await proxy.metric(errors, upstream="ksm", reason="too_large") == 1


async def test_a_body_that_drips(start):
    """It ends with the scrape's time."""

    async def drip(writer):
        writer.write(answer(b"", length=1_000_000))
        while True:
            writer.write(b"#")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with Exporter(drip) as exporter:
        proxy = await start(exporter)
        answered, end = await proxy.raw(GET[:-2] + b"Connection: close\r\n\r\n")
        assert end == "reset" or answered.startswith(b"HTTP/1.1 504 ")
    errors = "kmproxy_upstream_errors_total"
    assert await proxy.metric(errors, upstream="ksm", reason="timeout") == 1


async def test_a_bomb(start):
    """A small packed body that is large: it ends at the size, and others are served meanwhile."""
    body = gzip.compress(b"# comment\n" * 20_000_000, 1)
    assert len(body) < 4_000_000
    async with Exporter(answer(body, "Content-Encoding: gzip")) as exporter:
        proxy = await start(exporter, "--max-response-bytes=100000000")
        bomb = asyncio.create_task(proxy.raw(GET.replace(b": 1\r\n", b": 60\r\n")))
        assert (await proxy.get())[0] == 200
        _, end = await bomb
        assert end == "reset"


async def test_no_secret_of_an_entry_is_told(front, tmp_path, caplog):
    """Neither its password nor its key, whatever fails: in no log, page, error or metric."""
    caplog.set_level(logging.DEBUG)
    ca = new_ca()
    (tmp_path / "ca.pem").write_bytes(ca.cert_pem.bytes())
    secret = {"basic_auth": {"username": "me", "password": "hunter2"}}
    secret["http_headers"] = {"X-Key": "hunter3"}
    tls = {"tls_config": {"ca_file": str(tmp_path / "ca.pem")}}
    told = []
    async with Site(lambda _: metrics(), ca) as site, ForwardProxy(wants="no") as forward:
        url = f"{site.url}/metrics?key=hunter4"
        through = forward.url.replace("http://", "http://u:hunter5@")
        for status, keys in (
            (200, tls),
            (401, tls),
            (403, tls),
            (500, tls),
            (200, {}),  # a certificate that does not verify
            (200, tls | {"proxy_url": through}),
            (200, tls | {"url": url.replace(str(site.port), "1")}),
        ):
            site._answer = lambda _, code=status: (
                metrics() if code == 200 else web.Response(status=code, text="hunter6")
            )
            entry = {"name": "ksm", "url": url} | secret | keys
            proxy = await front(config_file(tmp_path, entry))
            told += [(await proxy.get(path))[1] for path in (KSM, "/", "/sd/upstreams")]
            told.append((await proxy.probe("/metrics"))[1])
            told.append(repr(proxy.daemon._runtime.config))
    assert sum("upstream ksm" in text for text in told) > 5
    everything = "".join(told) + caplog.text
    assert "hunter" not in everything
    assert "bWU6aHVudGVyMg" not in everything
