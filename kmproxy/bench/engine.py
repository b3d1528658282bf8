"""Measures the engines and their comparisons in turns, on the same payloads, in this process.

Must not know processes or sockets, nor how figures are shown.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from kmproxy.auth.tenant import tenant_filter
from kmproxy.bench.payloads import (
    Namespaces,
    beginning,
    known_pods,
    kube_state_metrics,
    kubelet,
    mesh,
    namespaces_of,
)
from kmproxy.bench.tables import MEGABYTE
from kmproxy.config.label_rules import parse_rules
from kmproxy.content_coding import GzipEncoder
from kmproxy.exposition.engine import Engine, available
from kmproxy.exposition.lines import MAX_LINE
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.selection import Globs, Selection
from kmproxy.exposition.splitter import key_splitter
from kmproxy.kube.objects import ObjectMeta
from kmproxy.labels.label_map import LabelMap

PIECE = 1 << 16
"""Bytes of a piece that the engine is fed."""

ROUNDS = 2
"""The minimum number of repetitions, also if the time is over."""

SLICE = 250_000
"""Bytes of a payload's beginning for prometheus_client, which takes seconds for a megabyte."""

MEMCPY = "memcpy"

REENCODE = "prometheus_client, 1 label"
"""The two measurements to which the speed of the others is compared."""

_ONE = ("team",)

_THREE = ("team", "env", "owner.example.com/cost-center=cost_center")
_WORKLOAD = frozenset({b"workload", b"workload_type"})
_LIST = NamespaceLabels((b"exported_namespace", b"namespace"))
_SIDES = NamespaceLabels(
    (b"source_workload_namespace", b"destination_workload_namespace"), (b"source_", b"destination_")
)

_PLAIN = Recipe()
_SELECTIONS = {
    "metrics and namespaces": Selection(
        drop_metrics=(Globs(("container_network_*",)),), exclude_namespaces=Globs(("kube-*",))
    ),
    "no timestamps": Selection(strip_timestamps=True),
    "--drop-label": Selection(drop_labels=frozenset({b"id", b"uid"})),
}
_EVERY = Recipe(
    on_conflict="overwrite",
    info=True,
    selection=Selection(
        drop_metrics=(Globs(("container_network_*",)),),
        exclude_namespaces=Globs(("kube-*",)),
        drop_labels=frozenset({b"id", b"uid"}),
        strip_timestamps=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Subject:
    """A timed subject. `run` processes `size` bytes of a payload.

    It returns the number of samples, or None if it does not count them.
    """

    name: str
    payload: str
    size: int
    run: Callable[[], int | None]


def _labels(spaces: Namespaces, rules: Sequence[str]) -> LabelMap:
    labels = LabelMap(parse_rules(rules, (), ())[0])
    labels.replace([ObjectMeta(name, metadata) for name, metadata in spaces.items()], now=0.0)
    return labels


def _pieces(text: bytes) -> list[bytes]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]


def all_subjects(payloads: Sequence[tuple[str, bytes]], spaces: Namespaces) -> Iterator[Subject]:
    """All timed subjects, in the order in which they are shown."""
    for engine in available():
        yield from _of_engine(engine, payloads, spaces)
    for name, text in payloads:
        start = beginning(text, SLICE)
        yield Subject(MEMCPY, name, len(text), _memcpy(_pieces(text)))
        yield Subject(REENCODE, name, len(start), _reencode(start, spaces))
        yield Subject("isal gzip level 1", name, len(text), _gzip(_pieces(text)))


def _of_engine(
    engine: Engine, payloads: Sequence[tuple[str, bytes]], spaces: Namespaces
) -> Iterator[Subject]:
    """The subjects of one engine."""
    make = partial(_engine, engine)
    one, three = _labels(spaces, _ONE), _labels(spaces, _THREE)
    many = {f"tenant-{number:05}": {"team": f"team-{number}"} for number in range(10_000)}
    large = _labels({**many, **spaces}, _ONE)
    for name, text in payloads:
        pieces, short = _pieces(text), _pieces(beginning(text, 2 * MEGABYTE))
        yield make("1 label", name, pieces, one)
        yield make("3 labels", name, pieces, three)
        yield make("1 label, overwrite", name, pieces, one, Recipe(on_conflict="overwrite"))
        yield make("1 label, 10,000 namespaces", name, pieces, large)
        pods = known_pods(text)
        for title, cold in (("10,000 pods", False), ("10,000 pods, first scrape", True)):
            yield make(f"1 label, {title}", name, pieces, one, pods=pods, cold=cold)
        for title, chosen in _SELECTIONS.items():
            yield make(f"1 label, {title}", name, short, one, Recipe(selection=chosen))
        yield _tenant(engine, name, short)
        yield make("1 label, every option", name, short, one, _EVERY, pods=pods)
        pipeline = Pipeline(one.lookup, Recipe(), engine=engine)
        borne = _pieces(pipeline.feed(b"".join(short)) + pipeline.finish())
        yield make("1 label, all conflict", name, borne, one)
        yield make(
            "1 label, all conflict, overwrite", name, borne, one, Recipe(on_conflict="overwrite")
        )
    ours = namespaces_of([])
    one = _labels(ours, _ONE)
    ksm = _pieces(kube_state_metrics(ours))
    mesh_of = _pieces(mesh(ours))
    yield make("1 label", "kube-state-metrics", ksm, one)
    yield make(
        "1 label, a list of names", "kube-state-metrics", ksm, one, Recipe(namespace_labels=_LIST)
    )
    yield make(
        "1 label, two prefixes", "service mesh", mesh_of, one, Recipe(namespace_labels=_SIDES)
    )
    yield make("1 label", "kubelet", _pieces(kubelet(ours)), one)


def _engine(
    engine: Engine,
    name: str,
    payload: str,
    pieces: Sequence[bytes],
    labels: LabelMap,
    recipe: Recipe = _PLAIN,
    *,
    pods: Mapping[tuple[bytes, bytes], bytes] | None = None,
    cold: bool = False,
) -> Subject:
    """A new engine for each scrape. A cold engine has proven no head of a line."""
    names = frozenset(rule.name.encode() for rule in labels.rules)
    recipe = replace(
        recipe, names=names | (_WORKLOAD if pods else frozenset()), pods=pods is not None
    )

    def run() -> int:
        if cold:
            key_splitter.cache_clear()
        known = pods or {}
        pipeline = Pipeline(labels.lookup, recipe, pods=lambda *pod: known.get(pod), engine=engine)
        for piece in pieces:
            pipeline.feed(piece)
        pipeline.finish()
        return pipeline.enricher.samples

    return Subject(f"{engine} engine, {name}", payload, sum(map(len, pieces)), run)


def _tenant(engine: Engine, payload: str, pieces: Sequence[bytes]) -> Subject:
    """The lines that a tenant sees, who may see every other namespace."""

    def run() -> None:
        narrowed = tenant_filter(lambda _: True, max_line=MAX_LINE, engine=engine)
        for piece in [*pieces, None]:
            asked = narrowed.finish() if piece is None else narrowed.feed(piece)
            if asked:
                narrowed.decide({name: ord(name[-1]) % 2 == 0 for name in asked})
            narrowed.take()

    return Subject(f"{engine} engine, a tenant's part", payload, sum(map(len, pieces)), run)


def _memcpy(pieces: Sequence[bytes]) -> Callable[[], None]:
    views = [memoryview(piece) for piece in pieces]

    def run() -> None:
        for view in views:
            bytes(view)

    return run


def _gzip(pieces: Sequence[bytes]) -> Callable[[], None]:
    def run() -> None:
        encoder = GzipEncoder()
        for piece in pieces:
            encoder.feed(piece)
        encoder.finish()

    return run


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _reencode(text: bytes, spaces: Namespaces) -> Callable[[], int]:
    """Makes a function that parses, adds the label to each sample, and writes the text again.

    A program without kmproxy's engine would work this way.
    """
    added = {name: {"team": metadata["team"]} for name, metadata in spaces.items()}

    def run() -> int:
        families = list(text_string_to_metric_families(text.decode()))
        samples = 0
        for family in families:
            family.samples = [
                sample._replace(
                    labels=sample.labels | added.get(sample.labels.get("namespace", ""), {})
                )
                for sample in family.samples
            ]
            samples += len(family.samples)
        generate_latest(_Families(families))
        return samples

    return run


def measure_subjects(
    subjects: Sequence[Subject], seconds: float
) -> tuple[int, list[dict[str, Any]]]:
    """Run all subjects in turns for about `seconds`.

    Returns the number of turns, and a row with the CPU time of the fastest run of each subject.
    """
    best = [float("inf")] * len(subjects)
    samples: list[int | None] = [None] * len(subjects)
    rounds, end = 0, time.monotonic() + seconds
    gc.disable()  # a collection would add to the time of the subject in which it happens
    try:
        while rounds < ROUNDS or time.monotonic() < end:
            for index, subject in enumerate(subjects):
                began = time.process_time()
                samples[index] = subject.run()
                best[index] = min(best[index], time.process_time() - began)
            gc.collect()
            rounds += 1
    finally:
        gc.enable()
    return rounds, [
        {
            "name": subject.name,
            "payload": subject.payload,
            "bytes": subject.size,
            "samples": count,
            "seconds": least,
            "bytes_per_second": subject.size / least,
            "samples_per_second": count and count / least,
        }
        for subject, count, least in zip(subjects, samples, best, strict=True)
    ]


def relate(rows: Sequence[dict[str, Any]], payloads: Sequence[str]) -> None:
    """Set each row's speed in relation to memcpy and prometheus_client on the same payload.

    If these two were not run on a payload, their speeds on the first payload count.
    """
    speeds = {(row["name"], row["payload"]): row["bytes_per_second"] for row in rows}
    for row in rows:
        base = row["payload"] if row["payload"] in payloads else payloads[0]
        row["to_memcpy"] = row["bytes_per_second"] / speeds[MEMCPY, base]
        row["to_prometheus_client"] = row["bytes_per_second"] / speeds[REENCODE, base]
