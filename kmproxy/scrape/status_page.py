"""The status page: the HTML page at `/`, for a person.

Knows HTML, and which facts are useful to show. Must not know where the facts come from. It gets
no secret facts. The page has no script, no image and no content from other servers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from kmproxy.config.label_rules import WILDCARD, LabelRule


@dataclass(frozen=True, slots=True)
class Status:
    """The facts on the status page. `sync_age` is in seconds, or None before the first list."""

    version: str
    ready: bool
    trouble: str | None
    namespaces: int
    sync_age: float | None
    restored: bool
    rules: Sequence[LabelRule]
    on_conflict: str
    paths: Sequence[str]
    source: str


def status_page(status: Status) -> str:
    """Returns the status page as a whole HTML document."""
    age = "never" if status.sync_age is None else f"{status.sync_age:.0f} s ago"
    facts = [
        ("State", "ready" if status.ready else "not ready: kmproxy serves no metrics yet"),
        ("Namespaces", str(status.namespaces)),
        ("Confirmed by the API server", age),
        (
            "Labels from",
            "the snapshot, until the first list" if status.restored else "the cluster",
        ),
        ("Trouble", status.trouble or "none"),
        ("Metrics from", status.source),
        (
            "Labels that samples already have",
            "are kept" if status.on_conflict == "keep" else "are overwritten",
        ),
    ]
    return _PAGE.format(
        version=escape(status.version),
        color="#1a7f37" if status.ready else "#b35900",
        facts="".join(f"<tr><th>{escape(k)}<td>{escape(v)}" for k, v in facts),
        rules="".join(_rule(rule) for rule in status.rules)
        or "<tr><td colspan=3>none: samples are served as the kubelet sends them",
        paths="".join(_path(path) for path in status.paths),
    )


def _rule(rule: LabelRule) -> str:
    key = f"{rule.source} {rule.key}" if rule.key else "no key, only the default"
    if rule.key == WILDCARD:
        key = f"every {rule.source}"
    default = escape(rule.default) if rule.default else "&mdash;"
    return (
        f"<tr><td>{escape(key)}<td><code>{escape(rule.name) or 'its own name'}</code><td>{default}"
    )


def _path(path: str) -> str:
    if "{" in path:
        return f"<li><code>{escape(path)}</code>"
    return f'<li><a href="{escape(path)}"><code>{escape(path)}</code></a>'


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>kmproxy</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto;
         padding: 0 1rem; color: #1f2328; background: #fff; }}
  h1 {{ font-size: 1.5rem; border-left: .4rem solid {color}; padding-left: .6rem; }}
  h2 {{ font-size: 1.1rem; margin-top: 1.8rem; }}
  table {{ border-collapse: collapse; width: 100%; }}
  th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; vertical-align: top;
           border-bottom: 1px solid #d8dee4; }}
  th {{ font-weight: 600; }}
  tbody th {{ width: 16rem; }}
  code {{ font-size: .92em; }}
  ul {{ padding-left: 1.2rem; }}
</style>
<h1>kmproxy {version}</h1>
<p>Kubelet metrics with the labels of their namespaces.</p>
<table><tbody>{facts}</table>
<h2>Labels</h2>
<table><thead><tr><th>From the namespace's<th>Metric label<th>Default<tbody>{rules}</table>
<h2>Metrics</h2>
<ul>{paths}</ul>
</html>
"""
