"""Answers of HTTP service discovery."""

from __future__ import annotations

from tests.support.pods import flat


async def answer(proxy, path="/sd/pods", method="GET", **headers):
    """Status, headers and body of a request; headers by their names with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with proxy.session.request(method, proxy.url + path, headers=named) as response:
        return response.status, response.headers, await response.read()


async def targets(proxy, path="/sd/pods"):
    """The targets that are found at a path."""
    status, _, body = await answer(proxy, path)
    assert status == 200, body
    return flat(body)


def teams(found):
    """The team of each namespace's targets."""
    return {(t["__meta_kubernetes_namespace"], t.get("team")) for t in found}
