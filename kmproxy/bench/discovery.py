"""The measurement of discovery: read the pods of a kubelet, and make a response of scrape targets.

Knows the payload and the timed steps. Must not know how figures are shown, nor processes or
sockets.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kmproxy.bench.payloads import Namespaces
from kmproxy.config.label_rules import parse_rules
from kmproxy.discovery.pods import parse_pods
from kmproxy.discovery.target_labels import TargetLabelMap
from kmproxy.kube.objects import ObjectMeta
from kmproxy.simulator.cadvisor import simulate_node
from kmproxy.simulator.pods import kubelet_pods, pod_list

PODS = 500
ROUNDS = 3
"""The minimum number of repetitions, also if the time is over."""

_NOW = 1_795_000_000.0
_VARIABLES = 30  # of a container's environment: they make a pod as large as a real one, 5 KB


@dataclass(frozen=True, slots=True)
class Discovery:
    """The figures of discovery: for each time the least, in seconds; sizes in bytes."""

    pods: int
    targets: int
    list_bytes: int
    answer_bytes: int
    read_seconds: float
    answer_seconds: float


def pods(spaces: Iterable[str], count: int = PODS) -> bytes:
    """The PodList of a node that runs `count` pods, spread evenly over the namespaces."""
    spaces = list(spaces)
    node = simulate_node(
        "node-0", spaces, pods_per_namespace=-(-count // len(spaces)), started=_NOW
    )
    items = kubelet_pods(node)[:count]
    environment = [
        {"name": f"SETTING_{n:02}", "value": f"https://service-{n}.example.com/v1"}
        for n in range(_VARIABLES)
    ]
    for item in items:
        item["spec"]["containers"][0]["env"] = environment
    return json.dumps(pod_list(items), separators=(",", ":")).encode()


def measure(spaces: Namespaces, seconds: float) -> Discovery:
    """Measure discovery for about `seconds`: in turns, read the list and make a response of it.

    The list is read as after a fetch.
    """
    body = pods(spaces)
    labels = TargetLabelMap(parse_rules(["team"], (), ())[0])
    labels.replace([ObjectMeta(name, metadata) for name, metadata in spaces.items()], now=0.0)
    targets = parse_pods(body, _every)
    answer = targets.render(labels.lookup)
    reads: list[float] = []
    answers: list[float] = []
    end = time.monotonic() + seconds
    gc.disable()  # a collection would add to the time of the step in which it happens
    try:
        while len(reads) < ROUNDS or time.monotonic() < end:
            reads.append(_timed(lambda: parse_pods(body, _every)))
            answers.append(_timed(lambda: targets.render(labels.lookup)))
            gc.collect()
    finally:
        gc.enable()
    return Discovery(
        len(targets.pods), targets.count, len(body), len(answer), min(reads), min(answers)
    )


def _every(_: str) -> bool:
    return True


def _timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began
