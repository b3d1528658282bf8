"""The output of a preflight: the table, the sections, the JSON document."""

from __future__ import annotations

import json

import pytest
import yaml

from kmproxy.check.report import (
    Access,
    Certificate,
    Coverage,
    Metrics,
    Report,
    Trusted,
    indented,
    printable,
)
from kmproxy.kube.permissions import NAMESPACES, NODE_METRICS, NODE_PROXY

SHOWN = Certificate("CN=node", "CN=ca", ("node", "10.0.0.1"), "2026-01-01", "2027-01-01", False)


def trusted(**more):
    """A certificate that verifies, or otherwise as said."""
    given = {"verified": True, "insecure": False, "problem": "", "accepted_by": ()}
    return Trusted("kubelet", "10.0.0.1:10250", SHOWN, **(given | more))


@pytest.mark.parametrize(
    ("results", "ok"),
    [
        ([], True),
        (["ok", "warning", "skipped"], True),
        (["ok", "failed"], False),
    ],
)
def test_ok(results, ok):
    """Only a failed row is a failure."""
    report = Report("1")
    for result in results:
        report.add("check", "subject", result, "message")
    assert report.ok is ok
    assert report.document()["ok"] is ok


def test_the_table():
    """An aligned row per finding with its mark, then the rules for missing permissions."""
    report = Report("1")
    report.add("a", "short", "ok", "well")
    report.add("b", "rather longer", "failed", "why\x1b[31m")
    report.add("c", "c", "warning", "w")
    report.add("d", "d", "skipped", "s")
    assert report.table().splitlines() == [
        "✓ short          well",
        "✗ rather longer  why\ufffd[31m",
        "! c              w",
        "- d              s",
    ]
    report.access += [
        Access(NAMESPACES[0], needed=True, allowed=True),
        Access(NAMESPACES[1], needed=True, allowed=False),
        Access(NODE_METRICS, needed=True, allowed=None),
        Access(NODE_PROXY, needed=False, allowed=False),
    ]
    rules = report.table().partition("identity:\n")[2]
    expected = [{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["watch"]}]
    assert yaml.safe_load(rules) == expected == report.document()["rules_to_add"]


@pytest.mark.parametrize(
    ("found", "result", "words"),
    [
        (trusted(), "ok", "verified"),
        (trusted(verified=False, problem="self-signed"), "failed", "self-signed"),
        (
            trusted(verified=False, insecure=True, problem="x"),
            "warning",
            "kmproxy would accept any server",
        ),
        (trusted(verified=False, insecure=True), "warning", "leave out --kubelet-insecure-tls"),
        (trusted(pin="verified"), "ok", "verified"),
        (trusted(verified=False, pin="same"), "ok", "is pinned"),
        (trusted(verified=False, pin="pinned", digest="ab"), "warning", "would pin it, SHA-256 ab"),
        (trusted(verified=False, pin="refused", problem="another"), "failed", "another"),
    ],
)
def test_the_verdict_on_a_certificate(found, result, words):
    """An unverified certificate is a warning, also if it would verify."""
    assert found.verdict[0] == result
    assert words in found.verdict[1]


def test_a_certificate_as_text():
    """Its subject, issuer, names and dates, and the accepting flags."""
    lines = list(
        trusted(verified=False, problem="bad", accepted_by=("with --x", "with --y")).lines()
    )
    text = "\n".join(lines)
    for part in ("10.0.0.1:10250", "CN=node", "CN=ca", "node, 10.0.0.1", "2026-01-01 to 2027-01-01",
                 "no: bad", "accepted with --x", "accepted with --y"):  # fmt: skip
        assert part in text
    assert "no: verification is off" in "\n".join(trusted(verified=False, insecure=True).lines())


@pytest.mark.parametrize(
    ("without", "default", "text"),
    [
        (0, "", "--label a: every namespace has a value"),
        (2, "", "--label a: 2 of 50 have no value: n0, n1"),
        (2, "nobody", "--label a: 2 of 50 get the default 'nobody': n0, n1"),
        (
            47,
            "",
            "--label a: 47 of 50 have no value: "
            + ", ".join(f"n{i}" for i in range(10))
            + " and 37 more",
        ),
    ],
)
def test_namespaces_without_a_value(without, default, text):
    """The first ten, the number of others, and the effect of a default."""
    names = tuple(f"n{number}" for number in range(without))
    assert list(Coverage("--label a", "a", default, 50, names).lines()) == [text]


def test_nothing_moves_the_cursor():
    """A server's text is shown without control characters."""
    assert printable("a\x1b]0;x\x07\r\nb\u202e") == "a\ufffd]0;x\ufffd\ufffd\ufffdb\ufffd"
    assert indented(["a\x08", "b"]) == "  a\ufffd\n  b"


def test_the_json_document():
    """All findings under stable keys, with JSON values only."""
    report = Report("1", "https://api", "me", "node-a")
    report.add("a", "b", "ok", "c")
    report.access.append(Access(NODE_METRICS, needed=True, allowed=True))
    report.certificate = trusted(accepted_by=("with --x",))
    report.metrics = Metrics("https://n", 1, 2, 3, 4, 5, ("line",))
    report.namespaces = 7
    report.coverage.append(Coverage("--label a", "a", "", 7, ("x",)))
    assert json.loads(json.dumps(report.document())) == {
        "version": "1",
        "ok": True,
        "api_server": "https://api",
        "identity": "me",
        "checks": [{"check": "a", "subject": "b", "result": "ok", "message": "c"}],
        "permissions": [
            {"verb": "get", "group": "", "resource": "nodes/metrics", "name": "", "namespace": "",
             "why": NODE_METRICS.why, "needed": True, "allowed": True},
        ],
        "rules_to_add": [],
        "role_rules_to_add": {},
        "node": "node-a",
        "certificate": {
            "name": "kubelet", "server": "10.0.0.1:10250", "subject": "CN=node", "issuer": "CN=ca",
            "names": ["node", "10.0.0.1"], "not_before": "2026-01-01", "not_after": "2027-01-01",
            "self_signed": False, "verified": True, "insecure": False, "problem": "",
            "accepted_by": ["with --x"], "digest": "", "pin": None,
        },
        "metrics": {
            "url": "https://n", "bytes": 1, "samples": 2, "enriched": 3, "unparsed": 4,
            "conflicts": 5, "examples": ["line"],
        },
        "namespaces": 7,
        "labels": [
            {"rule": "--label a", "label": "a", "default": "", "total": 7, "without": ["x"]},
        ],
        "upstreams": [],
    }  # fmt: skip
    empty = Report("1").document()
    assert empty.keys() == report.document().keys()
    assert (empty["certificate"], empty["metrics"], empty["node"]) == (None, None, None)
