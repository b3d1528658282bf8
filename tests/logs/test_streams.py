"""The labels, the structured metadata and the tenant of lines."""

import json

import pytest

from kmproxy.logs.streams import Rendering, StreamLabels, StreamOptions
from tests.support.log_endpoint import container


def stream(options=None, rendered=b',team="a"', pod=b"", pods=None, instance=2):
    """Labels, metadata and tenant of a line of stdout."""
    labels = StreamLabels(options or StreamOptions(), lambda _: rendered, pods=pods)
    made = labels.stream(container(), instance, "stdout", Rendering(rendered, pod))
    return json.loads(made.labels), json.loads(made.metadata or b"{}"), made.tenant


def test_the_stream_of_a_line():
    """The namespace, the container, the stream and the labels of the rules; the rest is metadata."""
    labels, metadata, tenant = stream()
    assert labels == {"namespace": "shop", "container": "app", "stream": "stdout", "team": "a"}
    assert metadata == {"pod": "web-1", "node": "n1", "instance": "2"}
    assert tenant is None


def test_other_stream_labels():
    """They replace the first three, whose values become metadata: no line loses its namespace."""
    options = StreamOptions(("pod", "workload"), external=(("cluster", "eu"),))
    labels, metadata, _ = stream(options, pod=b',workload="web",workload_type="deployment"')
    assert labels == {"cluster": "eu", "pod": "web-1", "workload": "web", "team": "a"}
    assert metadata == {
        "namespace": "shop", "container": "app", "stream": "stdout", "node": "n1", "instance": "2",
        "workload_type": "deployment",
    }  # fmt: skip


def test_escaped_values():
    """A value is the text that the rule has read, whatever stands in it."""
    labels, _, _ = stream(rendered=rb',team="a\"b\\c\nd",u="' + "ü".encode() + b'"')
    assert labels["team"] == 'a"b\\c\nd'
    assert labels["u"] == "ü"


def test_labels_that_loki_would_refuse_become_metadata():
    """The sixteenth label, and a value that is too long: no line is lost for its namespace."""
    rendered = b"".join(b',l%d="x"' % number for number in range(14)) + b',long="%b"' % (
        b"y" * 3000
    )
    labels, metadata, _ = stream(rendered=rendered)
    assert len(labels) == 15
    assert set(labels) > {"namespace", "container", "stream", "l11"}
    assert metadata.keys() >= {"l12", "l13", "long", "pod"}


def test_a_label_of_any_key_takes_no_name_of_a_line():
    """With `*` a namespace may be labelled as it likes; it cannot pose as another container."""
    labels, metadata, _ = stream(rendered=b',container="other",pod="other",team="a"')
    assert labels == {"namespace": "shop", "container": "app", "stream": "stdout", "team": "a"}
    assert metadata["pod"] == "web-1"


@pytest.mark.parametrize(
    ("rendered", "tenant"),
    [
        (b',team="a"', "tenant-a"), (b',team="b"', "b"), (b"", "rest"), (b',team=""', "rest"),
        (b',team="a|b"', "rest"), (b',team="x\\r\\ny: z"', "rest"), (b',team=".."', "rest"),
        (b',team="%b"' % (b"t" * 151), "rest"), (b',team="\xc3\xbc"', "rest"),
    ],
)  # fmt: skip
def test_tenants(rendered, tenant):
    """What the map says, else the value; the default where there is none or it is no tenant."""
    options = StreamOptions(tenant_label="team", tenants={"a": "tenant-a"}, default_tenant="rest")
    assert stream(options, rendered)[2] == tenant


@pytest.mark.parametrize(
    ("value", "tenant"),
    [("12", "12"), ("12:3", "12:3"), ("a", "0:0"), ("4294967296", "0:0"), ("1:2:3", "0:0"), ("1:", "0:0")],
)  # fmt: skip
def test_tenants_of_victorialogs(value, tenant):
    """They are pairs of numbers; VictoriaLogs refuses whole pushes of another tenant."""
    options = StreamOptions(tenant_label="team", default_tenant="0:0", accounts=True)
    assert stream(options, b',team="%b"' % value.encode())[2] == tenant


def test_unknown_namespaces_and_pods():
    """Neither is known until both look-ups know it; then it may be assumed that they never will."""
    known, pods = {}, {}
    labels = StreamLabels(
        StreamOptions(),
        known.get,
        unknown=b',team="none"',
        pods=lambda ns, pod: pods.get((ns, pod)),
    )
    assert labels.find(container()) is None
    assert labels.assumed(container()) == Rendering(b',team="none"')
    known[b"shop"] = b',team="a"'
    assert labels.find(container()) is None
    assert labels.assumed(container()) == Rendering(b',team="a"')
    pods[b"shop", b"web-1"] = b',workload="web"'
    assert labels.find(container()) == Rendering(b',team="a"', b',workload="web"')
