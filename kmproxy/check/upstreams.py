"""Checks each upstream: its certificate, its metrics with labels on them, and its namespace labels.

Knows the usual names of a namespace label. The requests are those of the daemon's own client.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from kmproxy.check.certificates import Server
from kmproxy.check.observations import Examples, LabelCounts
from kmproxy.check.report import Metrics, Result, Upstream
from kmproxy.check.steps import Steps
from kmproxy.client.addresses import WrittenAddresses
from kmproxy.client.tls import client_trust
from kmproxy.config.recipe import read_namespace_labels, read_recipe
from kmproxy.config.upstreams import UpstreamConfig
from kmproxy.errors import UpstreamError
from kmproxy.exposition.errors import ExpositionError
from kmproxy.exposition.lines import portions
from kmproxy.exposition.pipeline import Pipeline
from kmproxy.labels.label_map import LabelMap

USUAL_LABELS: Final = (
    *("namespace", "exported_namespace", "kubernetes_namespace", "k8s_namespace_name"),
    *("namespace_name", "kube_namespace", "destination_workload_namespace"),
    *("source_workload_namespace", "destination_service_namespace", "dest_namespace"),
    *("target_namespace", "resource_namespace"),
)
"""Names by which exporters call the label that holds a namespace."""


async def check_upstreams(steps: Steps, labels: LabelMap) -> None:
    """Try each upstream of the configuration."""
    for config in steps.config.upstreams:
        result = Upstream(config.name)
        steps.report.upstreams.append(result)
        await _check_certificate(steps, config, result)
        await _check_metrics(steps, config, result, labels)


async def _check_certificate(steps: Steps, config: UpstreamConfig, result: Upstream) -> None:
    """Examine the certificate that the upstream shows."""
    name, url = f"upstream {config.name}", urlsplit(config.url)
    subject = f"{name}'s certificate"
    if url.scheme == "http":
        steps.report.add("upstream-certificate", subject, "skipped", "plain HTTP has none")
        return
    if config.access.proxied:
        why = "not looked at: it is behind a forward proxy"
        steps.report.add("upstream-certificate", subject, "skipped", why)
        return
    tls = config.access.tls
    server = Server(
        name, url.hostname or "", url.port or 443, tls.server_name,
        client_trust(replace(tls, insecure=False)), tls.insecure,
    )  # fmt: skip
    async with steps.step("upstream-certificate", subject, f"Certificate of the {name}"):
        await _require_address(server)
        result.certificate = found = await server.examine()
        steps.report.add("upstream-certificate", subject, *found.verdict)
        steps.show(found.lines())


async def _require_address(server: Server) -> None:
    """Raise UpstreamError if the daemon would not connect to the server, for its address."""
    rule = WrittenAddresses(server.name)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            server.host, server.port, type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError) as error:
        message = f"the {server.name}'s host name {server.host} is not known"
        raise UpstreamError("unresolved", message) from error
    problems = [rule.refusal(server.host, str(each[4][0])) for each in found]
    if problems and all(problems):
        place = f"{server.host}:{server.port}"
        raise UpstreamError("bad_address", rule.message(place, str(problems[0])))


async def _check_metrics(
    steps: Steps, config: UpstreamConfig, result: Upstream, labels: LabelMap
) -> None:
    """Fetch the metrics once, as the daemon does, and keep some samples that it would serve."""
    subject = f"upstream {config.name}"
    async with steps.step("upstream", subject, f"Metrics of the {subject}, fetched once"):
        names = read_namespace_labels(config)
        recipe = read_recipe(steps.config.labels, steps.config.selection)
        pipeline = Pipeline(labels.lookup, replace(recipe, info=False, namespace_labels=names))
        enricher = pipeline.enricher
        examples = Examples(enricher.seen, names)
        wanted = dict.fromkeys((*config.namespace_labels, *USUAL_LABELS))
        counts = LabelCounts(name.encode() for name in wanted)
        size = 0
        try:
            async with steps.clients.upstreams[config.name].fetch() as exposition:
                async for piece in exposition.pieces:
                    size += len(piece)
                    for portion in portions(piece, labels.longest * len(names.names)):
                        counts.feed(portion)
                        examples.feed(pipeline.feed(portion))
                        await asyncio.sleep(0)  # so that the step's time limit holds
            counts.finish()
            examples.feed(pipeline.finish() + b"\n")
        except ExpositionError as error:
            raise UpstreamError(error.reason, error.details) from error
        finally:
            pipeline.close()
        result.metrics = found = Metrics(
            config.shown,
            size,
            counts.samples,
            enricher.enriched,
            enricher.unparsed,
            enricher.conflicts,
            tuple(line.decode(errors="replace") for line in examples.best()),
        )
        borne = {name.decode(): count for name, count in counts.counts.items() if count}
        result.namespace_labels = borne
        steps.report.add("upstream", subject, *_verdict(steps, config, found, borne))
        steps.show(found.lines())
        steps.show(f"{count:,} samples bear {name}" for name, count in borne.items())
        if hint := _hint(config, borne):
            steps.report.add("upstream-labels", subject, "warning", hint)
            steps.show([hint])


def _verdict(
    steps: Steps, config: UpstreamConfig, found: Metrics, borne: Mapping[str, int]
) -> tuple[Result, str]:
    if not found.samples:
        return "warning", "the answer holds no samples"
    if steps.report.namespaces is None:
        return "warning", f"{found.samples:,} samples; no labels are known"
    counted = [f"{borne.get(name, 0):,} bear {name}" for name in config.namespace_labels]
    message = f"{found.enriched:,} of {found.samples:,} samples got a label; {', '.join(counted)}"
    return ("ok" if found.enriched or not steps.config.labels.rules else "warning"), message


def _hint(config: UpstreamConfig, borne: Mapping[str, int]) -> str:
    """A line if no sample bears a configured label, and some bear another usual one, else empty."""
    if any(name in borne for name in config.namespace_labels) or not borne:
        return ""
    others = ", ".join(borne)
    missing = " and ".join(config.namespace_labels)
    return f"no sample bears {missing}, but some bear {others}: is namespace-labels right?"
