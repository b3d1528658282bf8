"""The simulated cluster starts fast, is consistent, and leaves nothing behind."""

import asyncio
import json
import os
import ssl

import aiohttp
import pytest

from kmproxy.simulator.cluster import DEFAULT_NAMESPACES, SimCluster

NAMESPACES = "/api/v1/namespaces"


@pytest.fixture
async def cluster():
    """Run a cluster with its defaults."""
    async with SimCluster() as made:
        yield made


async def run(*command, **more):
    """Run a program; return its status and its output."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, **more)
    out, err = await process.communicate()
    return process.returncode, (out + err).decode()


async def fetch(cluster, url, token):
    """Return the status of a GET with a token, and its body."""
    tls = ssl.create_default_context(cadata=cluster.ca_pem.decode())
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), headers=headers) as session,
        session.get(url) as answer,
    ):
        return answer.status, await answer.text()


async def test_default_namespaces(cluster):
    """The documented namespaces, each with its own name as a label."""
    assert {name: dict(labels) for name, labels in DEFAULT_NAMESPACES.items()} == {
        name: {
            key: value
            for key, value in cluster.api.namespaces.get(name)["metadata"]["labels"].items()
            if key != "kubernetes.io/metadata.name"
        }
        for name in cluster.api.namespaces
    }
    assert len(cluster.api.namespaces) == 7
    payments = cluster.api.namespaces.get("payments")["metadata"]["labels"]
    assert payments["owner.example.com/cost-center"] == "cc-42"
    assert payments["kubernetes.io/metadata.name"] == "payments"


async def test_two_at_once():
    """Two clusters share nothing, and no kept connection delays their end."""
    async with (
        aiohttp.ClientSession() as session,
        asyncio.timeout(30),  # a connection is kept for longer
        SimCluster() as one,
        SimCluster(["node-a"]) as other,
    ):
        assert one.api.url != other.api.url
        assert (await fetch(one, one.api.url + NAMESPACES, other.token))[0] == 401
        async with session.get(f"{one.api.plain_url}{NAMESPACES}") as answer:
            assert answer.status == 200


async def test_a_token_opens_everything_until_it_is_rotated(cluster):
    """API server and kubelets know the daemon's token, and after a rotation only the new one."""
    urls = [cluster.api.url + NAMESPACES]
    urls += [f"{each.url}/metrics/cadvisor" for each in cluster.kubelets.values()]
    old = cluster.token
    assert {(await fetch(cluster, url, old))[0] for url in urls} == {200}
    new = cluster.rotate_token()
    assert new == cluster.token != old
    assert {(await fetch(cluster, url, old))[0] for url in urls} == {401}
    assert {(await fetch(cluster, url, new))[0] for url in urls} == {200}


async def test_denied_permissions_hold_at_the_kubelet(cluster):
    """Kubelets follow the rules of the API server."""
    cluster.api.deny("get", "nodes/metrics")
    status, body = await fetch(cluster, cluster.kubelets["node-b"].url + "/metrics", cluster.token)
    assert status == 403
    assert body == (
        "Forbidden (user=system:serviceaccount:kmproxy:kmproxy, verb=get, resource=nodes, "
        "subresource(s)=[metrics])\n"
    )


async def test_service_account_files(cluster, tmp_path):
    """A pod's service account files are written, and again after a rotation."""
    directory = tmp_path / "serviceaccount"
    cluster.write_service_account(directory)
    assert {each.name for each in directory.iterdir()} == {"token", "ca.crt", "namespace"}
    assert (directory / "token").read_text() == cluster.token
    assert (directory / "ca.crt").read_bytes() == cluster.ca_pem
    assert (directory / "namespace").read_text() == "kmproxy"
    cluster.rotate_token()
    assert (directory / "token").read_text() != cluster.token
    cluster.write_service_account(directory)
    assert (directory / "token").read_text() == cluster.token


async def test_rows_of_every_namespace_on_every_node(cluster):
    """Each node has pods of each namespace, and no two nodes share a pod."""
    pods = {}
    for name, kubelet in cluster.kubelets.items():
        _, text = await fetch(cluster, kubelet.plain_url + "/pods", "")
        listed = [each["metadata"] for each in json.loads(text)["items"]]
        assert {each["namespace"] for each in listed} == set(DEFAULT_NAMESPACES)
        assert len(listed) == 3 * len(DEFAULT_NAMESPACES)
        pods[name] = {each["name"] for each in listed}
    assert not pods["node-a"] & pods["node-b"]


async def test_payload(tmp_path):
    """Every kubelet serves the payload instead of its own cAdvisor text."""
    path = tmp_path / "cadvisor.prom"
    path.write_text('x{namespace="default"} 1\n')
    async with SimCluster(payload=path) as cluster:
        for kubelet in cluster.kubelets.values():
            url = kubelet.url + "/metrics/cadvisor"
            assert await fetch(cluster, url, cluster.token) == (200, path.read_text())


async def test_hosts():
    """Kubelets can share a port, each at an address of its own, as nodes do."""
    async with SimCluster(["node-a"]) as other:
        port = other.kubelets["node-a"].port
    hosts = ("127.0.0.1", "127.0.0.2")
    async with SimCluster(hosts=hosts, kubelet_port=port) as cluster:
        for (name, kubelet), host in zip(cluster.kubelets.items(), hosts, strict=True):
            assert kubelet.url == f"https://{host}:{port}"
            status, text = await fetch(cluster, f"{kubelet.url}/metrics/resource", cluster.token)
            assert (status, "pod=" in text) == (200, True)
            node = cluster.api.store.objects["nodes"][name]
            assert node["status"]["addresses"][0]["address"] == host
            pods = [
                each
                for each in cluster.api.store.objects["pods"].values()
                if each["spec"]["nodeName"] == name
            ]
            assert len(pods) == len(kubelet.node.pods)
            assert {each["status"]["hostIP"] for each in pods} == {host}


async def test_api_port():
    """The plain listener uses the requested port, and reports if it cannot."""
    async with SimCluster([]) as first:
        port = int(first.api.plain_url.rsplit(":", 1)[1])
        with pytest.raises(OSError, match="address already in use"):
            async with SimCluster(api_port=port):
                pass
    async with SimCluster([], api_port=port) as second:
        assert second.api.plain_url == f"http://127.0.0.1:{port}"


@pytest.mark.program("kubectl")
@pytest.mark.parametrize("auth", ["token", "client-certificate", "exec"])
async def test_kubeconfig(cluster, tmp_path, auth):
    """A kubeconfig of each kind works in kubectl, with the daemon's rights only."""
    path = tmp_path / "config"
    cluster.write_kubeconfig(path, auth=auth)
    assert path.stat().st_mode & 0o077 == 0
    kubectl = ("kubectl", f"--kubeconfig={path}", f"--cache-dir={tmp_path}")
    status, out = await run(*kubectl, "get", "namespaces", "-o", "name")
    assert (status, out.split()) == (0, [f"namespace/{name}" for name in DEFAULT_NAMESPACES])
    status, out = await run(*kubectl, "delete", "namespace", "no-team")
    assert status == 1
    assert 'cannot delete resource "namespaces" in API group ""' in out


@pytest.mark.program("kubectl")
async def test_kubectl_on_the_plain_listener(cluster, tmp_path):
    """`kubectl --server` lists, labels, annotates, applies and deletes."""
    kubectl = ("kubectl", f"--server={cluster.api.plain_url}", f"--cache-dir={tmp_path}")
    label = ("label", "namespace", "frontend-service2", "team=backend", "--overwrite")
    assert await run(*kubectl, *label) == (0, "namespace/frontend-service2 labeled\n")
    found = cluster.api.namespaces.get("frontend-service2")["metadata"]
    assert found["labels"]["team"] == "backend"
    await run(*kubectl, "annotate", "ns", "frontend-service2", "note=x")
    found = cluster.api.namespaces.get("frontend-service2")["metadata"]
    assert found["annotations"] == {"note": "x"}
    status, out = await run(*kubectl, "get", "ns", "-l", "team=backend")
    assert (status, out.split()[::2][:2]) == (0, ["NAME", "frontend-service2"])
    status, out = await run(*kubectl, "get", "nodes")
    assert (status, out.split()[2::2]) == (0, ["node-a", "node-b"])
    file = tmp_path / "new.yaml"
    file.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: new}\n")
    status, out = await run(*kubectl, "apply", "--validate=false", "-f", str(file))
    assert (status, out) == (0, "namespace/new created\n")
    status, out = await run(*kubectl, "delete", "ns", "new")
    assert (status, out) == (0, 'namespace "new" deleted\n')
    assert cluster.api.namespaces.get("new") is None


@pytest.mark.program("kubectl")
async def test_kubectl_creates(cluster, tmp_path):
    """`kubectl create namespace` works over protobuf. Other kinds give an error of one line."""
    kubectl = ("kubectl", f"--server={cluster.api.plain_url}", f"--cache-dir={tmp_path}", "create")
    status, out = await run(*kubectl, "namespace", "new")
    assert (status, out) == (0, "namespace/new created\n")
    assert cluster.api.namespaces.get("new")["status"] == {"phase": "Active"}
    status, out = await run(*kubectl, "namespace", "new")
    assert status == 1
    assert out.endswith('Error from server (AlreadyExists): namespaces "new" already exists\n')
    status, out = await run(*kubectl, "service", "clusterip", "new", "--tcp=80")
    assert status == 1
    assert out.endswith(
        "of protobuf only a Namespace is understood, not Service in 'v1'; send JSON\n"
    )


@pytest.mark.program("kubectl")
async def test_kubectl_through_the_node_proxy(cluster, tmp_path):
    """`kubectl get --raw` reads a node's metrics through the API server."""
    path = tmp_path / "config"
    cluster.write_kubeconfig(path)
    raw = ("get", "--raw", "/api/v1/nodes/node-b/proxy/metrics/resource")
    status, out = await run("kubectl", f"--kubeconfig={path}", f"--cache-dir={tmp_path}", *raw)
    assert status == 0
    assert out.startswith("# HELP container_cpu_usage_seconds_total [STABLE]")


@pytest.mark.program("kubectl")
async def test_kubectl_sees_changes(cluster, tmp_path):
    """A watching kubectl prints changes, and ends with the cluster."""
    command = ("kubectl", f"--server={cluster.api.plain_url}", f"--cache-dir={tmp_path}")
    watch = await asyncio.create_subprocess_exec(
        *command, "get", "ns", "-w", "-o", "name", stdout=asyncio.subprocess.PIPE
    )
    lines = [await watch.stdout.readline() for _ in DEFAULT_NAMESPACES]
    assert lines[-1] == b"namespace/payments\n"
    cluster.api.namespaces.apply("zebra")
    assert await watch.stdout.readline() == b"namespace/zebra\n"
    await cluster.api.stop()
    assert await asyncio.wait_for(watch.wait(), 30) == 0


@pytest.mark.program("curl")
async def test_curl_as_a_pod_would(cluster, tmp_path):
    """With only a pod's files, curl reads a kubelet's metrics."""
    cluster.write_service_account(tmp_path)
    url = cluster.kubelets["node-a"].url + "/metrics/cadvisor"
    header = f"Authorization: Bearer {(tmp_path / 'token').read_text()}"
    curl = ("curl", "-sf", "--compressed", "--cacert", str(tmp_path / "ca.crt"), "-H", header)
    status, out = await run(*curl, url, env={"PATH": os.environ["PATH"]})
    assert status == 0
    assert 'namespace="frontend-service1"' in out


async def test_representation(cluster):
    """The repr of a cluster shows its addresses and its contents."""
    nodes = "nodes node-a, node-b, 7 namespaces"
    assert repr(cluster) == f"<SimCluster {cluster.api.url}, {nodes}>"
