"""Lists of the simulated API server: whole, in pages, of a version, and of each kind of object."""

import ssl

import pytest

from kmproxy.simulator.api import SimAPI
from kmproxy.simulator.authority import SERVICE_ACCOUNT, Authority
from kmproxy.simulator.objects import node_object
from tests.support.api_client import NAMESPACES, get, names, watching

LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


async def test_list_full(session, api):
    """A list has whole namespaces, sorted, and the version of the store."""
    status, listed = await get(session, NAMESPACES)
    assert (status, listed["kind"], names(listed)) == (200, "NamespaceList", ["a", "b", "c"])
    assert listed["metadata"]["resourceVersion"] == str(api.store.version)
    (a, *_) = listed["items"]
    assert a["metadata"]["labels"] == {"kubernetes.io/metadata.name": "a", "team": "x"}
    assert (a["spec"], a["status"]) == ({"finalizers": ["kubernetes"]}, {"phase": "Active"})


async def test_list_metadata_only(session):
    """With the Accept header for metadata, items have nothing else."""
    async with session.get(NAMESPACES, headers={"Accept": LIST}) as answer:
        listed = await answer.json()
        assert answer.headers["Cache-Control"] == "no-cache, private"
        assert answer.headers["Audit-Id"]
    assert (listed["kind"], listed["apiVersion"]) == (
        "PartialObjectMetadataList",
        "meta.k8s.io/v1",
    )
    assert all(each.keys() == {"kind", "apiVersion", "metadata"} for each in listed["items"])


async def test_list_selected(session):
    """A list has what its selectors let through."""
    assert names((await get(session, NAMESPACES, fieldSelector="metadata.name=b"))[1]) == ["b"]
    assert names((await get(session, NAMESPACES, labelSelector="team=y"))[1]) == ["c"]


async def test_list_in_pages(session, api):
    """Pages are of one moment: what changes between them does not show."""
    _, first = await get(session, NAMESPACES, limit=2)
    assert (names(first), first["metadata"]["remainingItemCount"]) == (["a", "b"], 1)
    api.namespaces.apply("d")
    _, last = await get(session, NAMESPACES, limit=2, **{"continue": first["metadata"]["continue"]})
    assert names(last) == ["c"]
    assert last["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}


async def test_page_of_an_expired_list(session, api):
    """A continue token from before `expire_history` is 410."""
    _, first = await get(session, NAMESPACES, limit=1)
    api.expire_history()
    token = first["metadata"]["continue"]
    status, error = await get(session, NAMESPACES, limit=1, **{"continue": token})
    assert (status, error["reason"]) == (410, "Expired")


@pytest.mark.parametrize("watch", ["", "true"])
async def test_version_to_come(session, api, watch):
    """A version the server has not reached is a 504 Timeout with its cause."""
    params = {"resourceVersion": api.store.version + 5, "watch": watch}
    status, error = await get(session, NAMESPACES, **params)
    version = api.store.version
    assert status == 504
    assert error == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f"Timeout: Too large resource version: {version + 5}, current: {version}",
        "reason": "Timeout",
        "details": {
            "causes": [
                {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            ],
            "retryAfterSeconds": 1,
        },
        "code": 504,
    }


async def test_lists_of_a_version(session, api):
    """Of any version: whole, as from a cache. With a limit: this very one, or none."""
    version = api.store.version
    assert (
        "continue"
        not in (await get(session, NAMESPACES, limit=1, resourceVersion=0))[1]["metadata"]
    )
    status, found = await get(session, NAMESPACES, limit=1, resourceVersion=version)
    assert (status, "continue" in found["metadata"]) == (200, True)
    status, error = await get(session, NAMESPACES, limit=1, resourceVersion=version + 1)
    assert (status, error["message"].endswith("required revision is a future revision")) == (
        500,
        True,
    )
    api.namespaces.apply("d")
    assert (await get(session, NAMESPACES, limit=1, resourceVersion=version))[0] == 410
    assert (await get(session, NAMESPACES, resourceVersion=version))[0] == 200
    assert (await get(session, NAMESPACES, limit=1, resourceVersion="x"))[0] == 400


async def test_large_objects_pass(session, api):
    """A namespace padded to several MB is listed and watched whole."""
    version = api.store.version
    api.namespaces.pad("a", 3_000_000)
    _, listed = await get(session, NAMESPACES)
    assert len(listed["items"][0]["metadata"]["annotations"]["example.com/padding"]) == 3_000_000
    params = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "0.05"}
    async with session.get(NAMESPACES, params=params) as answer:
        assert len(await answer.read()) > 3_000_000


async def test_nodes(session, cluster):
    """Nodes say where their kubelet is."""
    _, listed = await get(session, "/api/v1/nodes")
    (node,) = listed["items"]
    port = cluster.kubelets["node-a"].port
    assert node["status"]["daemonEndpoints"] == {"kubeletEndpoint": {"Port": port}}
    assert {"type": "InternalIP", "address": "127.0.0.1"} in node["status"]["addresses"]
    async with watching(session, path="/api/v1/nodes") as event:
        await event()
        cluster.api.store.put("nodes", node_object("node-b", 1))
        assert (await event())["object"]["metadata"]["name"] == "node-b"


async def test_what_lives_in_namespaces(session, admin, api):
    """Pods, services and endpoints: of all namespaces, of one, and each by its name."""
    service = {
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 9090}]},
    }
    async with admin.post(f"{NAMESPACES}/a/services", json=service) as answer:
        made = await answer.json()
        assert (answer.status, made["kind"]) == (201, "Service")
    async with admin.post(f"{NAMESPACES}/a/services", json=service) as answer:
        assert (answer.status, (await answer.json())["reason"]) == (409, "AlreadyExists")
    for verb in ("get", "list", "watch"):
        for resource in ("pods", "services", "endpoints", "endpointslices"):
            api.allow(verb, resource)
    _, pods = await get(session, "/api/v1/pods")
    assert (pods["kind"], len(pods["items"])) == ("PodList", 3)
    _, pods = await get(session, f"{NAMESPACES}/a/pods")
    (pod,) = names(pods)
    path = f"{NAMESPACES}/a/endpoints/web"
    _, endpoints = await get(session, path)
    (subset,) = endpoints["subsets"]
    assert subset["addresses"][0]["targetRef"]["name"] == pod
    slices = "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices"
    assert names((await get(session, slices))[1]) == ["web-0"]
    async with watching(session, path=f"{NAMESPACES}/a/endpoints") as event:
        await event()
        async with admin.delete(f"{NAMESPACES}/a/pods/{pod}") as answer:
            assert answer.status == 200
        changed = await event()
        assert (changed["type"], changed["object"]["subsets"]) == ("MODIFIED", [])
    async with admin.delete(f"{NAMESPACES}/a/services/web") as answer:
        assert answer.status == 200
    assert (await get(session, path))[0] == 404


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/api/v1/pods", "at the cluster scope"),
        (f"{NAMESPACES}/a/pods", 'in the namespace "a"'),
    ],
)
async def test_pods_are_not_the_daemons_to_see(session, path, where):
    """Its role is for namespaces and nodes; what it asks besides is refused."""
    status, error = await get(session, path)
    assert (status, error["reason"]) == (403, "Forbidden")
    message = f'pods is forbidden: User "{SERVICE_ACCOUNT}" cannot list resource "pods" in API group "" {where}'
    assert error["message"] == message


async def test_unknown_paths(admin):
    """What is not there is a 404 Status, and a method that is not allowed a 405."""
    assert (await get(admin, "/apis/apps/v1/deployments"))[1]["code"] == 404
    async with admin.put(NAMESPACES, json={}) as answer:
        assert answer.status == 405
    async with admin.post(NAMESPACES, data=b"k8s\0") as answer:
        assert answer.status == 415


def test_own_names():
    """The server's representation is a line that says how it is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    api = SimAPI(Authority(), {}, server_context=context, client_context=context)
    assert repr(api) == ("<SimAPI https://127.0.0.1:0 <Store at 1000, history from 0>, 0 watches>")
