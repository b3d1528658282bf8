"""The simulated API server lists, watches, reviews, proxies and fails as a real one does."""

import asyncio
import json
import ssl
from contextlib import asynccontextmanager

import aiohttp
import pytest

from kmproxy.simulator.answers import ApiFault
from kmproxy.simulator.api import SimAPI
from kmproxy.simulator.authority import SERVICE_ACCOUNT, Authority
from kmproxy.simulator.cluster import SimCluster
from kmproxy.simulator.objects import node_object
from tests.conftest import until

LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
WATCH = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
NAMESPACES = "/api/v1/namespaces"
MERGE = "application/merge-patch+json"


@pytest.fixture
async def cluster():
    """Run a cluster of one node and three namespaces."""
    namespaces = {"a": {"team": "x"}, "b": {}, "c": {"team": "y"}}
    async with SimCluster(["node-a"], namespaces, pods_per_namespace=1) as made:
        yield made


@pytest.fixture
def api(cluster):
    """Return the API server."""
    return cluster.api


@pytest.fixture
async def session(cluster):
    """Make a client with the daemon's identity, relative to the TLS listener."""
    tls = ssl.create_default_context(cadata=cluster.ca_pem.decode())
    async with aiohttp.ClientSession(
        cluster.api.url,
        connector=aiohttp.TCPConnector(ssl=tls),
        headers={"Authorization": f"Bearer {cluster.token}"},
        timeout=aiohttp.ClientTimeout(total=30),
    ) as made:
        yield made


@pytest.fixture
async def admin(cluster):
    """Make a client of the plain listener."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(cluster.api.plain_url, timeout=timeout) as made:
        yield made


async def get(session, path, **params):
    """Return status and document of a GET."""
    async with session.get(path, params=params) as answer:
        return answer.status, await answer.json()


@asynccontextmanager
async def watching(session, *, accept="application/json", path=NAMESPACES, **params):
    """Open a watch; give a function that returns the next event, or None at a clean end."""
    params = {"watch": "true", **params}
    async with session.get(path, params=params, headers={"Accept": accept}) as answer:
        assert answer.status == 200

        async def event():
            line = await answer.content.readline()
            return json.loads(line) if line else None

        yield event


def names(document):
    """Return the names of a list's items."""
    return [item["metadata"]["name"] for item in document["items"]]


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


async def test_watch_from_a_version_to_come_can_wait(session, api):
    """With `future_watch_waits` such a watch is silent until the version has passed."""
    api.future_watch_waits = True
    api.bookmark_interval = 0.01
    version = api.store.version + 1
    async with watching(session, resourceVersion=version, allowWatchBookmarks="true") as event:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(event(), 0.1)
    api.bookmark_interval = 60.0
    async with watching(session, resourceVersion=version) as event:
        api.namespaces.apply("d")
        api.namespaces.apply("e")
        assert (await event())["object"]["metadata"]["name"] == "e"


async def test_watch_sees_what_follows_the_list(session, api):
    """A watch from a list's version has every later change, in order, with its version."""
    _, listed = await get(session, NAMESPACES)
    api.namespaces.apply("d", {"team": "z"})
    version = listed["metadata"]["resourceVersion"]
    async with watching(session, resourceVersion=version, accept=WATCH) as event:
        api.namespaces.apply("d", {"team": "w"}, {"note": "n"})
        api.namespaces.apply("d", {"team": "w"})
        api.namespaces.delete("d")
        events = [await event() for _ in range(3)]
    assert [each["type"] for each in events] == ["ADDED", "MODIFIED", "DELETED"]
    metadata = [each["object"]["metadata"] for each in events]
    assert [each["labels"]["team"] for each in metadata] == ["z", "w", "w"]
    versions = [int(each["resourceVersion"]) for each in metadata]
    assert versions == [int(version) + each for each in (1, 2, 3)]
    assert len({each["uid"] for each in metadata}) == 1
    assert {each["object"]["kind"] for each in events} == {"PartialObjectMetadata"}


async def test_watch_without_a_version_begins_with_what_is(session, api):
    """A watch from nowhere adds every object first, then tells the changes."""
    async with watching(session) as event:
        assert [(await event())["object"]["metadata"]["name"] for _ in "abc"] == ["a", "b", "c"]
        api.namespaces.delete("b")
        assert (await event())["type"] == "DELETED"


async def test_streaming_list(session, api):
    """`sendInitialEvents` ends the first objects with an annotated bookmark."""
    params = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
    async with watching(session, allowWatchBookmarks="true", **params) as event:
        *added, mark = [await event() for _ in range(4)]
    assert {each["type"] for each in added} == {"ADDED"}
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert mark["object"]["metadata"]["resourceVersion"] == str(api.store.version)


async def test_bookmarks(session, api):
    """Bookmarks come at the interval set, with the newest version, to those who ask."""
    api.bookmark_interval = 0.05
    version = api.store.version
    async with watching(session, resourceVersion=version, allowWatchBookmarks="true") as event:
        mark = await event()
    assert (mark["type"], mark["object"]["kind"]) == ("BOOKMARK", "Namespace")
    assert mark["object"]["metadata"]["resourceVersion"] == str(version)
    async with watching(session, resourceVersion=version, timeoutSeconds="0.15") as event:
        assert await event() is None


@pytest.mark.parametrize("how", ["event", "status"])
async def test_version_too_old(session, api, how):
    """A version before the history is 410 Expired, as an ERROR event or as a status."""
    api.expired_as = how
    old = api.store.version
    api.expire_history()
    params = {"watch": "true", "resourceVersion": old}
    async with session.get(NAMESPACES, params=params) as answer:
        document = json.loads(await answer.content.readline())
        assert answer.status == (200 if how == "event" else 410)
    error = document["object"] if how == "event" else document
    assert (error["code"], error["reason"]) == (410, "Expired")
    assert error["message"] == f"too old resource version: {old} ({api.store.version})"


async def test_open_watch_outlives_the_history(session, api):
    """`expire_history` does not disturb a watch that is open."""
    async with watching(session, resourceVersion=api.store.version) as event:
        api.expire_history()
        api.namespaces.apply("d")
        assert (await event())["type"] == "ADDED"


async def test_backup(session, api):
    """After `restore_backup` objects and versions are those of the start; watches are cut."""
    version = api.store.version
    async with watching(session, resourceVersion=version) as event:
        api.namespaces.apply("d")
        await event()
        api.restore_backup()
        with pytest.raises(aiohttp.ClientError):
            await event()
    _, listed = await get(session, NAMESPACES)
    assert (names(listed), listed["metadata"]["resourceVersion"]) == (["a", "b", "c"], str(version))
    assert (await get(session, NAMESPACES, resourceVersion=version + 1))[0] == 504
    async with watching(session, resourceVersion=version) as event:
        api.namespaces.apply("e")
        assert (await event())["object"]["metadata"]["name"] == "e"


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        (MERGE, {"metadata": {"labels": {"team": None, "tier": "1"}}}),
        (
            "application/strategic-merge-patch+json",
            {"metadata": {"labels": {"team": None, "tier": "1"}}},
        ),
        (
            "application/json-patch+json",
            [
                {"op": "test", "path": "/metadata/labels/team", "value": "x"},
                {"op": "remove", "path": "/metadata/labels/team"},
                {"op": "add", "path": "/metadata/labels/tier", "value": "1"},
            ],
        ),
    ],
)
async def test_patch(admin, api, kind, patch):
    """Each kind of patch changes the labels, and the version."""
    before = api.store.version
    headers = {"Content-Type": kind}
    async with admin.patch(f"{NAMESPACES}/a", data=json.dumps(patch), headers=headers) as answer:
        item = await answer.json()
        assert answer.status == 200
    assert item["metadata"]["labels"] == {"kubernetes.io/metadata.name": "a", "tier": "1"}
    assert item == api.namespaces.get("a")
    assert api.store.version == before + 1
    async with admin.patch(f"{NAMESPACES}/a", data="{}", headers=headers | {"Content-Type": MERGE}):
        assert api.store.version == before + 1


async def test_create_replace_delete(admin, api):
    """A namespace can be made once, replaced at its version, and deleted."""
    new = {"metadata": {"name": "d", "labels": {"team": "d"}}}
    async with admin.post(NAMESPACES, json=new) as answer:
        item = await answer.json()
        assert answer.status == 201
    async with admin.post(NAMESPACES, json=new) as answer:
        assert (answer.status, (await answer.json())["reason"]) == (409, "AlreadyExists")
    item["metadata"]["labels"] = {"team": "e"}
    async with admin.put(f"{NAMESPACES}/d", json=item) as answer:
        assert (await answer.json())["metadata"]["labels"]["team"] == "e"
    async with admin.put(f"{NAMESPACES}/d", json=item) as answer:
        assert (answer.status, (await answer.json())["reason"]) == (409, "Conflict")
    async with admin.delete(f"{NAMESPACES}/d") as answer:
        assert answer.status == 200
    assert api.namespaces.get("d") is None
    status, error = await get(admin, f"{NAMESPACES}/d")
    assert (status, error["message"]) == (404, 'namespaces "d" not found')


async def test_large_objects_pass(session, api):
    """A namespace padded to several MB is listed and watched whole."""
    version = api.store.version
    api.namespaces.pad("a", 3_000_000)
    _, listed = await get(session, NAMESPACES)
    assert len(listed["items"][0]["metadata"]["annotations"]["example.com/padding"]) == 3_000_000
    params = {"watch": "true", "resourceVersion": version, "timeoutSeconds": "0.05"}
    async with session.get(NAMESPACES, params=params) as answer:
        assert len(await answer.read()) > 3_000_000


async def test_unauthenticated(cluster, session):
    """No token or a wrong one is 401 with a Status; the plain listener asks for none."""
    for authorization in ("Bearer wrong", ""):
        async with session.get(NAMESPACES, headers={"Authorization": authorization}) as answer:
            assert (answer.status, (await answer.json())["message"]) == (401, "Unauthorized")
            assert "WWW-Authenticate" not in answer.headers
    assert cluster.api.requests[-1].path == NAMESPACES


@pytest.mark.parametrize(
    ("verb", "resource", "path", "message"),
    [
        (
            "list",
            "namespaces",
            NAMESPACES,
            (
                'namespaces is forbidden: User "{}" cannot list resource "namespaces" in API group '
                '"" at the cluster scope'
            ),
        ),
        (
            "watch",
            "namespaces",
            f"{NAMESPACES}?watch=true",
            (
                'namespaces is forbidden: User "{}" cannot watch resource "namespaces" in API group '
                '"" at the cluster scope'
            ),
        ),
        (
            "get",
            "namespaces",
            f"{NAMESPACES}/a",
            (
                'namespaces "a" is forbidden: User "{}" cannot get resource "namespaces" in API '
                'group "" in the namespace "a"'
            ),
        ),
        (
            "get",
            "nodes/proxy",
            "/api/v1/nodes/node-a/proxy/metrics",
            (
                'nodes "node-a" is forbidden: User "{}" cannot get resource "nodes/proxy" in API '
                'group "" at the cluster scope'
            ),
        ),
    ],
)
async def test_forbidden(session, api, verb, resource, path, message):
    """What is denied is 403 in the API server's words, until it is allowed again."""
    api.deny(verb, resource)
    status, error = await get(session, path)
    assert (status, error["reason"]) == (403, "Forbidden")
    assert error["message"] == message.format(SERVICE_ACCOUNT)
    api.allow(verb, resource)
    async with session.get(path) as answer:
        assert answer.status == 200


async def post(session, path, spec):
    """Return status code and `status` of a review."""
    async with session.post(path, json={"spec": spec}) as answer:
        document = await answer.json()
        return answer.status, document["status"]


async def test_reviews(cluster, session):
    """Reviews are answered from the tokens and rules that requests are checked by."""
    token = cluster.authority.issue("ann", groups=("team-a",), audiences=("kmproxy",))
    tokens = "/apis/authentication.k8s.io/v1/tokenreviews"
    _, status = await post(session, tokens, {"token": token, "audiences": ["kmproxy", "other"]})
    assert (status["authenticated"], status["audiences"]) == (True, ["kmproxy"])
    assert status["user"]["username"] == "ann"
    assert status["user"]["groups"] == ["system:authenticated", "team-a"]
    _, status = await post(session, tokens, {"token": token})
    assert "authenticated" not in status
    subjects = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    what = {"nonResourceAttributes": {"path": "/metrics", "verb": "get"}}
    spec = {"user": "ann", "groups": ["team-a"], **what}
    assert await post(session, subjects, spec) == (201, {"allowed": False})
    cluster.api.allow("get", "/metrics", user="team-a")
    assert (await post(session, subjects, spec))[1]["allowed"]
    own = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    what = {"verb": "get", "resource": "nodes", "subresource": "proxy"}
    assert (await post(session, own, {"resourceAttributes": what}))[1]["allowed"]
    cluster.api.deny("create", "tokenreviews")
    async with session.post(tokens, json={"spec": {}}) as answer:
        assert "tokenreviews.authentication.k8s.io is forbidden" in await answer.text()


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


async def test_fault_status(session, api):
    """A planned Status has code, reason and Retry-After, as often as asked."""
    api.fail("list", ApiFault.STATUS, times=1, status=429, message="slow down", retry_after=3)
    async with session.get(NAMESPACES) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
        assert (await answer.json())["reason"] == "TooManyRequests"
    assert (await get(session, NAMESPACES))[0] == 200
    api.fail("proxy", ApiFault.STATUS, status=500, reason="Custom")
    status, error = await get(session, "/api/v1/nodes/node-a/proxy/metrics")
    assert (status, error["reason"]) == (500, "Custom")
    assert (await get(session, "/api/v1/nodes"))[0] == 200
    api.recover()
    api.fail("nodes", ApiFault.STATUS)
    assert (await get(session, "/api/v1/nodes"))[0] == 500
    assert (await get(session, NAMESPACES))[0] == 200


async def test_fault_garbage(session, api):
    """A garbage answer is 200 and not JSON."""
    api.fail("list", ApiFault.GARBAGE)
    async with session.get(NAMESPACES) as answer:
        assert answer.status == 200
        with pytest.raises(ValueError):
            json.loads(await answer.read())


async def test_fault_cut_list(session, api):
    """A cut list ends before its announced length."""
    api.fail("list", ApiFault.CUT)
    async with session.get(NAMESPACES) as answer:
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


@pytest.mark.parametrize("params", [{}, {"watch": "true"}])
async def test_fault_misframed(session, api, params):
    """What comes after a good chunk is none, and the connection is closed."""
    api.fail(None, ApiFault.MISFRAMED)
    async with session.get(NAMESPACES, params=params) as answer:
        assert answer.status == 200
        assert (await answer.content.readany()).startswith(b'{"')
        with pytest.raises(TimeoutError):  # which is all that this client makes of it
            await asyncio.wait_for(answer.content.readany(), 0.3)


async def test_fault_hang(session, api):
    """A hanging request gets no answer, and does not keep the server from stopping."""
    api.fail("list", ApiFault.HANG)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(get(session, NAMESPACES), 0.1)
    seen = len(api.requests)
    waiting = asyncio.create_task(get(session, NAMESPACES))
    await until(lambda: asyncio.sleep(0, len(api.requests) > seen))
    async with asyncio.timeout(10):
        await api.stop()
    with pytest.raises(aiohttp.ClientError):
        await waiting


async def test_fault_cut_watch(session, api):
    """A cut watch breaks off in the middle of the next event's line."""
    api.fail("watch", ApiFault.CUT, times=1)
    params = {"watch": "true", "resourceVersion": api.store.version}
    async with session.get(NAMESPACES, params=params) as answer:
        api.namespaces.apply("d")
        assert b"\n" not in await answer.content.readany()
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.content.readany()


async def test_fault_end_and_error_event(session, api):
    """A watch can end at once, or begin with an ERROR event of any code."""
    api.fail("watch", ApiFault.ERROR_EVENT, times=1, status=500)
    async with watching(session) as event:
        error = await event()
        assert (error["type"], error["object"]["code"]) == ("ERROR", 500)
        assert await event() is None
    api.fail("watch", ApiFault.END, times=1)
    async with watching(session) as event:
        assert await event() is None


async def test_fault_silent_watch(session, api):
    """A silent watch tells neither events nor bookmarks."""
    api.bookmark_interval = 0.01
    api.fail("watch", ApiFault.SILENT)
    async with watching(session, allowWatchBookmarks="true") as event:
        api.namespaces.apply("d")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(event(), 0.1)


async def test_break_watches(session, api):
    """`break_watches` cuts the open ones, without an end."""
    async with watching(session, resourceVersion=api.store.version) as event:
        assert api.watches == 1
        api.break_watches()
        with pytest.raises(aiohttp.ClientError):
            await event()
    await asyncio.sleep(0)
    assert api.watches == 0


async def test_down_and_back(session, api):
    """Stopped, the server ends its watches at once; started, it has its ports and objects."""
    url, plain = api.url, api.plain_url
    async with watching(session, resourceVersion=api.store.version) as event:
        async with asyncio.timeout(10):  # the client would wait for longer
            await api.stop()
        assert await event() is None
    with pytest.raises(aiohttp.ClientConnectorError):
        await get(session, NAMESPACES)
    await api.start()
    assert (api.url, api.plain_url) == (url, plain)
    assert names((await get(session, NAMESPACES))[1]) == ["a", "b", "c"]


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
