"""The containers whose logs are read, by a kubelet's list of pods."""

import json

import pytest

from kmproxy.config.logs import LogsConfig
from kmproxy.config.logs_values import Shard
from kmproxy.errors import UpstreamError
from kmproxy.logs.lines import Container
from kmproxy.logs.pods import Followed, LogPodReader, LogSelection, in_shard
from kmproxy.simulator.logs import SimLogs
from kmproxy.simulator.pods import pod_list


@pytest.fixture
def logs(tmp_path):
    """The pods of node-a."""
    with SimLogs(tmp_path / "log") as made:
        yield made


def read(*pods, **config):
    """What is followed of these documents, by the container's name."""
    reader = LogPodReader(LogSelection.of(LogsConfig(**config)))
    reader.feed(json.dumps(pod_list(pods)).encode())
    return {each.container.name: each for each in reader.finish().values()}


def names(*pods, **config):
    """The names of the containers that are followed."""
    return set(read(*pods, **config))


def test_a_running_container(logs):
    """Its identity comes from the pod, its instance from the count of restarts."""
    pod = logs.start("shop", "web-0")
    container = Container(pod.uid, "shop", "web-0", "app", "node-a")
    assert read(pod.document()) == {"app": Followed(container, 0, is_ended=False, is_ending=False)}
    pod.containers["app"].restart()
    assert read(pod.document())["app"].latest == 1


def test_every_kind(logs):
    """Init and ephemeral containers and static pods have logs, too."""
    pod = logs.start("shop", "web-0", ["app"], init=["prepare"], ephemeral=["debug"])
    static = logs.start("kube-system", "etcd", ["etcd"], static=True)
    found = read(pod.document(), static.document())
    assert set(found) == {"app", "prepare", "debug", "etcd"}
    assert found["etcd"].container.uid == static.uid


def test_a_container_that_ended(logs):
    """Its files may go soon; so may those of a pod that is being deleted."""
    pod = logs.start("shop", "web-0")
    pod.containers["app"].stop()
    assert read(pod.document())["app"].is_ended
    assert read(pod.document())["app"].is_ending
    other = logs.start("shop", "web-1")
    logs.delete(other)
    assert not read(other.document())["app"].is_ended
    assert read(other.document())["app"].is_ending


def test_a_container_that_waits_for_its_restart(logs):
    """In a crash loop the last instance has ended."""
    document = logs.start("shop", "web-0").document()
    (status,) = document["status"]["containerStatuses"]
    status["lastState"] = {"terminated": {"exitCode": 1}}
    status["state"] = {"waiting": {"reason": "CrashLoopBackOff"}}
    status["restartCount"] = 3
    found = read(document)["app"]
    assert (found.latest, found.is_ended, found.is_ending) == (3, True, True)


def test_a_container_that_has_not_started(logs):
    """It has no files yet."""
    document = logs.start("shop", "web-0").document()
    (status,) = document["status"]["containerStatuses"]
    status["state"] = {"waiting": {"reason": "ContainerCreating"}}
    assert names(document) == set()
    del document["status"]
    assert names(document) == set()


def test_the_selection(logs):
    """Globs of namespaces and of containers, each to take and to leave out."""
    pods = [
        logs.start("shop", "a", ["app", "istio-proxy"]).document(),
        logs.start("kube-system", "b", ["dns"]).document(),
    ]
    assert names(*pods) == {"app", "istio-proxy", "dns"}
    assert names(*pods, namespace=("kube-*",)) == {"dns"}
    assert names(*pods, exclude_namespace=("kube-*",)) == {"app", "istio-proxy"}
    assert names(*pods, container=("a*", "dns")) == {"app", "dns"}
    assert names(*pods, exclude_container=("istio-*",)) == {"app", "dns"}


def test_the_shards():
    """Each pod belongs to exactly one of them, and each of them has some."""
    uids = [f"uid-{number}" for number in range(300)]
    shards = [Shard(number, 3) for number in range(3)]
    owners = [[shard.number for shard in shards if in_shard(uid, shard)] for uid in uids]
    assert all(len(each) == 1 for each in owners)
    assert {each[0] for each in owners} == {0, 1, 2}
    assert all(in_shard(uid, Shard(0, 1)) for uid in uids)


def test_a_shard_of_a_node(logs):
    """A process follows the pods of its shard only."""
    pods = [logs.start("shop", f"web-{n}", [f"app-{n}"]).document() for n in range(20)]
    halves = [names(*pods, shard=Shard(number, 2)) for number in range(2)]
    assert halves[0] | halves[1] == {f"app-{n}" for n in range(20)}
    assert not halves[0] & halves[1]


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "../../etc"), ("name", "a..b"), ("namespace", "a/b"), ("uid", "..")],
)
def test_a_name_that_leaves_the_folder(logs, key, value):
    """It is left out and counted: paths are made of these names."""
    document = logs.start("shop", "web-0").document()
    document["metadata"][key] = value
    reader = LogPodReader(LogSelection())
    reader.feed(json.dumps(pod_list([document])).encode())
    assert reader.finish() == {}
    assert reader.left_out == 1


def test_a_list_in_pieces(logs):
    """How it is cut does not show."""
    pods = [logs.start("shop", f"web-{n}", [f"app-{n}"]).document() for n in range(3)]
    body = json.dumps(pod_list(pods)).encode()
    for size in (1, 7, 1000):
        reader = LogPodReader(LogSelection())
        for start in range(0, len(body), size):
            reader.feed(body[start : start + size])
        assert {each.name for each in reader.finish()} == {"app-0", "app-1", "app-2"}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"items": [{"metadata"', b'{"items": [{}]}'])
def test_what_is_no_list(body):
    """It never counts as a list without pods."""
    reader = LogPodReader(LogSelection())

    def read_whole():
        reader.feed(body)
        reader.finish()

    with pytest.raises(UpstreamError, match="is not a list of pods"):
        read_whole()


def test_no_pods():
    """A kubelet without pods lists null."""
    assert names() == set()
