"""`kmproxy bench`: measures the engine and its comparisons, side by side in one run.

Knows the payloads and what is measured on them. Must not know processes or sockets: it gets the
figures of the whole daemon from another module. Must not know how figures are shown. A megabyte
is 10^6 bytes.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from kmproxy import __version__
from kmproxy.bench import discovery as benchdiscovery
from kmproxy.bench.payloads import cadvisor, known_pods, kube_state_metrics, kubelet, mesh
from kmproxy.bench.scrapes import COMPARED, Figures, Namespaces, measure
from kmproxy.bench.tables import MEGABYTE, tables
from kmproxy.config.commands import BenchConfig
from kmproxy.config.label_rules import Namespace, parse_rules
from kmproxy.content_coding import GzipEncoder
from kmproxy.errors import ConfigError
from kmproxy.exposition.namespace_labels import NamespaceLabels
from kmproxy.exposition.pipeline import Pipeline, Recipe
from kmproxy.exposition.splitter import key_splitter
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
_NAMESPACE = re.compile(rb'[{,]namespace="([^"\\\n]+)"')


@dataclass(frozen=True, slots=True)
class Subject:
    """A timed subject. `run` processes `size` bytes of a payload.

    It returns the number of samples, or None if it does not count them.
    """

    name: str
    payload: str
    size: int
    run: Callable[[], int | None]


def bench(config: BenchConfig, say: Callable[[str], None]) -> str:
    """Measure, and return the text to print. `say` gets a line before each long step.

    Raises ConfigError for a payload that cannot be read, KmproxyError if the daemon fails.
    """
    given = _read(config.payload)
    say("bench: making payloads")
    spaces = _namespaces(text for _, text in given)
    payloads = given or [("cAdvisor", cadvisor(spaces))]
    say(f"bench: the engine, about {config.seconds} s")
    rounds, rows = _measure(list(_subjects(payloads, spaces)), config.seconds)
    _relate(rows, [name for name, _ in payloads])
    document: dict[str, Any] = {
        "kmproxy": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "machine": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "rounds": rounds,
        "engine": rows,
        "discovery": dataclasses.asdict(
            benchdiscovery.measure(_namespaces([]), config.seconds / 20)
        ),
    }
    if config.daemon:
        figures, skipped = _measure_daemon(given, payloads[0][1], spaces, config.seconds, say)
        document["daemon"] = _daemon_document(figures, skipped)
    if config.output == "json":
        return json.dumps(document, indent=2) + "\n"
    return "\n".join(tables(document)) + "\n"


def _read(paths: Sequence[str]) -> list[tuple[str, bytes]]:
    """Read each file. Returns its path and text. Raises ConfigError with every problem."""
    payloads, problems = [], []
    for path in paths:
        try:
            text = Path(path).read_bytes()
        except OSError as error:
            problems.append(f"--payload {path}: {error.strerror}")
            continue
        if not text.endswith(b"\n"):
            problems.append(f"--payload {path}: an exposition ends with a newline, this does not")
        payloads.append((path, text))
    if problems:
        raise ConfigError(problems)
    return payloads


def _namespaces(texts: Iterable[bytes]) -> Namespaces:
    """The namespaces in the texts, or twenty made-up ones. Each has the three labels."""
    found = {name.decode(errors="replace") for text in texts for name in _NAMESPACE.findall(text)}
    return {
        name: {
            "team": f"team-{number % 7}",
            "env": ("production", "staging")[number % 2],
            "owner.example.com/cost-center": f"cc-{number:04}",
        }
        for number, name in enumerate(sorted(found) or [f"shop-{n:02}" for n in range(20)])
    }


def _labels(spaces: Namespaces, rules: Sequence[str]) -> LabelMap:
    labels = LabelMap(parse_rules(rules, (), ())[0])
    labels.replace([Namespace(name, metadata) for name, metadata in spaces.items()], now=0.0)
    return labels


def _pieces(text: bytes) -> list[bytes]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]


def _beginning(text: bytes, size: int) -> bytes:
    """The first whole lines of a text, of at least `size` bytes together, or the whole text."""
    return text[: text.find(b"\n", size - 1) + 1] or text


def _subjects(payloads: Sequence[tuple[str, bytes]], spaces: Namespaces) -> Iterator[Subject]:
    """All timed subjects, in the order in which they are shown."""
    one, three = _labels(spaces, _ONE), _labels(spaces, _THREE)
    many = {f"tenant-{number:05}": {"team": f"team-{number}"} for number in range(10_000)}
    large = _labels({**many, **spaces}, _ONE)
    for name, text in payloads:
        pieces = _pieces(text)
        yield Subject(MEMCPY, name, len(text), _memcpy(pieces))
        yield _engine("1 label", name, pieces, one)
        yield _engine("3 labels", name, pieces, three)
        yield _engine("1 label, overwrite", name, pieces, one, on_conflict="overwrite")
        yield _engine("1 label, 10,000 namespaces", name, pieces, large)
        pods = known_pods(text)
        for title, cold in (("10,000 pods", False), ("10,000 pods, first scrape", True)):
            yield _engine(f"1 label, {title}", name, pieces, one, pods=pods, cold=cold)
        pipeline = Pipeline(one.lookup, Recipe())
        borne = _pieces(pipeline.feed(_beginning(text, 2 * MEGABYTE)) + pipeline.finish())
        yield _engine("1 label, all conflict", name, borne, one)
        yield _engine("1 label, all conflict, overwrite", name, borne, one, on_conflict="overwrite")
        start = _beginning(text, SLICE)
        yield Subject(REENCODE, name, len(start), _reencode(start, spaces))
        yield Subject("isal gzip level 1", name, len(text), _gzip(pieces))
    ours = _namespaces([])
    one = _labels(ours, _ONE)
    ksm = _pieces(kube_state_metrics(ours))
    yield _engine("1 label", "kube-state-metrics", ksm, one)
    yield _engine("1 label, a list of names", "kube-state-metrics", ksm, one, labels_of=_LIST)
    yield _engine(
        "1 label, two prefixes", "service mesh", _pieces(mesh(ours)), one, labels_of=_SIDES
    )
    yield _engine("1 label", "kubelet", _pieces(kubelet(ours)), one)


def _engine(
    name: str,
    payload: str,
    pieces: Sequence[bytes],
    labels: LabelMap,
    *,
    on_conflict: Literal["keep", "overwrite"] = "keep",
    labels_of: NamespaceLabels | None = None,
    pods: Mapping[tuple[bytes, bytes], bytes] | None = None,
    cold: bool = False,
) -> Subject:
    """The engine, anew for each scrape. If it is cold, it has proven no head before."""
    recipe = Recipe(
        names=frozenset(rule.name.encode() for rule in labels.rules)
        | (_WORKLOAD if pods else set()),
        on_conflict=on_conflict,
        namespace_labels=labels_of or NamespaceLabels(),
        pods=pods is not None,
    )

    def run() -> int:
        if cold:
            key_splitter.cache_clear()
        known = pods or {}
        pipeline = Pipeline(labels.lookup, recipe, pods=lambda *pod: known.get(pod))
        for piece in pieces:
            pipeline.feed(piece)
        pipeline.finish()
        return pipeline.enricher.samples

    return Subject(f"engine, {name}", payload, sum(map(len, pieces)), run)


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


def _measure(subjects: Sequence[Subject], seconds: float) -> tuple[int, list[dict[str, Any]]]:
    """Run all subjects in turns for about `seconds`.

    Returns the number of turns, and a row with the fastest run of each subject.
    """
    best = [float("inf")] * len(subjects)
    samples: list[int | None] = [None] * len(subjects)
    rounds, end = 0, time.monotonic() + seconds
    gc.disable()  # a collection would add to the time of the subject in which it happens
    try:
        while rounds < ROUNDS or time.monotonic() < end:
            for index, subject in enumerate(subjects):
                began = time.perf_counter()
                samples[index] = subject.run()
                best[index] = min(best[index], time.perf_counter() - began)
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


def _relate(rows: Sequence[dict[str, Any]], payloads: Sequence[str]) -> None:
    """Set each row's speed in relation to memcpy and prometheus_client on the same payload.

    If these two were not run on a payload, their speeds on the first payload count.
    """
    speeds = {(row["name"], row["payload"]): row["bytes_per_second"] for row in rows}
    for row in rows:
        base = row["payload"] if row["payload"] in payloads else payloads[0]
        row["to_memcpy"] = row["bytes_per_second"] / speeds[MEMCPY, base]
        row["to_prometheus_client"] = row["bytes_per_second"] / speeds[REENCODE, base]


def _measure_daemon(
    given: Sequence[tuple[str, bytes]],
    text: bytes,
    spaces: Namespaces,
    seconds: float,
    say: Callable[[str], None],
) -> tuple[list[Figures], str | None]:
    """Measure the whole daemon, with payloads of 1, 12 and 120 MB or with the given payloads."""
    with tempfile.TemporaryDirectory(prefix="kmproxy-bench-") as directory:
        payloads = [(name, Path(name)) for name, _ in given]
        for megabytes in () if given else (1, 12, 120):
            path = Path(directory) / f"{megabytes}"
            size = megabytes * MEGABYTE
            with path.open("wb") as file:
                while file.tell() < size:
                    file.write(_beginning(text, size - file.tell()))
            payloads.append((f"{megabytes} MB", path))
        return measure(payloads, spaces, seconds, say)


def _daemon_document(figures: Sequence[Figures], skipped: str | None) -> dict[str, Any]:
    cpu = {(row.payload, row.way): row.cpu for row in figures}
    return {
        "nginx_skipped": skipped,
        "scrapes": [
            {
                "payload": row.payload,
                "bytes": row.payload_bytes,
                "server": row.way.server,
                "from_kubelet": row.way.upstream,
                "to_client": row.way.client,
                "scrapes": row.scrapes,
                "cpu_seconds": row.cpu,
                "first_byte_seconds": row.first,
                "last_byte_seconds": row.last,
                "received_bytes": row.received,
                "peak_rss_bytes": row.peak_rss,
            }
            for row in figures
        ],
        "ratios": [
            {
                "payload": payload,
                "of": ours.name,
                "to": other.name,
                "cpu": cpu[payload, ours] / cpu[payload, other],
            }
            for payload in dict.fromkeys(row.payload for row in figures)
            for ours, other in COMPARED
            if (payload, other) in cpu
        ],
    }
