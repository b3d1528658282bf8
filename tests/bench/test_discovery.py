"""The measurement of discovery: its input and its figures. No figure is judged."""

from __future__ import annotations

import json

from kmproxy.bench import discovery as benchdiscovery
from kmproxy.discovery.pods import parse_pods

SPACES = {"shop": {"team": "a"}, "bank": {"team": "b"}, "farm": {}}


def test_the_payload():
    """The requested number of pods, of realistic size, in every namespace."""
    body = benchdiscovery.pods(SPACES, 100)
    items = json.loads(body)["items"]
    assert len(items) == 100
    assert {item["metadata"]["namespace"] for item in items} == set(SPACES)
    assert 4_000 < len(body) / len(items) < 6_000
    assert benchdiscovery.pods(SPACES, 100) == body


def test_the_figures():
    """The figures belong to 500 pods: every pod is read, and every target answered."""
    figures = benchdiscovery.measure(SPACES, 0.0)
    held = parse_pods(benchdiscovery.pods(SPACES), lambda _: True)
    assert (figures.pods, figures.targets) == (500, held.count)
    assert figures.list_bytes == len(benchdiscovery.pods(SPACES))
    assert figures.answer_bytes > held.size
    assert figures.answer_seconds > 0
    assert figures.read_seconds > 0
