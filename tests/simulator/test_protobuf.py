"""Kubernetes' protobuf in the simulator: a Namespace is read, other input is refused."""

from __future__ import annotations

import contextlib

import aiohttp
import pytest

from kmproxy.simulator.protobuf import MAGIC, UnsupportedKindError, namespace


def varint(number):
    """A number in protobuf's encoding."""
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number, value):
    """A field with text, bytes or a number."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value if isinstance(value, bytes) else value.encode()
    return varint(number << 3 | 2) + varint(len(data)) + data


def envelope(metadata, kind="Namespace", version="v1"):
    """An object as kubectl sends it."""
    raw = field(1, metadata) + field(2, b"") + field(3, b"")
    return MAGIC + field(1, field(1, version) + field(2, kind)) + field(2, raw) + field(3, "")


def entry(key, value):
    """An entry of a map."""
    return field(1, key) + field(2, value)


METADATA = (
    field(1, "team-x")
    + field(2, "")
    + field(7, 300)
    + field(8, b"")
    + field(11, entry("team", "x"))
    + field(11, entry("unit", ""))
    + field(12, entry("note", "a" * 300))
    + b"\x8d\x010123"  # fields 17 and 18 of four and eight bytes, which no object has
    + b"\x91\x0101234567"
)


def test_a_namespace():
    """Its name, labels and annotations are read, and other fields are skipped."""
    assert namespace(envelope(METADATA)) == {
        "kind": "Namespace",
        "apiVersion": "v1",
        "metadata": {
            "name": "team-x",
            "labels": {"team": "x", "unit": ""},
            "annotations": {"note": "a" * 300},
        },
    }


@pytest.mark.parametrize(("kind", "version"), [("Service", "v1"), ("Namespace", "v2"), ("", "")])
def test_other_kinds(kind, version):
    """Other kinds differ from broken input."""
    with pytest.raises(UnsupportedKindError):
        namespace(envelope(METADATA, kind, version))


@pytest.mark.parametrize("size", range(len(envelope(METADATA))))
def test_a_body_that_is_cut(size):
    """A cut body is refused or read. No other error is raised."""
    with contextlib.suppress(ValueError):
        namespace(envelope(METADATA)[:size])


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", MAGIC + b"\xff" * 11, MAGIC + b"\x0b", MAGIC + b"\x0a\xff\xff\xff\xff\x7f"],
)
def test_what_is_no_protobuf(body):
    """Numbers without end, groups, and lengths past the end are refused."""
    with pytest.raises(ValueError):
        namespace(body)


@pytest.mark.parametrize(
    ("content_type", "body", "status", "says"),
    [
        ("application/vnd.kubernetes.protobuf", envelope(METADATA), 201, None),
        ("application/vnd.kubernetes.protobuf", b"k8s", 400, "unrecognized: the first bytes"),
        ("application/vnd.kubernetes.protobuf", envelope(b"", "Pod"), 415, "not Pod in 'v1'"),
        ("application/cbor", b"", 415, "only JSON is understood, not application/cbor"),
    ],
)
async def test_a_request(cluster, content_type, body, status, says):
    """The answer is JSON: the object, or a Status with the error."""
    url = f"{cluster.api.plain_url}/api/v1/namespaces"
    headers = {"Content-Type": content_type, "Accept": "application/vnd.kubernetes.protobuf,*/*"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers=headers) as response,
    ):
        answer = await response.json()
    assert response.status == status
    if says is None:
        assert answer["metadata"]["labels"]["team"] == "x"
        assert "team-x" in cluster.api.namespaces
    else:
        assert answer["kind"] == "Status"
        assert says in answer["message"]
