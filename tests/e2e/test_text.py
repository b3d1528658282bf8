"""Lines as kmproxy reads them, and as the real Prometheus reads them.

Lines of braces in any order, with and without commas and blanks, are served one by one,
unchanged and after kmproxy's stages. Prometheus tells which of them it accepts, and their
labels.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from itertools import product
from typing import NamedTuple

import aiohttp
import pytest
from aiohttp import web

from kmproxy.auth.tenant_filter import TenantFilter
from kmproxy.exposition.grammar import Sample
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.selection import Selection
from tests.support.programs import Prometheus, eventually, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.program("prometheus")]

FORMATS = {
    "text": ("text/plain; version=0.0.4; charset=utf-8", ""),
    "openmetrics": ("application/openmetrics-text; version=1.0.0; charset=utf-8", "# EOF\n"),
}
COUNT = 300
"""Lines at random, besides those below."""

ELEMENTS = [
    '"my.metric"', '"my.metric"', '"namespace"', '"a="', '"q\\"q"', 'namespace="web"', 'namespace="web"',
    'namespace="other"', 'namespace=""', '"namespace"="web"', '"name\\space"="web"', 'a="1"', '"a"="2"',
    'b="}"', '"c.d"="x,"', 'team="own"', 'e="namespace=\\"web\\""', 'g="# {"', 'f = "\\\\"', "h", '"i"=',
]  # fmt: skip
BETWEEN = [",", ",", ",", "", "", " ", "\t", " , ", ", ", ",,"]
KNOWN = [
    '{"m"} 1', "{} 1", "m{} 1", 'm{"n"} 1', '{"m","n"} 1', '{"m",} 1', '{"m",,} 1', '{,"m"} 1', '{"m" a="1"} 1',
    '{namespace="web","m"} 1', '{namespace="web" "m"} 1', '{namespace="web""m"} 1', '{namespace="web","m","n"} 1',
    '{"m",namespace="web",} 1', '{a="1","m",namespace="web"} 1', '{a="1","m"namespace="web"} 1', 'm{namespace="web"a="1"} 1',
    'm{namespace="web" a="1"} 1', 'm{,namespace="web"} 1', 'm{namespace="web",,a="1"} 1', 'm{namespace="web"}1',
    '{"namespace","namespace"="web"} 1', '{"a",a="1" namespace="web"} 1', '{a="1","a",namespace="web"} 1',
    'm {namespace="web"} 1', ' {namespace="web" "m"} 1', '{namespace="web","m"} 1 17', '{namespace="web"} 1',
]  # fmt: skip


class Case(NamedTuple):
    """A line in a format, and the served text: unchanged or after kmproxy's stages."""

    line: str
    format: str
    passed: bool


def random_line(rng):
    """Random contents of braces, in any order. Half of the lines have the usual form."""
    plain = rng.random() < 0.5
    between = [","] if plain else BETWEEN
    within = "" if plain else rng.choice(["", "", "", "", ",", " "])
    for element in rng.sample(ELEMENTS[:-3] if plain else ELEMENTS, rng.randrange(1, 5)):
        within += element + rng.choice(between)
    metric = rng.choice(["", "", "m"] if plain else ["", "", "", "m", "m ", " "])
    return f"{metric}{{{within}}}{'' if rng.random() < 0.1 else ' '}1"


def passed(line):
    """The line after the stages: one label removed, another added."""
    pipeline = Pipeline(
        lambda namespace: b',team="front"' if namespace == b"web" else b"",
        Recipe(selection=Selection(drop_labels=frozenset({b"a"}))),
    )
    return pipeline.feed(line.encode() + b"\n") + pipeline.finish()


def seen_by_tenant(line):
    """Whether a line passes to a tenant of the namespace `web`."""
    tenant_stream = TenantFilter(lambda _: True, max_line=1 << 20)
    asked = tenant_stream.feed(line.encode() + b"\n") | tenant_stream.finish()
    tenant_stream.decide({name: name == "web" for name in asked})
    return tenant_stream.take() != b""


async def read_by_prometheus(cases, directory):
    """The labels of each case's sample, or None if the scrape failed."""

    async def serve(request):
        case = cases[int(request.path[1:])]
        content_type, end = FORMATS[case.format]
        body = passed(case.line) if case.passed else case.line.encode() + b"\n"
        return web.Response(body=body + end.encode(), headers={"Content-Type": content_type})

    async with AsyncExitStack() as stack:
        app = web.Application()
        app.router.add_get("/{case}", serve)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        session = await stack.enter_async_context(aiohttp.ClientSession())
        config = {
            "global": {"scrape_interval": "10s"},
            "scrape_configs": [
                {
                    "job_name": "lines",
                    "honor_labels": True,
                    "honor_timestamps": False,
                    "static_configs": [
                        {
                            "targets": [f"127.0.0.1:{port}"],
                            "labels": {"__metrics_path__": f"/{at}", "case": str(at)},
                        }
                        for at in range(len(cases))
                    ],
                }
            ],
        }
        prometheus = Prometheus.of(session, directory, config)
        stack.push_async_callback(prometheus.stop)
        await prometheus.start()

        async def all_scraped():
            targets = (await prometheus.api("targets", state="active"))["activeTargets"]
            assert len(targets) == len(cases)
            assert all(each["health"] != "unknown" for each in targets)
            return {int(each["labels"]["case"]): each["health"] == "up" for each in targets}

        up = await eventually(all_scraped)
        vector = await prometheus.query('{case!="",__name__!~"up|scrape_.*"}')
    labels = {
        int(metric["case"]): {
            name: value for name, value in metric.items() if name not in {"case", "instance", "job"}
        }
        for metric, _ in vector
    }
    assert labels.keys() == {at for at in up if up[at]}
    return {case: labels.get(at) for at, case in enumerate(cases)}


async def test_kmproxy_and_prometheus_read_the_same(tmp_path):
    """Exactly the text that Prometheus accepts is parsed, with the right labels."""
    rng = random.Random(7)
    lines = list(dict.fromkeys([*KNOWN, *(random_line(rng) for _ in range(COUNT))]))
    cases = [Case(*each) for each in product(lines, FORMATS, (False, True))]
    read = await read_by_prometheus(cases, tmp_path)
    good = dict.fromkeys(FORMATS, 0)
    for line, name in product(lines, FORMATS):
        before, after = read[line, name, False], read[line, name, True]
        sample = Sample.parse(line.encode())
        if sample is None:
            assert passed(line) == line.encode() + b"\n"
            assert not seen_by_tenant(line)
        if sample is not None and _twice(sample):
            continue
        if before is None:
            assert name == "openmetrics" or sample is None, line
            continue
        good[name] += 1
        assert sample is not None, line
        assert sample.name.decode() == before["__name__"], line
        space = before.get("namespace", "")
        expected = {label: value for label, value in before.items() if label != "a"}
        if space == "web":
            expected.setdefault("team", "front")
        assert after == expected, (line, passed(line))
        assert seen_by_tenant(line) == (space == "web"), line
    assert min(good.values()) > 30, good


def _twice(sample):
    """Whether a label stands twice. It is a fault, unless one is empty, though not in the grammar."""
    names = [name for name, _ in sample.labels()]
    return len(set(names)) < len(names)
