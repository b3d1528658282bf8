"""The payloads that are measured: expositions made by the simulator, and their namespaces.

Must not know what is measured on them. A megabyte is 10^6 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from kmproxy.bench.tables import MEGABYTE
from kmproxy.simulator.cadvisor import NodeMetrics, simulate_node

Namespaces = Mapping[str, Mapping[str, str]]
"""The labels of each namespace, by its name."""

_NOW = 1_795_000_000.0  # of the simulated samples, in seconds since the epoch

_POD = re.compile(rb'namespace="([^"\\\n]+)",pod="([^"\\\n]+)"')
_NAMESPACE = re.compile(rb'[{,]namespace="([^"\\\n]+)"')


def namespaces_of(texts: Iterable[bytes]) -> Namespaces:
    """The namespaces in the texts, or twenty made-up ones. Each has the three labels."""
    found = {name.decode(errors="replace") for text in texts for name in _NAMESPACE.findall(text)}
    return {
        name: {
            "team": f"team-{number % 7}",
            "env": ("production", "staging")[number % 2],
            "owner.example.com/cost-center": f"cc-{number:04}",
        }
        for number, name in enumerate(sorted(found) or [f"shop-{n:02}" for n in range(20)])
    }


def cadvisor(spaces: Namespaces, nodes: int = 4) -> bytes:
    """The texts of /metrics/cadvisor of several nodes, one after another: about 3 MB each."""
    return b"".join(
        NodeMetrics(simulate_node(f"node-{number}", spaces)).text("/metrics/cadvisor", _NOW)
        for number in range(nodes)
    )


def kubelet(spaces: Namespaces) -> bytes:
    """A kubelet's own /metrics, repeated to about 6 MB. Few lines of it have a namespace."""
    text = NodeMetrics(simulate_node("node-0", spaces)).text("/metrics", _NOW)
    return text * (6 * MEGABYTE // len(text) + 1)


def kube_state_metrics(spaces: Namespaces, pods: int = 400) -> bytes:
    """A text like that of kube-state-metrics: short lines, the namespace at any place, or none."""
    where = [
        (space, f"{space}-web-{n:05x}", f"{n:08x}-uid") for space in spaces for n in range(pods)
    ]
    families: dict[str, list[str]] = {}
    for space, pod, uid in where:
        what = f'namespace="{space}",pod="{pod}",uid="{uid}"'
        samples = [
            ("kube_pod_info", f'{what},host_ip="10.0.0.1",node="node-1"', "1"),
            ("kube_pod_status_phase", f'{what},phase="Pending"', "0"),
            ("kube_pod_status_phase", f'{what},phase="Running"', "1"),
            ("kube_pod_created", f'pod="{pod}",uid="{uid}",namespace="{space}"', "1.795e+09"),
            ("kube_service_info", f'service="{pod}",namespace="{space}"', "1"),
            ("kube_node_status_condition", f'node="{pod}",condition="Ready"', "1"),
        ]
        for name, labels, value in samples:
            families.setdefault(name, []).append(f"{name}{{{labels}}} {value}")
    text = [f"# TYPE {name} gauge\n" + "\n".join(rows) for name, rows in families.items()]
    return "\n".join([*text, ""]).encode()


def beginning(text: bytes, size: int) -> bytes:
    """The first whole lines of a text, of at least `size` bytes together, or the whole text."""
    return text[: text.find(b"\n", size - 1) + 1] or text


def mesh(spaces: Namespaces, count: int = 20_000) -> bytes:
    """A text like that of a service mesh: each sample names the namespaces of both sides."""
    names = list(spaces)
    sample = (
        'istio_requests_total{{reporter="destination",source_workload="web-{0}",'
        'source_canonical_service="web-{0}",source_workload_namespace="{1}",'
        'source_principal="spiffe://cluster.local/ns/x/sa/web",destination_workload="page-v1",'
        'destination_workload_namespace="{2}",'
        'destination_principal="spiffe://cluster.local/ns/y/sa/page",response_code="{3}",'
        'connection_security_policy="mutual_tls"}} {4}'
    )
    rows = [
        sample.format(n % 97, names[n % 7 % len(names)], names[n % len(names)], 200 + n % 5, n)
        for n in range(count)
    ]
    return "\n".join(["# TYPE istio_requests_total counter", *rows, ""]).encode()


def known_pods(text: bytes, count: int = 10_000) -> dict[tuple[bytes, bytes], bytes]:
    """The labels of the pods in a text, and of others, together at least `count`."""
    pods = {
        (space, pod): b',workload="%b",workload_type="deployment"' % pod[:-6]
        for space, pod in set(_POD.findall(text))
    }
    others = ((b"other", b"pod-%05d" % number) for number in range(count - len(pods)))
    return pods | dict.fromkeys(others, b',workload="other",workload_type="deployment"')
