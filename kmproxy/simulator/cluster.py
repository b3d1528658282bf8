"""A simulated cluster on loopback sockets: an API server and kubelets that trust one another.

Knows certificates, tokens, ports, and the files that a pod or a user gets from its cluster. A
cluster starts in a few tens of milliseconds, and several can run at the same time. Must not know
anything of the proxy under test.
"""

from __future__ import annotations

import base64
import json
import ssl
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import trustme

from kmproxy.simulator.api import SimAPI
from kmproxy.simulator.authority import CERTIFICATE_USER, SERVICE_ACCOUNT, Authority
from kmproxy.simulator.cadvisor import simulate_node
from kmproxy.simulator.kubelet import SimKubelet
from kmproxy.simulator.logs import LogPod, SimLogs
from kmproxy.simulator.objects import node_object
from kmproxy.simulator.pods import pod_object
from kmproxy.simulator.rbac import AUTHENTICATED, Attributes
from kmproxy.simulator.wire import HOST, Payload

if TYPE_CHECKING:
    from types import TracebackType

DEFAULT_NAMESPACES: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "frontend-service1": {"team": "frontend"},
    "frontend-service2": {"team": "frontend"},
    "kube-system": {},
    "monitoring": {},
    "no-team": {},
    "payments": {"team": "payments", "owner.example.com/cost-center": "cc-42"},
}
UPTIME = 3600.0
"""Seconds that the nodes of a new cluster have been up."""

Auth = Literal["token", "client-certificate", "exec"]


class SimCluster:
    """An API server and a kubelet for each node. It runs once, for the length of `async with`.

    `payload` is a file that every kubelet serves unchanged as `/metrics/cadvisor`. `api_port` is
    the plain port of the API server (0: any). Raises OSError if the port is taken.

    `hosts` are loopback addresses in the order of the nodes. With them the kubelets listen on
    `kubelet_port` of these addresses, as real nodes do. Without them each kubelet listens on a
    port of its own at the first loopback address.
    """

    def __init__(
        self,
        nodes: Iterable[str] = ("node-a", "node-b"),
        namespaces: Mapping[str, Mapping[str, str]] = DEFAULT_NAMESPACES,
        *,
        payload: Path | None = None,
        pods_per_namespace: int = 3,
        api_port: int = 0,
        hosts: Sequence[str] = (),
        kubelet_port: int = 0,
    ) -> None:
        nodes = tuple(nodes)
        places = dict(zip(nodes, hosts or [HOST] * len(nodes), strict=True))
        self._authorities = trustme.CA(organization_name="kmproxy simulated cluster")
        self._payload = Payload(payload) if payload is not None else None
        self._exit = AsyncExitStack()
        self.ca_pem = self._authorities.cert_pem.bytes()
        self.authority = Authority()
        self.token = self.authority.issue(SERVICE_ACCOUNT)
        server = self._context(ssl.PROTOCOL_TLS_SERVER, HOST, "localhost", *nodes, *hosts)
        started = time.time() - UPTIME
        self.kubelets = {
            name: SimKubelet(
                simulate_node(
                    name, namespaces, pods_per_namespace=pods_per_namespace, started=started
                ),
                server,
                authenticate=self._authenticate,
                authorize=partial(self._authorize, name),
                payload=self._payload,
                host=places[name],
                port=kubelet_port,
            )
            for name in nodes
        }
        self.api = SimAPI(
            self.authority,
            self.kubelets,
            server_context=server,
            client_context=self._context(
                ssl.PROTOCOL_TLS_CLIENT, common_name="kube-apiserver-kubelet-client"
            ),
            plain_port=api_port,
        )
        for name, labels in namespaces.items():
            self.api.namespaces.apply(name, labels)

    def __repr__(self) -> str:
        nodes = ", ".join(self.kubelets)
        return f"<SimCluster {self.api.url}, nodes {nodes}, {len(self.api.namespaces)} namespaces>"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            if self._payload is not None:
                stack.callback(self._payload.close)
            for kubelet in self.kubelets.values():
                stack.push_async_callback(kubelet.stop)
                await kubelet.start()
            stack.push_async_callback(self.api.stop)
            for name, kubelet in self.kubelets.items():
                self.api.store.put("nodes", node_object(name, kubelet.port, kubelet.host))
                for pod in kubelet.node.pods:
                    item = pod_object(kubelet.node, pod, kubelet.host)
                    self.api.store.put("pods", item)
            await self.api.start()
            self.api.take_backup()
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._exit.aclose()

    def _authenticate(self, token: str) -> str | None:
        """The user of a token, as a kubelet asks the API server."""
        self._require_api()
        return self.authority.authenticate(token)

    def _require_api(self) -> None:
        if not self.api.up:
            raise ConnectionRefusedError

    def _authorize(self, node: str, user: str, verb: str, resource: str) -> bool:
        """Whether a user has a right on a node, as its kubelet asks the API server."""
        self._require_api()
        return self.authority.permits(
            user, (AUTHENTICATED,), Attributes(verb, resource=resource, name=node)
        )

    def show_logs(self, node: str, logs: SimLogs) -> None:
        """Serve log files by a node's kubelet and by pods/log, and show their pods in the API."""
        self.kubelets[node].logs = logs
        logs.on_change = partial(self._show_pod, logs)

    def _show_pod(self, logs: SimLogs, pod: LogPod) -> None:
        name = f"{pod.namespace}/{pod.name}"
        known = self.api.store.objects["pods"].get(name)
        if known is not None and (pod not in logs.pods or known["metadata"]["uid"] != pod.uid):
            self.api.services.remove("pods", name)
        if pod in logs.pods:
            head = {"kind": "Pod", "apiVersion": "v1"}
            self.api.services.put("pods", head | pod.document())

    def rotate_token(self) -> str:
        """Replace the daemon's token. The old one is refused at once. Files are not changed."""
        self.authority.revoke(self.token)
        self.token = self.authority.issue(SERVICE_ACCOUNT)
        return self.token

    def write_service_account(self, directory: Path) -> None:
        """Write the files `token`, `ca.crt` and `namespace`, as a pod gets them."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in (
            ("token", self.token.encode()),
            ("ca.crt", self.ca_pem),
            ("namespace", b"kmproxy"),
        ):
            fresh = directory / f".{name}.new"
            fresh.write_bytes(content)
            fresh.replace(directory / name)

    def write_kubeconfig(self, path: Path, *, auth: Auth = "token") -> None:
        """Write a kubeconfig for the API server's TLS port.

        With `exec`, a file next to it holds the output of the plugin: the token that is valid now.
        """
        cluster = {"server": self.api.url, "certificate-authority-data": _base64(self.ca_pem)}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "sim",
            "clusters": [{"name": "sim", "cluster": cluster}],
            "users": [{"name": "kmproxy", "user": self._user(path, auth)}],
            "contexts": [{"name": "sim", "context": {"cluster": "sim", "user": "kmproxy"}}],
        }
        path.write_text(json.dumps(document, indent=2), encoding="utf-8")
        path.chmod(0o600)

    def _user(self, path: Path, auth: Auth) -> dict[str, Any]:
        if auth == "token":
            return {"token": self.token}
        if auth == "client-certificate":
            leaf = self._authorities.issue_cert(common_name=CERTIFICATE_USER)
            chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
            key = leaf.private_key_pem.bytes()
            return {"client-certificate-data": _base64(chain), "client-key-data": _base64(key)}
        version = "client.authentication.k8s.io/v1"
        credential = path.with_name(path.name + ".credential.json")
        status = {"status": {"token": self.token}}
        document = {"apiVersion": version, "kind": "ExecCredential", **status}
        credential.write_text(json.dumps(document), encoding="utf-8")
        program = "import sys; print(open(sys.argv[1]).read())"
        plugin = {"apiVersion": version, "command": sys.executable, "interactiveMode": "Never"}
        return {"exec": plugin | {"args": ["-c", program, str(credential)]}}

    def _context(self, purpose: int, *names: str, common_name: str | None = None) -> ssl.SSLContext:
        context = ssl.SSLContext(purpose)
        self._authorities.configure_trust(context)
        self._authorities.issue_cert(*names, common_name=common_name).configure_cert(context)
        if purpose == ssl.PROTOCOL_TLS_SERVER:
            context.verify_mode = ssl.CERT_OPTIONAL
        return context


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
