"""A real API server with its etcd, on loopback, and simulated kubelets that ask it for reviews.

Knows how both are started, stopped and asked. There is no controller: nothing creates pods or
tokens by itself, and the tests do what a controller would. RBAC is on, with Kubernetes' default
roles; the admin's requests are those of `system:masters`.
"""

from __future__ import annotations

import base64
import http.client
import json
import signal
import ssl
import subprocess
import time

import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from kmproxy.simulator.cadvisor import simulate_node
from kmproxy.simulator.kubelet import SimKubelet
from kmproxy.simulator.objects import node_object
from tests.support.programs import TOOLS, free_port

HOST = "127.0.0.1"
ISSUER = "https://kubernetes.default.svc"
ADMIN = "admin-token"
KUBELET_CLIENT = "kube-apiserver-kubelet-client"
"""The user as which the API server asks kubelets."""
PATIENCE = 120.0
"""Seconds that a start may take; it takes three on an idle machine."""

RESOURCES = {
    "Namespace": ("/api/v1", "namespaces", False),
    "Node": ("/api/v1", "nodes", False),
    "Pod": ("/api/v1", "pods", True),
    "Service": ("/api/v1", "services", True),
    "ServiceAccount": ("/api/v1", "serviceaccounts", True),
    "ConfigMap": ("/api/v1", "configmaps", True),
    "Secret": ("/api/v1", "secrets", True),
    "DaemonSet": ("/apis/apps/v1", "daemonsets", True),
    "Deployment": ("/apis/apps/v1", "deployments", True),
    "StatefulSet": ("/apis/apps/v1", "statefulsets", True),
    "PodDisruptionBudget": ("/apis/policy/v1", "poddisruptionbudgets", True),
    "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies", True),
    "ClusterRole": ("/apis/rbac.authorization.k8s.io/v1", "clusterroles", False),
    "ClusterRoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "clusterrolebindings", False),
    "Role": ("/apis/rbac.authorization.k8s.io/v1", "roles", True),
    "RoleBinding": ("/apis/rbac.authorization.k8s.io/v1", "rolebindings", True),
}
"""The kinds that the manifests have: the path of the API, the resource, whether it is namespaced.
Kinds of other projects, such as a PodMonitor, are not among them: this API server knows none."""


class RequestError(Exception):
    """An answer that is no 2xx, with its status and the message of its Status object."""

    def __init__(self, code, message):
        self.code = code
        super().__init__(f"{code}: {message}")


class ControlPlane:
    """An etcd and an API server as processes, from `start` to `stop`.

    `warnings` holds the Warning headers of all answers. The API server keeps its port over a
    restart.
    """

    def __init__(self, directory):
        self.directory = directory
        self.port = free_port()
        self.url = f"https://{HOST}:{self.port}"
        self.warnings = []
        self._etcd = self._api = None
        self._etcd_port, self._peer_port = free_port(), free_port()
        self.authority = trustme.CA(organization_name="kmproxy tests")
        self.ca_pem = self.authority.cert_pem.bytes()
        self._context = ssl.create_default_context(cadata=self.ca_pem.decode())
        self._write_files()

    def _write_files(self):
        (self.directory / "ca.crt").write_bytes(self.ca_pem)
        self._write_certificate("tls", self.authority.issue_cert(HOST, "127.0.0.2", "localhost"))
        client = self.authority.issue_cert("kube-apiserver", common_name=KUBELET_CLIENT)
        self._write_certificate("kubelet-client", client)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (self.directory / "sa.key").write_bytes(private)
        (self.directory / "sa.pub").write_bytes(public)
        (self.directory / "tokens.csv").write_text(f'{ADMIN},admin,admin,"system:masters"\n')

    def _write_certificate(self, name, leaf):
        (self.directory / f"{name}.key").write_bytes(leaf.private_key_pem.bytes())
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        (self.directory / f"{name}.crt").write_bytes(chain)

    def start(self):
        """Run both, and wait until the API server is ready and has its default roles."""
        etcd = f"http://{HOST}:{self._etcd_port}"
        peer = f"http://{HOST}:{self._peer_port}"
        self._etcd = self._run(
            "etcd",
            f"--data-dir={self.directory / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=error",
        )
        self.start_api()

    def start_api(self):
        """Run the API server, and wait until it is ready."""
        files = self.directory
        self._api = self._run(
            "kube-apiserver",
            f"--etcd-servers=http://{HOST}:{self._etcd_port}",
            f"--bind-address={HOST}",
            f"--secure-port={self.port}",
            "--endpoint-reconciler-type=none",  # a loopback address cannot be advertised
            f"--tls-cert-file={files / 'tls.crt'}",
            f"--tls-private-key-file={files / 'tls.key'}",
            "--authorization-mode=RBAC",
            f"--token-auth-file={files / 'tokens.csv'}",
            f"--kubelet-client-certificate={files / 'kubelet-client.crt'}",
            f"--kubelet-client-key={files / 'kubelet-client.key'}",
            f"--kubelet-certificate-authority={files / 'ca.crt'}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={files / 'sa.pub'}",
            f"--service-account-signing-key-file={files / 'sa.key'}",
            "--service-cluster-ip-range=10.96.0.0/16",
        )
        end = time.monotonic() + PATIENCE
        while not self._is_ready():
            assert self._api.poll() is None, self.log("kube-apiserver")
            assert time.monotonic() < end, self.log("kube-apiserver")
            time.sleep(0.1)

    def _is_ready(self):
        try:
            self.request("GET", "/readyz")
            path, resource, _ = RESOURCES["ClusterRoleBinding"]
            self.request("GET", f"{path}/{resource}/system:discovery")
        except (OSError, RequestError, http.client.HTTPException):
            return False
        return True

    def stop_api(self, how=signal.SIGTERM):
        """End the API server; etcd stays."""
        self._end(self._api, how)

    def stop(self):
        """End both."""
        for process in (self._api, self._etcd):
            self._end(process, signal.SIGKILL)

    def log(self, name):
        """The end of the log of `etcd` or `kube-apiserver`."""
        return (self.directory / f"{name}.log").read_text("utf-8", "replace")[-3000:]

    def _run(self, name, *arguments):
        with (self.directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [str(TOOLS / name), *arguments], stdout=log, stderr=log, cwd=self.directory
            )

    def _end(self, process, how):
        if process is not None and process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def request(self, method, path, document=None, *, token=ADMIN, kind="application/json"):
        """The decoded answer of the API server. Raises RequestError if it is no 2xx."""
        connection = http.client.HTTPSConnection(HOST, self.port, context=self._context, timeout=30)
        try:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
            body = None if document is None else json.dumps(document)
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read()
            self.warnings += response.headers.get_all("Warning") or []
            data = json.loads(text) if text.startswith(b"{") else text.decode()
            if response.status // 100 != 2:
                raise RequestError(
                    response.status, data["message"] if isinstance(data, dict) else data
                )
            return data
        finally:
            connection.close()

    def apply(self, document, *, dry_run=False):
        """Apply an object on the server's side; an unknown or double field is an error."""
        path = self.path(document)
        query = "fieldManager=tests&force=true&fieldValidation=Strict"
        query += "&dryRun=All" if dry_run else ""
        return self.request(
            "PATCH", f"{path}?{query}", document, kind="application/apply-patch+yaml"
        )

    def path(self, document):
        """The path of an object."""
        api, resource, namespaced = RESOURCES[document["kind"]]
        metadata = document["metadata"]
        where = f"/namespaces/{metadata['namespace']}" if namespaced else ""
        return f"{api}{where}/{resource}/{metadata['name']}"

    def namespace(self, name, **labels):
        """Create a namespace or change its labels."""
        metadata = {"name": name, "labels": labels}
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})

    def delete_namespace(self, name):
        """Delete a namespace, and finish it as the namespace controller does."""
        path = f"/api/v1/namespaces/{name}"
        space = self.request("DELETE", path)
        space["spec"]["finalizers"] = []
        self.request("PUT", f"{path}/finalize", space)

    def account(self, namespace, name):
        """Create a service account and its namespace; returns its user name."""
        try:
            self.request("GET", f"/api/v1/namespaces/{namespace}")
        except RequestError:
            self.namespace(namespace)
        metadata = {"name": name, "namespace": namespace}
        self.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        return f"system:serviceaccount:{namespace}:{name}"

    def token(self, namespace, name, *, audiences=(), seconds=3600):
        """A token of a service account, as the kubelet asks one for a pod; at least 600 s."""
        spec = {"expirationSeconds": seconds} | ({"audiences": audiences} if audiences else {})
        document = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
        return self.request("POST", path, document)["status"]["token"]

    def expired(self, token):
        """The same token as one that ended an hour ago, signed anew: none is given for less."""
        head, body, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        claims |= {"exp": int(time.time()) - 3600}
        claims |= {"iat": claims["exp"] - 3600, "nbf": claims["exp"] - 3600}
        claims["kubernetes.io"].pop("warnafter", None)
        signed = f"{head}.{_base64url(json.dumps(claims).encode())}"
        key = serialization.load_pem_private_key((self.directory / "sa.key").read_bytes(), None)
        signature = key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64url(signature)}"

    def grant(self, user, *rules, namespace=None):
        """Give a service account's user a role with these rules, in one namespace or in all."""
        *_, space, account = user.split(":")
        name = f"tests-{space}-{account}"
        kind = "ClusterRole" if namespace is None else "Role"
        where = {} if namespace is None else {"namespace": namespace}
        rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name, **where}}
        self.apply(rbac | {"kind": kind, "rules": list(rules)})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
        subject = {"kind": "ServiceAccount", "name": account, "namespace": space}
        self.apply(rbac | {"kind": f"{kind}Binding", "roleRef": reference, "subjects": [subject]})

    def compact(self):
        """Forget all history, as the API server has etcd do every five minutes."""
        connection = http.client.HTTPConnection(HOST, self._etcd_port, timeout=30)
        try:
            connection.request("POST", "/v3/kv/range", json.dumps({"key": "AA=="}))
            revision = json.loads(connection.getresponse().read())["header"]["revision"]
            connection.request(
                "POST", "/v3/kv/compaction", json.dumps({"revision": revision, "physical": True})
            )
            assert connection.getresponse().status == 200
        finally:
            connection.close()

    def review_token(self, token):
        """The user of a token, None if there is none: what a kubelet asks."""
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        document = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview"}
        status = self.request("POST", path, document | {"spec": {"token": token}})["status"]
        return status["user"]["username"] if status.get("authenticated") else None

    def review_access(self, node, user, verb, resource):
        """Whether a user may do this with a node: what a kubelet asks."""
        kind, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "version": "v1", "resource": kind, "subresource": subresource}
        spec = {"user": user, "groups": groups(user)}
        spec["resourceAttributes"] = attributes | {"name": node}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        document = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview"}
        return self.request("POST", path, document | {"spec": spec})["status"]["allowed"]

    def kubelet(self, name, *, host=HOST, port=0, **namespaces):
        """A simulated kubelet that reviews tokens here; its Node is created by `register`.

        A client certificate of the same CA names a user, too.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=self.ca_pem.decode())
        self.authority.issue_cert(name, host).configure_cert(context)
        return SimKubelet(
            simulate_node(name, namespaces, pods_per_namespace=2, started=time.time() - 3600),
            context,
            authenticate=self.review_token,
            authorize=lambda *asked: self.review_access(name, *asked),
            host=host,
            port=port,
        )

    def let_read_kubelets(self):
        """Give the API server's own user the rights to kubelets, as installers do."""
        rbac = "rbac.authorization.k8s.io"
        role = {"apiGroup": rbac, "kind": "ClusterRole", "name": "system:kubelet-api-admin"}
        user = {"apiGroup": rbac, "kind": "User", "name": KUBELET_CLIENT}
        binding = {"apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", "roleRef": role}
        self.apply(binding | {"metadata": {"name": KUBELET_CLIENT}, "subjects": [user]})

    def register(self, name, kubelet):
        """Create the Node of a kubelet that is listening."""
        node = node_object(name, kubelet.port, kubelet.host)
        status = node.pop("status")
        node["metadata"] = {key: node["metadata"][key] for key in ("name", "labels")}
        self.apply({"apiVersion": "v1", "kind": "Node", **node})
        path = f"/api/v1/nodes/{name}/status"
        kind = "application/merge-patch+json"
        self.request("PATCH", path, {"status": status}, kind=kind)

    def write_service_account(self, directory, token):
        """Write what a pod has of its service account."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "token").write_text(token)
        (directory / "ca.crt").write_bytes(self.ca_pem)
        (directory / "namespace").write_text("kmproxy-system")


def _base64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def groups(user):
    """The groups of a service account's user, as the API server gives them."""
    parts = user.split(":")
    if parts[:2] != ["system", "serviceaccount"]:
        return ["system:authenticated"]
    return ["system:serviceaccounts", f"system:serviceaccounts:{parts[2]}", "system:authenticated"]
