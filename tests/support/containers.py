"""The environment and the mounts of a container of the manifests."""

from __future__ import annotations

from urllib.parse import urlsplit

from tests.support.overlays import FIELDS, of_kind, variables

NAME = "kmproxy.kmproxy-system.svc"


def grant(cluster, objects):
    """Gives the cluster the RBAC of an overlay, and removes every other right."""
    cluster.authority._rules = set()
    kinds = "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"
    for one in of_kind(objects, *kinds):
        for subject in one.get("subjects", ()):
            if subject["name"] == "kmproxy":
                subject["namespace"] = "kmproxy"  # where the simulated cluster's account is
        cluster.authority.rbac.apply(one)


def environment(cluster, objects, root):
    """The container's variables, with local addresses, and a folder for its root."""
    kubelet = cluster.kubelets["node-a"]
    here = {"status.hostIP": kubelet.host, "spec.nodeName": "node-a"}
    given = variables(objects, FIELDS | here)
    api = urlsplit(cluster.api.url)
    for name, value in given.items():
        local = value.replace("https://kubernetes.default.svc", cluster.api.url)
        given[name] = f"{root}{local}" if local.startswith("/") else local
    direct = (
        "KMPROXY_KUBE_APISERVER" not in given and given.get("KMPROXY_SOURCE", "files") == "files"
    )
    port = {"KMPROXY_NODE_PORT": str(kubelet.port)} if direct else {}
    account = {"KMPROXY_SERVICE_ACCOUNT_DIR": str(root / "sa")}
    service = {"KUBERNETES_SERVICE_HOST": api.hostname, "KUBERNETES_SERVICE_PORT": str(api.port)}
    return given | port | account | service


def mount(objects, root, authority):
    """Fills the mounted volumes: the overlay's own web config, and a certificate."""
    (config,) = [one for one in of_kind(objects, "ConfigMap") if "web.yml" in one["data"]]
    (root / "etc/kmproxy/web").mkdir(parents=True)
    text = config["data"]["web.yml"].replace("/etc/", f"{root}/etc/")
    (root / "etc/kmproxy/web/web.yml").write_text(text, "utf-8")
    authority.write_pair(root / "etc/kmproxy/tls", host=NAME)
    (root / "var/lib/kmproxy").mkdir(parents=True)
