"""Answers of HTTP service discovery."""

from __future__ import annotations


async def answer(proxy, path="/sd/pods", method="GET", **headers):
    """Status, headers and body of a request; headers by their names with underscores."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with proxy.session.request(method, proxy.url + path, headers=named) as response:
        return response.status, response.headers, await response.read()
