"""The paths of log files that a kubelet is ever asked for, and answers that are none."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from kmproxy.client.session import open_session
from kmproxy.client.tls import TlsContext, Trust
from kmproxy.client.upstream import Upstream
from kmproxy.config.sections import KubeletConfig
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.errors import UpstreamError
from kmproxy.sources.kubelet import Kubelet

FILE = "/logs/pods/a_b_c/d/0.log"
HEAD = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-99/100\r\nContent-Length: 100\r\n"


@asynccontextmanager
async def kubelet_of(*pieces):
    """A kubelet that answers each request by these pieces, one every 50 ms."""

    async def answer(reader, writer):
        answering.append(asyncio.current_task())
        try:
            await reader.readuntil(b"\r\n\r\n")
            for each in pieces:
                writer.write(each)
                await asyncio.sleep(0.05)
        finally:
            writer.close()

    answering = []
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    tls = TlsContext(Trust, "CA", clock=lambda: 0.0, errors=OwnMetrics().credential_errors)
    async with server, open_session() as session:
        config = KubeletConfig(scheme="http", node="127.0.0.1", port=port)
        yield Kubelet(config, Upstream("kubelet", session, None, tls))
        for task in answering:
            task.cancel()
        await asyncio.wait(answering)


async def test_an_answer_that_trickles(monkeypatch):
    """It has a limit as a whole, so that a slow kubelet cannot hold a connection for ever."""
    monkeypatch.setattr("kmproxy.sources.kubelet.LOG_LIMIT", 0.5)
    async with kubelet_of(HEAD + b"\r\n", *[b"x"] * 99) as kubelet:
        with pytest.raises(UpstreamError, match=r"sent a part of a log for 0\.5 s") as failure:
            await kubelet.log(kubelet.configured, FILE, (0, 99))
    assert failure.value.reason == "timeout"


async def test_an_answer_that_is_encoded():
    """Its bytes are not those of the file."""
    async with kubelet_of(HEAD + b"Content-Encoding: gzip\r\n\r\n" + b"x" * 100) as kubelet:
        with pytest.raises(UpstreamError, match="encoded a log") as failure:
            await kubelet.log(kubelet.configured, FILE, (0, 99))
    assert failure.value.reason == "encoding"


async def test_a_part_of_a_file():
    """It is taken as it came."""
    async with kubelet_of(HEAD + b"\r\n" + b"\x1f\x8b" * 50) as kubelet:
        answer = await kubelet.log(kubelet.configured, FILE, (0, 99))
    assert (answer.status, answer.body) == (206, b"\x1f\x8b" * 50)


@pytest.mark.parametrize(
    "path",
    [
        *("/logs/", "/logs/syslog", "/exec/a/b/c", "/logs/pods/../syslog", "/logs/pods/a/.."),
        *("/logs/pods/a?b", "/logs/pods/a%2e", "/logs/pods/a b", "/logs/pods/a\r\nb", "logs/pods/"),
        *("/logs/pods/a#b", "/logs/pods/..", "/logs/pods/a\\b", "/logs/pods/ä"),
    ],
)
async def test_a_path_that_is_none(path):
    """Nothing beside the folder of pods' logs is asked for, and no other endpoint."""
    kubelet = Kubelet(KubeletConfig(), None)
    with pytest.raises(ValueError, match=r"logs|exec"):
        await kubelet.log(kubelet.configured, path)
