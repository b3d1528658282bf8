"""`kmproxy logs` after pods went while no process of it ran."""

import asyncio
import json
import re
import signal

from kmproxy.config.logs import LogsConfig
from kmproxy.logs.api import ApiSource, FollowMetrics
from kmproxy.logs.lines import Container
from kmproxy.logs.pods import LogSelection
from kmproxy.logs.positions import ApiPosition, PositionBook
from kmproxy.logs.sender import SendMetrics
from kmproxy.logs.source import ReadMetrics
from kmproxy.telemetry import UpstreamErrors, open_registry
from tests.support.loki import got, shipping, until

LOST = re.compile(r'^kmproxy_log_lines_lost_total\{reason="(\w+)"\} ([1-9].*)$', re.MULTILINE)


async def lost(telemetry):
    """What the process has counted, by reason."""
    return dict(LOST.findall(await got(telemetry, "/metrics")))


def known(directory):
    """The entries of the positions file, by the pod's name."""
    path = directory / "positions.json"
    rest = path.read_bytes().partition(b"\n")[2] if path.exists() else b"[]"
    return {each.get("pod"): each for each in json.loads(rest)}


async def test_pods_that_went_meanwhile(logs, loki, command, tmp_path):
    """What is left of their files is read. What nobody could read is counted, by one process."""
    pods = {name: logs.start("shop", name) for name in ("left", "gone", "done", "stays")}
    app = {name: pod.containers["app"] for name, pod in pods.items()}
    async with shipping(*command) as (process, _):
        for name in ("left", "gone", "done", "stays"):
            app[name].write(f"{name} one")
        await loki.has("left one", "gone one", "done one", "stays one")
        logs.delete(pods["done"])
        app["done"].stop()
        loki.status = 503
        pods["new"] = logs.start("shop", "new")
        pods["new"].containers["app"].write("new one")
        await until(
            lambda: (
                known(tmp_path).get("new", {}).get("is_behind")
                and known(tmp_path)["done"].get("is_over")
            )
        )
        process.kill()
        await process.wait()
    loki.status = 204
    app["left"].write("left two")
    app["stays"].write("stays two")
    logs.remove(pods["gone"])
    logs.remove(pods["done"])
    logs.remove(pods["new"])
    logs.pods.remove(pods["left"])  # its files stay for a while
    app["left"].close()
    async with shipping(*command) as (process, (_, telemetry)):
        await loki.has("stays two", "left two")
        while (counted := await lost(telemetry)).get("deleted") != "1.0":  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        assert counted == {"deleted": "1.0", "unseen": "1.0"}
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    over = {name for name, each in known(tmp_path).items() if each.get("is_over")}
    assert over == {"gone", "done", "new"}  # so the next process does not count them again
    assert loki.repeated() == {}


def test_pods_that_the_api_server_does_not_have():
    """Each is counted once, if it is wanted: nothing can be read of it."""
    registry = open_registry()
    lost = SendMetrics(registry).lost
    book = PositionBook()
    for name, namespace, node, is_behind in (
        ("behind", "shop", "a", True), ("read", "shop", "a", False), ("there", "shop", "a", False),
        ("unwanted", "blog", "a", True), ("elsewhere", "shop", "b", True),
    ):  # fmt: skip
        owner = Container(f"uid-{name}", namespace, name, "app", node)
        book.keep(owner, ApiPosition(0), 0.0, is_over=False, is_behind=is_behind)
    for _ in range(2):
        source = ApiSource(
            api=None, node="a", namespaces=(), follow_metrics=FollowMetrics(open_registry()),
            selection=LogSelection.of(LogsConfig(exclude_namespace=("blog",))),
            batches=None, book=book, room=None, max_line=1000, max_age=60.0,
            metrics=ReadMetrics(open_registry(), lost, UpstreamErrors(open_registry())),
            clock=lambda: 0.0, wall=lambda: 0.0, uniform=lambda low, _: low,
        )  # fmt: skip
        source.replace("/api/v1/pods", {"uid-there": ()})
    name = "kmproxy_log_lines_lost_total"
    assert registry.get_sample_value(name, {"reason": "deleted"}) == 1
    assert registry.get_sample_value(name, {"reason": "unseen"}) == 1
