"""The log files of the simulated kubelet: what Go's file server and a real kubelet answer."""

import gzip
import ssl

import pytest

from kmproxy.simulator.cadvisor import simulate_node
from kmproxy.simulator.kubelet import SimKubelet
from kmproxy.simulator.kubelet_faults import Fault
from kmproxy.simulator.logs import MAX_FILES, MAX_PART, SimLogs
from tests.support.kubelets import context

ALLOWED = {("get", "nodes/log"), ("get", "nodes/pods")}


@pytest.fixture
async def kubelet(authority):
    """Run a kubelet whose only user may read logs and pods."""
    made = SimKubelet(
        simulate_node("node-a", []),
        context(authority, ssl.PROTOCOL_TLS_SERVER),
        authenticate={"good": "shipper"}.get,
        authorize=lambda _, verb, resource: (verb, resource) in ALLOWED,
    )
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def logs(kubelet, tmp_path):
    """Log files of one pod with one container."""
    with SimLogs(tmp_path / "log", clock=lambda: 1e9 + 0.25) as made:
        kubelet.logs = made
        yield made


@pytest.fixture
def app(logs):
    """The only container."""
    return logs.start("shop", "web-0").containers["app"]


async def ask(session, kubelet, path, **headers):
    """Status, headers and body of a GET."""
    authorization = {"Authorization": "Bearer good"}
    async with session.get(
        kubelet.url + path, headers=authorization | headers, allow_redirects=False
    ) as response:
        return response.status, response.headers, await response.read()


def url(app):
    """The path of the container's folder."""
    return f"/logs/pods/{app.folder.parent.name}/{app.name}/"


async def test_a_file_and_its_ranges(session, kubelet, app):
    """The whole file, the rest of it, and nothing behind its end."""
    app.write("hello")
    whole = b"2001-09-09T01:46:40.25Z stdout F hello\n"
    status, headers, body = await ask(session, kubelet, url(app) + "0.log")
    assert (status, body) == (200, whole)
    assert headers["Content-Length"] == str(len(whole))
    status, headers, body = await ask(session, kubelet, url(app) + "0.log", Range="bytes=24-")
    assert (status, body) == (206, whole[24:])
    assert headers["Content-Range"] == f"bytes 24-{len(whole) - 1}/{len(whole)}"
    status, _, body = await ask(session, kubelet, url(app) + "0.log", Range="bytes=0-3")
    assert (status, body) == (206, b"2001")
    for start in (len(whole), len(whole) + 9):
        status, headers, _ = await ask(
            session, kubelet, url(app) + "0.log", Range=f"bytes={start}-"
        )
        assert (status, headers["Content-Range"]) == (416, f"bytes */{len(whole)}")


async def test_an_empty_file(session, kubelet, app):
    """200, whatever the range."""
    status, headers, body = await ask(session, kubelet, url(app) + "0.log", Range="bytes=0-")
    assert (status, headers["Content-Length"], body) == (200, "0", b"")


async def test_a_folder(session, kubelet, app):
    """An index of links, names only; without the slash a redirect."""
    app.write("one")
    app.rotate()
    status, headers, body = await ask(session, kubelet, url(app))
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert b'<a href="0.log">0.log</a>\n<a href="0.log.20010909-014640">' in body
    status, headers, _ = await ask(session, kubelet, url(app).removesuffix("/"))
    assert (status, headers["Location"]) == (301, "app/")


async def test_what_is_not_there(session, kubelet, app):
    """404 for a file and for a folder, 403 for HEAD."""
    assert (await ask(session, kubelet, url(app) + "1.log"))[0] == 404
    assert (await ask(session, kubelet, "/logs/pods/none/"))[0] == 404
    head = {"Authorization": "Bearer good"}
    async with session.head(kubelet.url + url(app) + "0.log", headers=head) as response:
        assert response.status == 403


async def test_a_kubelet_without_logs(session, kubelet, app):
    """`enableSystemLogHandler: false` is 405."""
    kubelet.serves_logs = False
    status, _, body = await ask(session, kubelet, url(app) + "0.log")
    assert (status, body) == (405, b"logs endpoint is disabled.\n")


async def test_a_fault_of_all_logs(session, kubelet, app):
    """`/logs` means every path below it, and no other."""
    kubelet.fail(Fault.STATUS, path="/logs", status=503)
    assert (await ask(session, kubelet, url(app) + "0.log"))[0] == 503
    assert (await ask(session, kubelet, "/pods"))[0] == 200


async def test_the_pods(session, kubelet, logs):
    """The pods of the logs are listed, with the counts of their restarts."""
    pod = logs.start("shop", "web-1", ["app"], init=["prepare"], ephemeral=["debug"])
    pod.containers["app"].restart()
    pod.containers["prepare"].stop()
    _, _, body = await ask(session, kubelet, "/pods")
    assert pod.uid.encode() in body
    document = pod.document()
    (status,) = document["status"]["containerStatuses"]
    assert (status["restartCount"], "terminated" in status["lastState"]) == (1, True)
    assert "terminated" in document["status"]["initContainerStatuses"][0]["state"]
    assert document["spec"]["ephemeralContainers"][0]["name"] == "debug"
    assert (pod.containers["app"].folder / "0.log").exists()
    assert (pod.containers["app"].folder / "1.log").exists()
    logs.delete(pod)
    assert "deletionTimestamp" in pod.document()["metadata"]
    logs.remove(pod)
    assert not pod.folder.exists()


def test_a_static_pod(logs):
    """Its folder bears the UID that the kubelet lists."""
    pod = logs.start("kube-system", "etcd-a", static=True)
    assert pod.folder.name == f"kube-system_etcd-a_{pod.uid}"
    assert pod.document()["metadata"]["annotations"]["kubernetes.io/config.source"] == "file"


def test_a_long_line(app):
    """It is written in parts; only the last one has the tag F."""
    app.write(b"x" * (2 * MAX_PART + 5), "stderr")
    lines = app.path.read_bytes().splitlines()
    assert [line.split(b" ", 3)[2] for line in lines] == [b"P", b"P", b"F"]
    assert b"".join(line.split(b" ", 3)[3] for line in lines) == b"x" * (2 * MAX_PART + 5)


def test_a_late_write(app):
    """Until it is told otherwise, the runtime writes to the renamed file."""
    app.write("one")
    renamed = app.rotate(reopen=False)
    app.write("two")
    assert not app.path.exists()
    app.reopen()
    app.write("three")
    assert renamed.read_bytes().count(b"\n") == 2
    assert app.path.read_bytes().endswith(b"three\n")


def test_a_full_file_is_not_rotated_twice(tmp_path):
    """What was renamed already is written on until the runtime opens a new file."""
    with SimLogs(tmp_path / "log", max_bytes=100) as logs:
        app = logs.start("shop", "web-0").containers["app"]
        app.rotate(reopen=False)
        app.write("x" * 100)
        assert app.rotations == 1
        app.reopen()
        app.write("x" * 100)
        assert app.rotations == 2


def test_rotations(app):
    """Older files are compressed, the newest stays plain, and there are five at most."""
    for number in range(8):
        app.write(f"line {number}")
        app.rotate()
    names = sorted(each.name for each in app.folder.iterdir())
    assert len(names) == MAX_FILES
    assert [name.endswith(".gz") for name in names] == [False, True, True, True, False]
    assert gzip.decompress((app.folder / names[1]).read_bytes()).endswith(b"line 4\n")
