"""`kmproxy check`: tries everything that the daemon will need.

Knows the order of the checks, and which of them need the result of another. Must not know how a
check is made. The daemon's own clients send all requests. No credential is shown, and none is sent
to a server to which the daemon would not send it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack

from kmproxy import __version__
from kmproxy.check.everybody import check_everybody
from kmproxy.check.kubelet import check_certificate, check_metrics, check_pods, find_node
from kmproxy.check.namespaces import list_labels
from kmproxy.check.permissions import PermissionCheck
from kmproxy.check.report import Report
from kmproxy.check.steps import STEP_TIMEOUT, Steps
from kmproxy.client.pin_file import PinFile
from kmproxy.config.logs import LogsCommand
from kmproxy.config.sections import Config
from kmproxy.daemon.clients import open_clients
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.errors import CredentialError
from kmproxy.web.config_file import find_web_config


async def check(
    config: Config,
    warnings: Sequence[str],
    environment: Mapping[str, str],
    *,
    announce: Callable[[str], None],
    show: Callable[[str], None] | None,
    try_node: str | None = None,
    step_timeout: float = STEP_TIMEOUT,
    logs: LogsCommand | None = None,
) -> Report:
    """Try everything that the daemon does, once. Raises ConfigError.

    `announce` gets a line at the beginning of each step. `show` gets the text of its results.
    `try_node` names the node to try if every node is served. A step may take `step_timeout`
    seconds. `logs` is given for the daemon of `kmproxy logs`; its `config` is the same.
    """
    report = Report(__version__)
    for warning in warnings:
        report.add("settings", "settings", "warning", warning)
    metrics, bearer = OwnMetrics(), config.authorization.mode != "none"
    web_file = find_web_config(
        config.server, bearer=bearer, clock=time.monotonic, metrics=metrics.web_file
    )
    if web_file:
        report.add(
            "web-config",
            "web config",
            "ok",
            "kmproxy can load the file and all files that it names",
        )
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(step_timeout):
                clients = await stack.enter_async_context(
                    open_clients(config, environment, clock=time.monotonic, metrics=metrics)
                )
        except CredentialError as error:
            report.add("identity", "identity", "failed", str(error))
            return report
        except TimeoutError:
            message = f"the kubeconfig's plugin has not answered within {step_timeout:g} s"
            report.add("identity", "identity", "failed", message)
            return report
        if (pinning := clients.pinning) and pinning.path:
            await PinFile(pinning.path, pinning.book, metrics.pin_file).load()  # only reads
        await _run(Steps(config, clients, report, announce, show, step_timeout, logs), try_node)
    return report


async def _run(steps: Steps, try_node: str | None) -> None:
    """Make all checks in order. Each adds its result to the report, also if it fails."""
    report, identity = steps.report, steps.clients.identity
    report.identity, report.api_server = repr(identity).strip("<>"), identity.server
    way = f", {identity.server} {identity.way}" if identity.way and identity.way.why else ""
    report.add("identity", "identity", "ok", f"{report.identity}{way}")
    begin = len(report.findings)
    permissions = PermissionCheck(steps)
    await permissions.ask()
    if steps.config.authorization.mode != "none":
        await check_everybody(steps)
    labels = await list_labels(steps)
    source = None if steps.logs is None else steps.logs.logs.source
    node = await find_node(steps, try_node) if source in {None, "files"} else None
    if source == "api":
        from kmproxy.check.logs import check_api_logs  # noqa: PLC0415 - most have none

        await check_api_logs(steps, permissions)
    elif source == "none":
        pass
    elif node is None:
        report.add("metrics", "metrics", "skipped", "no node to try")
    else:
        report.node = node.name
        await check_certificate(steps, node)
    if node is not None and steps.logs is not None:
        from kmproxy.check.logs import check_logs  # noqa: PLC0415 - most have none

        await check_logs(steps, node, permissions)
    elif node is not None:
        listed = steps.config.discovery.enabled or steps.config.pods.enabled
        pods = await check_pods(steps, node, permissions) if listed else None
        await check_metrics(steps, node, labels, permissions, pods)
    if steps.logs is not None and steps.logs.logs.events:
        from kmproxy.check.events import check_events  # noqa: PLC0415 - most have none

        await check_events(steps, steps.logs.logs)
    if steps.config.upstreams:
        from kmproxy.check.upstreams import check_upstreams  # noqa: PLC0415 - most have none

        await check_upstreams(steps, labels)
    report.findings[begin:begin] = permissions.findings()
