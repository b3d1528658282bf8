"""The settings of the other commands, besides or in place of the daemon's settings.

Knows names, types and defaults, in frozen sections. Must not know where values
come from, or what a command does with them.
"""

from __future__ import annotations

from dataclasses import dataclass

from kmproxy.config.settings import setting
from kmproxy.config.types import (
    Address,
    one_of,
    parse_address,
    parse_bool,
    parse_count,
    parse_host,
    parse_port,
    parse_text,
    parse_word,
)


@dataclass(frozen=True, slots=True)
class EnrichConfig:
    """The further settings of `kmproxy enrich`, which enriches standard input."""

    namespaces: str | None = setting(
        "namespaces", parse_text, None, "FILE",
        "the output of kubectl get namespaces -o json, or -o yaml",
    )  # fmt: skip
    strict: bool = setting(
        "strict", parse_bool, False, "",
        "exit with status 1 if a line could not be understood; the output is the same",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DemoConfig:
    """The settings of `kmproxy demo`: the simulated cluster and its addresses."""

    listen: Address = setting(
        "listen", parse_address, Address("127.0.0.1", 8080), "ADDR:PORT",
        "the daemon's enriched metrics", aliases={"metrics-port": "127.0.0.1:{}"},
    )  # fmt: skip
    telemetry_listen: Address = setting(
        "telemetry-listen", parse_address, Address("127.0.0.1", 8081), "ADDR:PORT",
        "the daemon's health and own metrics",
    )  # fmt: skip
    api_port: int = setting(
        "api-port", parse_port, 8001, "PORT",
        "port of the simulated API server on 127.0.0.1, plain HTTP as of kubectl proxy",
    )  # fmt: skip
    nodes: int = setting(
        "nodes", parse_count, 2, "N",
        "simulated nodes, each with a kubelet",
    )  # fmt: skip
    payload: str | None = setting(
        "payload", parse_text, None, "FILE",
        "serve this exposition as every node's /metrics/cadvisor",
    )  # fmt: skip
    label: tuple[str, ...] = setting(
        "label", parse_word, ("team",), "KEY[=NAME]",
        "namespace label KEY becomes metric label NAME", repeatable=True,
    )  # fmt: skip
    logs: bool = setting(
        "logs", parse_bool, False, "",
        "show kmproxy logs: containers of the first node write, and a stand-in of Loki prints",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class BenchConfig:
    """The settings of `kmproxy bench`: the measurements and their duration."""

    payload: tuple[str, ...] = setting(
        "payload", parse_text, (), "FILE",
        "measure on this exposition instead of generated ones", repeatable=True,
    )  # fmt: skip
    seconds: int = setting(
        "seconds", parse_count, 20, "N",
        "seconds that the measurement takes; with --daemon about twice as many",
    )  # fmt: skip
    daemon: bool = setting(
        "daemon", parse_bool, False, "",
        "also measure whole scrapes, through the daemon and through nginx",
    )  # fmt: skip
    output: str = setting(
        "output", one_of("text", "json"), "text", "text|json",
        "tables or one JSON document",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class CheckConfig:
    """The settings of the preflight's report. All other settings are the daemon's."""

    output: str = setting(
        "output", one_of("text", "json"), "text", "text|json",
        "text, line by line, or one JSON document",
    )  # fmt: skip
    logs: bool = setting(
        "logs", parse_bool, False, "",
        "check what kmproxy logs needs; the other flags are then those of logs",
    )  # fmt: skip
    try_node: str | None = setting(
        "try-node", parse_host, None, "NODE",
        "with --all-nodes: the node whose metrics are fetched (--node-name-or-ip, else the first)",
    )  # fmt: skip
