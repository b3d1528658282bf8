"""Paths that every caller may scrape, by the roles of the simulated API server."""

from __future__ import annotations

import pytest

from kmproxy.check.everybody import DISCOVERY_PATHS, granted, questions
from kmproxy.cli.read import read_config
from kmproxy.discovery.handler import NODES, PODS
from tests.support.desk import bind
from tests.support.preflight import Preflight

EVERYBODY = {"kind": "Group", "name": "system:authenticated"}


def config_of(*flags):
    """The configuration of these flags."""
    return read_config(list(flags))[0]


def test_the_paths_are_those_that_are_served():
    """The paths equal the served ones, though the preflight has no server."""
    assert DISCOVERY_PATHS == (PODS, NODES)


@pytest.mark.parametrize(
    ("flags", "asked"),
    [
        ((), []),
        (("--authorization=tenant",), ["get pods/metrics.metrics.k8s.io"]),
        (
            ("--authorization=kubernetes", "--authorization-attributes=nodes/metrics"),
            ["get nodes/metrics"],
        ),
        (
            ("--authorization=kubernetes", "--all-nodes", "--discovery"),
            [
                *("get /metrics/cadvisor", "get /metrics", "get /metrics/resource"),
                *("get /metrics/probes", "get /", "get /sd/pods", "get /sd/nodes"),
                "get nodes/metrics",
            ],
        ),
    ],
)
def test_questions(flags, asked):
    """The questions are the reviews of each authorization mode."""
    assert [str(each) for each in questions(config_of(*flags))] == asked


async def test_default_roles_grant_nothing_of_it(api):
    """The default roles of a cluster let no unknown caller scrape."""
    flags = ("--authorization=kubernetes", "--all-nodes", "--discovery")
    assert [each async for each in granted(api, config_of(*flags))] == []


async def test_a_role_for_everybody(cluster, tmp_path):
    """The preflight warns of a role for everybody, and confirms that there is none."""
    preflight = Preflight(cluster, tmp_path)
    flags = ("--authorization=kubernetes", "--all-nodes")

    async def row():
        report, _ = await preflight.run(*flags)
        (found,) = [each for each in report.findings if each.check == "everybody"]
        return found.result, found.message

    assert await row() == ("ok", "no role lets every authenticated caller scrape")
    bind(cluster, {"nonResourceURLs": ["/metrics*"], "verbs": ["get"]}, EVERYBODY)
    result, message = await row()
    assert result == "warning"
    assert message.startswith("every authenticated caller may get /metrics/cadvisor, get /metr")
    report, _ = await preflight.run()
    assert not [each for each in report.findings if each.check == "everybody"]
