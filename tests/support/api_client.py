"""Requests to the simulated API server: one document, or the events of a watch."""

import json
from contextlib import asynccontextmanager

NAMESPACES = "/api/v1/namespaces"


async def get(session, path, **params):
    """Return status and document of a GET."""
    async with session.get(path, params=params) as answer:
        return answer.status, await answer.json()


@asynccontextmanager
async def watching(session, *, accept="application/json", path=NAMESPACES, **params):
    """Open a watch; give a function that returns the next event, or None at a clean end."""
    params = {"watch": "true", **params}
    async with session.get(path, params=params, headers={"Accept": accept}) as answer:
        assert answer.status == 200

        async def event():
            line = await answer.content.readline()
            return json.loads(line) if line else None

        yield event


def names(document):
    """Return the names of a list's items."""
    return [item["metadata"]["name"] for item in document["items"]]
