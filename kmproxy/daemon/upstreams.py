"""The upstreams of the configuration: a client, a limit and a recipe for each.

Knows what an upstream does not share with kubelets. Must not know what is fetched. It is imported
only if the configuration has upstreams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace

from aiohttp import ClientSession

from kmproxy.client.addresses import WrittenAddresses
from kmproxy.client.factory import UpstreamFactory
from kmproxy.client.resolver import NameThreads
from kmproxy.client.session import open_session
from kmproxy.client.tls import TlsContext, Trust
from kmproxy.config.recipe import read_namespace_labels, read_recipe
from kmproxy.config.sections import UPSTREAMS_KEY, Config
from kmproxy.daemon.runtime import Runtime
from kmproxy.errors import ConfigError
from kmproxy.exposition.series import SeriesRoom
from kmproxy.scrape.source import UpstreamSource
from kmproxy.sources.http import HttpSource
from kmproxy.sources.slots import ConcurrencyLimit
from kmproxy.telemetry import CredentialErrors


async def open_upstreams(
    config: Config,
    session: ClientSession,
    stack: AsyncExitStack,
    environment: Mapping[str, str],
    *,
    clock: Callable[[], float],
    errors: CredentialErrors,
) -> dict[str, HttpSource]:
    """The source of each upstream, by name. Raises ConfigError with the problems of all.

    `session` is for connections to proxies and OAuth 2.0 token endpoints. Each upstream has a
    session of its own for direct connections, which refuses the addresses that a name hides. A
    session resolves one name at a time, so there is a thread for the name of each upstream.
    """
    problems: list[str] = []
    sources = {}
    contexts: dict[Trust, TlsContext] = {}
    threads = NameThreads(len(config.upstreams))
    stack.callback(threads.close)
    for each in config.upstreams:
        name = f"upstream {each.name}"
        checked = open_session(WrittenAddresses(name), threads.resolver())
        await stack.enter_async_context(checked)
        section = f"{UPSTREAMS_KEY}[{each.name}]"
        factory = UpstreamFactory(session, stack, environment, clock, errors, section)
        try:
            upstream = factory.exporter(name, each.url, each.access, checked, contexts)
        except ConfigError as error:
            problems += error.problems
        else:
            sources[each.name] = HttpSource(each, upstream, config.kubelet.max_response_bytes)
    if problems:
        raise ConfigError(problems)
    return sources


def upstream_sources(
    runtime: Runtime, sources: Mapping[str, HttpSource], *, info: bool
) -> dict[str, UpstreamSource]:
    """The source of each upstream's scrapes, by name. `info` adds the info metric.

    Each upstream has a limit of its own. All upstreams together have one room for series, apart
    from the room of kubelets. Their samples get labels of namespaces only.
    """
    config = runtime.config
    recipe = replace(read_recipe(config.labels, config.selection), info=info)
    most = config.server.max_concurrency
    room = SeriesRoom(most)
    return {
        each.name: UpstreamSource(
            sources[each.name],
            ConcurrencyLimit(most, runtime.metrics.slots),
            room,
            replace(recipe, namespace_labels=read_namespace_labels(each)),
        )
        for each in config.upstreams
    }
