"""Tries the requests of `kmproxy logs` once: a list of pods, and the beginning of one log.

Must not send a line to the push endpoint, nor change the positions.
"""

from __future__ import annotations

from kmproxy.check.permissions import PermissionCheck
from kmproxy.check.steps import Steps
from kmproxy.config.logs import only_node
from kmproxy.errors import ApiError, ForbiddenError, UpstreamError
from kmproxy.kube.apiserver import REQUEST_TIMEOUT
from kmproxy.kube.nodes import Node
from kmproxy.kube.permissions import NODE_LOG, NODE_PODS, NODE_PROXY, POD_LOG, advice
from kmproxy.kube.watch import WatchState
from kmproxy.logs.api_pods import explained, list_pods, places
from kmproxy.logs.cri import CriReader
from kmproxy.logs.pods import Followed, LogPodReader, LogSelection
from kmproxy.sources.kubelet import LOGS

TRIED = 4096
"""Bytes of one log file that are looked at."""


async def check_logs(steps: Steps, node: Node, permissions: PermissionCheck) -> None:
    """List the pods of a node, and read the beginning of one log file."""
    found = await _list_pods(steps, node, permissions)
    kubelet = steps.clients.kubelet
    async with steps.step("logs", "log files", "Log files, tried once"):
        answer = await kubelet.log(node, LOGS)
        permissions.prove(NODE_LOG)
        if answer.status != 200:
            message = f"the kubelet has no {LOGS}: is its podLogsDir elsewhere? See --source=api"
            raise UpstreamError("status", message)
        if not found:
            steps.report.add("logs", "log files", "warning", "served; no container to try")
            return
        first = found[0]
        path = f"{LOGS}{_folder(first)}/{first.latest}.log"
        answer = await kubelet.log(node, path, (0, TRIED - 1))
        reader = CriReader(TRIED)
        reader.feed(answer.body)
        name = f"{first.container.pod}/{first.container.name}"
        if answer.status == 404:
            message = f"the kubelet serves its logs, but not the log of {name}"
            raise UpstreamError("status", message)
        if reader.is_docker:
            message = "they hold docker's JSON lines, which are not supported"
            raise UpstreamError("status", message)
        message = f"served; {len(answer.body)} bytes of {name} were read"
        steps.report.add("logs", "log files", "ok", message)
        steps.show([message])


async def _list_pods(steps: Steps, node: Node, permissions: PermissionCheck) -> list[Followed]:
    """The containers whose logs would be read. None of them if the list fails."""
    if steps.logs is None:
        return []
    found: list[Followed] = []
    async with steps.step("pods", "pods", "Pods, listed once"):
        reader = LogPodReader(LogSelection.of(steps.logs.logs))
        try:
            await steps.clients.kubelet.pods(node, reader)
        except ForbiddenError as error:
            if error.resource == NODE_PROXY.resource:
                permissions.want_proxy()
            raise
        found += reader.finish().values()
        permissions.prove(NODE_PODS)
        message = f"{len(found)} containers to read"
        steps.report.add("pods", "pods", "ok", message)
        steps.show([message])
    return found


async def check_api_logs(steps: Steps, permissions: PermissionCheck) -> None:
    """List the pods, and read the beginning of one log from the API server."""
    if steps.logs is None:
        return
    logs, api, found = steps.logs.logs, steps.clients.api, list[Followed]()
    selection, node = LogSelection.of(logs), only_node(steps.config)

    def read(data: bytes) -> tuple[str, LogPodReader]:
        reader = LogPodReader(selection)
        return reader.add(data), reader

    async with steps.step("pods", "pods", "Pods, listed once"):
        for path in places(logs.namespace):
            state = WatchState(uniform=lambda low, _: low)
            try:
                pods, _ = await list_pods(api, path, node, state, read)
            except ApiError as error:
                raise UpstreamError(error.reason, explained(error, "list")) from error
            found += [each for containers in pods.values() for each in containers]
        message = f"{len(found)} containers to read"
        steps.report.add("pods", "pods", "ok", message)
        steps.show([message])
    async with steps.step("logs", "pods/log", "A log, tried once"):
        if not found:
            steps.report.add("logs", "pods/log", "warning", "there is no container to try")
            return
        one = found[0].container
        path = f"/api/v1/namespaces/{one.namespace}/pods/{one.pod}/log"
        params = {"container": one.name, "timestamps": "true", "limitBytes": str(TRIED)}
        size = 0
        try:
            async with api.stream(path, params, accept="*/*", silence=REQUEST_TIMEOUT) as pieces:
                async for piece in pieces:
                    size += len(piece)
                    if size >= TRIED:
                        break
        except ApiError as error:
            message = error.summary
            if error.code == 403:
                message = f"the API server forbids to read logs: {advice(POD_LOG)}"
            raise UpstreamError(error.reason, message) from error
        permissions.prove(POD_LOG)
        message = f"served; the log of {one.pod}/{one.name} was read"
        steps.report.add("logs", "pods/log", "ok", message)
        steps.show([message])


def _folder(followed: Followed) -> str:
    container = followed.container
    return f"{container.namespace}_{container.pod}_{container.uid}/{container.name}"
