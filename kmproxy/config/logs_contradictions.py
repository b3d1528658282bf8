"""Finds settings of `kmproxy logs` that make no sense together.

Must not know where a value was written. A problem never shows a URL, because its query may hold a
secret.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from kmproxy.config.label_rules import WILDCARD
from kmproxy.config.logs import LOKI_KEY, OF_LINES, OWN_NAMES, TENANTS_KEY, LogsCommand, only_node
from kmproxy.config.logs_values import MAX_STREAM_LABELS, is_account
from kmproxy.config.sections import Config, KubeletConfig
from kmproxy.config.settings import settings
from kmproxy.config.types import shown_key

NO_URL: Final = "--loki-url is missing: a push endpoint, such as http://HOST:PORT/loki/api/v1/push"

_TENANT_HEADER = "x-scope-orgid"


def logs_contradictions(given: LogsCommand) -> tuple[list[str], list[str]]:
    """Returns problems and warnings about values that make no sense together."""
    logs = given.logs
    problems = [*_endpoint_problems(given), *_label_problems(given), *_tenant_problems(given)]
    if logs.source != "files":
        problems += _kubelet_problems(given.config, logs.source)
    if logs.source == "none" and not logs.events:
        problems.append("--source=none: nothing is left to send without --events")
    if logs.batch_bytes > logs.max_buffer_bytes:
        problems.append("--batch-bytes is more than --max-buffer-bytes")
    if logs.max_line_bytes > logs.batch_bytes:
        problems.append("--max-line-bytes is more than --batch-bytes")
    warnings = []
    if given.config.kubelet.scheme == "http" and logs.source == "files":
        problems.append("--kubelet-scheme=http: the read-only port serves no logs; leave it out")
    if given.tenants and logs.tenant_label is None:
        warnings.append(f"{TENANTS_KEY} has no effect without --tenant-label")
    return problems, warnings


def _endpoint_problems(given: LogsCommand) -> list[str]:
    """Returns a line for each key of `loki` that makes no sense beside the URL."""
    url, access = given.logs.loki_url, given.loki
    problems: list[str] = []
    if access is None or url is None:
        return problems
    if access.follow_redirects:
        why = "no redirect of a push is followed: write the URL that it leads to"
        problems.append(f"{LOKI_KEY}.follow_redirects: {why}")
    if url.startswith("http:"):
        if access.identifies or access.headers:
            why = "no credential and none of http_headers is sent over plain http"
            problems.append(f"--loki-url: {why}: write an https URL, or leave them out")
        if access.tls != type(access.tls)():
            problems.append(f"{LOKI_KEY}.tls_config: plain http has no certificate to verify")
    return problems


def _label_problems(given: LogsCommand) -> list[str]:
    """Returns a line for each label of streams that stands twice, and for too many labels."""
    logs, rules, pods = given.logs, given.config.labels.rules, given.config.pods
    own = "a label or metadata that kmproxy makes"
    problems = [
        f"--label: the label {rule.name!r} is {own}: write --label {rule.key}=NAME"
        for rule in rules
        if rule.name in OWN_NAMES
    ]
    problems += [
        f"--pod-label: the label {name!r} is {own}: write KEY=NAME"
        for name in pods.names
        if name in OWN_NAMES
    ]
    taken = {rule.name: "made by a label rule" for rule in rules if rule.name}
    externals = dict.fromkeys(OWN_NAMES, own) | dict.fromkeys(pods.names, "a label of pods") | taken
    for name, _ in logs.external_label:
        if (other := externals.get(name)) is not None:
            problems.append(f"--external-label: {name!r} is {other}")
        externals[name] = taken[name] = "given twice"
    known = (*OF_LINES, *pods.names)
    problems += [
        f"--stream-label: {name!r} is not one of {', '.join(known)}; other labels come by --label, "
        "--workload and --pod-label"
        for name in logs.stream_label
        if name not in known
    ]
    problems += [
        f"--stream-label: {name!r} is given twice"
        for name in dict.fromkeys(logs.stream_label)
        if logs.stream_label.count(name) > 1
    ]
    names = {*logs.stream_label, *taken}
    if len(names) > MAX_STREAM_LABELS:
        what = f"{len(names)} labels of a stream, at most {MAX_STREAM_LABELS}"
        problems.append(f"--label, --annotation, --stream-label, --external-label: {what}")
    return problems


def _tenant_problems(given: LogsCommand) -> list[str]:
    """Returns a line for each tenant that cannot be one, and for a label that no stream has."""
    logs, rules = given.logs, given.config.labels.rules
    problems = []
    names = [*logs.stream_label, *(rule.name for rule in rules if rule.name)]
    names += [name for name, _ in logs.external_label]
    wildcard = any(rule.key == WILDCARD for rule in rules)
    if logs.tenant_label is not None and logs.tenant_label not in names and not wildcard:
        known = ", ".join(names)
        what = f"no stream has the label {logs.tenant_label[:60]!r} (they have {known})"
        problems.append(f"--tenant-label: {what}")
    path = urlsplit(logs.loki_url or "").path
    if path.startswith("/insert/"):
        wanted = "VictoriaLogs takes ACCOUNT or ACCOUNT:PROJECT, numbers below 2^32"
        if logs.default_tenant is not None and not is_account(logs.default_tenant):
            problems.append(f"--default-tenant: {wanted}")
        problems += [
            f"{TENANTS_KEY}.{shown_key(value)}: {wanted}"
            for value, tenant in given.tenants.items()
            if not is_account(tenant)
        ]
    if logs.tenant_label is None and logs.default_tenant is None:
        return problems
    if given.loki and any(name.lower() == _TENANT_HEADER for name, _ in given.loki.headers):
        problems.append(
            f"{LOKI_KEY}.http_headers: X-Scope-OrgID is set by --tenant-label, --default-tenant"
        )
    return problems


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _kubelet_problems(config: Config, source: str) -> list[str]:
    """Returns a line for each setting of kubelets: the API server's pods/log asks no kubelet."""
    why = f"makes no sense beside --source={source}, which asks no kubelet itself"
    blank = KubeletConfig()
    given = [
        f"--{spec.name}"
        for key, spec in settings(KubeletConfig).items()
        if key != "node" and getattr(config.kubelet, key) != getattr(blank, key)
    ]
    problems = [f"{', '.join(given)} {why}"] if given else []
    if source == "none" and only_node(config) is not None:
        problems.append(f"--node-name-or-ip {why}")
    elif _is_address(only_node(config) or ""):
        what = "an address, but --source=api selects the pods of a node by its name"
        problems.append(f"--node-name-or-ip: {what} (spec.nodeName)")
    if config.access is not None:
        problems.append(f"kubelet: the section {why}")
    return problems
