"""Finds out what the roles of a cluster let every authenticated caller scrape.

Knows which questions kmproxy asks about a caller, and asks them about a caller with no
right of its own. Must not know how findings are shown.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from kmproxy.auth.authorizer import NODE_METRICS
from kmproxy.check.report import Result
from kmproxy.check.steps import Steps
from kmproxy.config.sections import Config
from kmproxy.discovery.upstreams import UPSTREAMS
from kmproxy.kube.apiserver import ApiServer
from kmproxy.kube.reviews import ACCESS_REVIEWS, Caller, Question, access_review, read_access_review
from kmproxy.scrape.routes import NAMESPACES, UPSTREAM_PATH
from kmproxy.sources.endpoints import ENDPOINTS

SOMEBODY = Caller("kmproxy-check", groups=("system:authenticated",))
"""A made-up caller. It has only the rights that every authenticated caller has."""

DISCOVERY_PATHS = ("/sd/pods", "/sd/nodes")


def questions(config: Config) -> list[Question]:
    """The questions that this configuration asks about a caller that wants to see everything."""
    kubelet, authorization = config.kubelet, config.authorization
    if authorization.mode == "tenant":
        return [Question(resource=authorization.tenant_resource)]
    if authorization.mode != "kubernetes":
        return []
    by_path = authorization.attributes == "path"
    paths = [*ENDPOINTS, "/", *(DISCOVERY_PATHS if config.discovery.enabled else ())]
    if config.selection.info_metric and kubelet.all_nodes:
        paths.append(NAMESPACES)
    if config.upstreams:
        paths += [UPSTREAMS, *(UPSTREAM_PATH.format(name=each.name) for each in config.upstreams)]
    asked = [Question(path=path) for path in paths] if by_path else []
    if kubelet.all_nodes or not by_path:
        asked.append(Question(resource=NODE_METRICS))
    return asked


async def granted(api: ApiServer, config: Config) -> AsyncIterator[Question]:
    """The questions to which the answer is yes for every caller. Raises UpstreamError."""
    for question in questions(config):
        if read_access_review(await api.post(ACCESS_REVIEWS, access_review(SOMEBODY, question))):
            yield question


async def check_everybody(steps: Steps) -> None:
    """Find out whether a role lets every caller scrape, as default roles do for some paths."""
    heading = "Rights to scrape that every caller has, asked of the API server"
    async with steps.step("everybody", "authorization", heading):
        found = [str(each) async for each in granted(steps.clients.api, steps.config)]
        result: Result = "warning" if found else "ok"
        message = "no role lets every authenticated caller scrape"
        if found:
            message = f"every authenticated caller may {', '.join(found)}"
        steps.report.add("everybody", "authorization", result, message)
        steps.show([message])
