"""Tries the requests of `kmproxy logs --events` once: a list of events, and the Lease.

Must not take the Lease, nor send a line.
"""

from __future__ import annotations

import asyncio

from kmproxy.check.steps import Steps
from kmproxy.config.logs import LogsConfig
from kmproxy.errors import ApiError, UpstreamError
from kmproxy.kube.lease import Election
from kmproxy.kube.lease_holder import GROUP
from kmproxy.kube.object_list import ListReader
from kmproxy.kube.permissions import EVENTS, advice, lease
from kmproxy.kube.service_account import own_namespace
from kmproxy.logs.event_shipper import ANNOTATION
from kmproxy.logs.event_watch import EventWatch, event_namespaces, event_path


async def check_events(steps: Steps, logs: LogsConfig) -> None:
    """List one event of each watched namespace, and read the Lease."""
    async with steps.step("events", "events", "Kubernetes events, listed once"):
        for namespace in event_namespaces(logs.namespace):
            await _list_one(steps, namespace)
        steps.report.add("events", "events", "ok", "the API server lists them")
        steps.show(["the API server lists them"])
    async with steps.step("lease", "lease", "The Lease of the process that sends events"):
        name = logs.events_lease
        directory = steps.config.apiserver.service_account_dir
        where = name.namespace or own_namespace(directory)
        if where is None:
            what = f"this is not a pod ({directory} names no namespace)"
            message = f"--events-lease: {what}: give NAMESPACE/NAME"
            steps.report.add("lease", "lease", "failed", message)
            steps.show([message])
            return
        election = Election(name.name, where, "", ANNOTATION)
        message = await _holder(steps, election)
        steps.report.add("lease", "lease", "ok", message)
        steps.show([message])


async def _list_one(steps: Steps, namespace: str) -> None:
    params = EventWatch.list_params(limit=1)
    try:
        data = await steps.clients.api.get(event_path(namespace), params, accept="application/json")
        page = ListReader()
        for _ in page.raw(bytes(data)):
            pass
        page.finish()
    except ApiError as error:
        message = error.summary
        if error.code == 403:
            message = f"the API server forbids to list events: {advice(*EVENTS)}"
        raise UpstreamError(error.reason, message) from error


async def _holder(steps: Steps, election: Election) -> str:
    """Return what the Lease says. Raises UpstreamError."""
    where = f"{election.namespace}/{election.name}"
    path = f"{GROUP}/namespaces/{election.namespace}/leases/{election.name}"
    data: bytearray | None = None
    try:
        data = await steps.clients.api.get(path, {}, accept="application/json")
    except ApiError as error:
        if error.code == 403:
            wanted = [each for each in lease(election.namespace, election.name) if each.name]
            message = f"the API server forbids to get the Lease {where}: {advice(*wanted)}"
            raise UpstreamError(error.reason, message) from error
        if error.code != 404:
            raise
    election.observe(data, asyncio.get_running_loop().time())
    if data is None:
        return f"{where} is not there yet: the first process creates it"
    return f"{where}, held by {election.holder or 'no process'}"
