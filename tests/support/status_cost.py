"""Measures what the status page costs the event loop: `make status-cost`.

Prints the milliseconds of CPU of the whole work, and of its longest step between two turns of the
loop.
"""

from __future__ import annotations

import argparse
import time

import msgspec

from kmproxy.config.label_rules import LabelRule
from kmproxy.daemon.status import LEAST_NODES, MOST_NODES
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels.label_map import LabelMap
from kmproxy.status import page
from kmproxy.status.document import frame
from kmproxy.status.model import Labels, Nodes, Process, Rule, Scrape, Status
from kmproxy.status.namespaces import NamespaceQuery, find_namespaces
from kmproxy.status.outcomes import Attempt, Outcomes, Scraped, Survey
from kmproxy.status.query import PageQuery

PATH = "/api/v1/nodes/{node}/proxy/metrics/cadvisor"


def label_map(number, owners):
    """A map of so many namespaces. Every twentieth one has no owner."""
    labels = LabelMap([LabelRule("label", "team", "team"), LabelRule("label", "cost-center", "cc")])
    labels.replace(
        (
            ObjectMeta(
                f"namespace-{each * 7919 % number:05d}",
                {}
                if each % 20 == 0
                else {"team": f"team-{each % owners}", "cost-center": f"c-{each % owners}"},
            )
            for each in range(number)
        ),
        0.0,
    )
    return labels


def scraped(nodes):
    """The outcomes of so many nodes. Every fiftieth one is failing."""
    outcomes = Outcomes()
    for number in range(nodes):
        attempt = Attempt(40_000, 30_000, error="the kubelet answered with HTTP status 500")
        code = "502" if number % 50 == 0 else "200"
        outcomes.note(Scraped(PATH, f"node-{number}"), attempt, code, now=1.0, took=number / nodes)
    return outcomes


class Steps:
    """Times the steps of a piece of work."""

    def __init__(self):
        self.longest = self.total = 0.0
        self._began = time.thread_time()

    def step(self):
        """End a step."""
        took = (time.thread_time() - self._began) * 1000
        self.longest, self.total = max(self.longest, took), self.total + took
        self._began = time.thread_time()

    def run(self, steps):
        """Run a generator, and return its value."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value
            self.step()


def measure(labels, outcomes, query, *, html=True):
    """Make one page; its steps and its bytes."""
    steps = Steps()
    namespaces = steps.run(find_namespaces(labels, query))
    steps.step()
    survey = Survey.of(outcomes.nodes())
    steps.step()
    rows = [
        Scrape(path=PATH, source="", state=each.state, node=key.node, took=each.seconds,
               samples=each.samples, labelled=each.labelled, history=each.history,
               error=each.error or None, error_ago=1.0, ended=1.0)
        for key, each in survey.worst(MOST_NODES, LEAST_NODES)
    ]  # fmt: skip
    failing = len(survey.failing)
    total = failing + len(survey.others)
    steps.step()
    status = Status(
        health="failing" if failing else "well",
        problem=None,
        scrapes=[Scrape(path="/metrics/cadvisor", source="https://node", state="well", ended=1.0)],
        nodes=Nodes(total=total, failing=failing, found=total, rows=rows),
        upstreams=[],
        namespaces=namespaces,
        labels=Labels(confirmed=1.0, restored=False, trouble=None, on_conflict="keep", snapshot=None,
                      rules=[Rule(source="label", key="team", name="team", default=None)]),
        paths=[],
        certificates=[],
        process=Process(version="1", revision="", up=1.0, telemetry=":8081"),
        settings=[],
    )  # fmt: skip
    if html:
        made = frame().page(page.title(status), steps.run(page.body(status, PageQuery(query))))
    else:
        made = msgspec.json.encode(status)
    steps.step()
    return steps, len(made)


def main():
    """Print a line for each kind of page."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.status_cost")
    parser.add_argument("--namespaces", type=int, default=10_000)
    parser.add_argument("--nodes", type=int, default=5_000)
    parser.add_argument("--times", type=int, default=30)
    given = parser.parse_args()
    kinds = {
        "the page": ({}, 300, True, 0),
        "the page, with nodes": ({}, 300, True, given.nodes),
        "as JSON": ({}, 300, False, 0),
        "a search": ({"text": "team-17"}, 300, True, 0),
        "by owner": ({"sort": "owner"}, 300, True, 0),
        "without an owner": ({"missing": "team"}, 300, True, 0),
        "an owner for each namespace": ({}, given.namespaces, True, 0),
        "a search among these": ({"text": "team-17"}, given.namespaces, True, 0),
    }
    print(f"{given.namespaces:,} namespaces, {given.nodes:,} nodes, the least of {given.times}")
    for name, (query, owners, html, nodes) in kinds.items():
        labels, outcomes = label_map(given.namespaces, owners), scraped(nodes)
        asked = NamespaceQuery(**query)
        runs = [measure(labels, outcomes, asked, html=html) for _ in range(given.times)]
        total = min(steps.total for steps, _ in runs)
        longest = min(steps.longest for steps, _ in runs)
        size = runs[0][1] / 1024
        print(f"{name:28} {total:6.2f} ms in all, {longest:5.2f} ms at once, {size:4.0f} KiB")


if __name__ == "__main__":
    main()
