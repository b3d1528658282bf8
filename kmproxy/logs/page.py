"""The page of `kmproxy logs` for people, and `/targets` as JSON.

Knows HTML and JSON. Must not know where the facts come from. It gets no secret facts, and no text
of any log. The page has no script, no image and no content from other servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import msgspec

MAX_ROWS = 1000
"""Containers that the page shows at most. `/targets` has all."""


class Target(msgspec.Struct, frozen=True):
    """A container whose log is read. `last_line` is in seconds since 1970, None without one."""

    namespace: str
    pod: str
    uid: str
    container: str
    instance: int
    labels: dict[str, str]
    tenant: str | None
    position: object
    lag_bytes: int
    last_line: float | None
    last_error: str | None


class State(msgspec.Struct, frozen=True):
    """The facts at the top of the page. `oldest` is the age of the oldest unsent line."""

    version: str
    problem: str | None
    reading: str | None
    sending: str | None
    source: str
    endpoint: str
    events: str | None
    held: int
    buffer: int
    oldest: float


def targets_document(targets: Sequence[Target]) -> bytes:
    """Return the targets as JSON."""
    return msgspec.json.encode(targets)


def logs_page(state: State, targets: Sequence[Target]) -> str:
    """Return the page as a whole HTML document."""
    facts = [
        ("State", f"not ready: {state.problem}" if state.problem else "ready"),
        ("Logs from", state.source),
        ("Trouble with reading", state.reading or "none"),
        ("Lines to", state.endpoint),
        ("Trouble with sending", state.sending or "none"),
        *([("Kubernetes events", state.events)] if state.events else []),
        ("Held in memory", f"{state.held:,} of {state.buffer:,} bytes"),
        ("Oldest unsent line", f"{state.oldest:.0f} s old" if state.oldest else "none"),
        ("Containers", str(len(targets))),
    ]
    return _PAGE.format(
        version=escape(state.version),
        color="#b35900" if state.problem or state.reading or state.sending else "#1a7f37",
        facts="".join(f"<tr><th>{escape(k)}<td>{escape(v)}" for k, v in facts),
        rows="".join(_row(each) for each in targets[:MAX_ROWS]) or "<tr><td colspan=5>none",
    )


def _row(target: Target) -> str:
    labels = ", ".join(f'{name}="{value}"' for name, value in target.labels.items())
    name = f"{target.namespace}/{target.pod}/{target.container}"
    cells = (name, labels, target.tenant or "", str(target.lag_bytes), target.last_error or "")
    return "<tr>" + "".join(f"<td>{escape(cell)}" for cell in cells)


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>kmproxy logs</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
         padding: 0 1rem; color: #1f2328; background: #fff; }}
  h1 {{ font-size: 1.5rem; border-left: .4rem solid {color}; padding-left: .6rem; }}
  h2 {{ font-size: 1.1rem; margin-top: 1.8rem; }}
  table {{ border-collapse: collapse; width: 100%; }}
  th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; vertical-align: top;
           border-bottom: 1px solid #d8dee4; overflow-wrap: anywhere; }}
  th {{ font-weight: 600; }}
  tbody th {{ width: 16rem; }}
</style>
<h1>kmproxy logs {version}</h1>
<p>Container logs with the labels of their namespaces. As JSON: <a href="/targets">/targets</a></p>
<table><tbody>{facts}</table>
<h2>Containers</h2>
<table><thead><tr><th>Container<th>Stream<th>Tenant<th>Bytes behind<th>Last error
<tbody>{rows}</table>
</html>
"""
