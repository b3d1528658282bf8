"""The page of `kmproxy logs`: what is shown first, what is found, and that nothing is markup."""

import json

import msgspec
import pytest

from kmproxy.logs.page import (
    PAGE_ROWS,
    LogsStatus,
    Shipping,
    Target,
    TargetQuery,
    body,
    by_name,
    choose,
    targets_document,
    title,
)
from kmproxy.status.document import frame
from kmproxy.status.model import Certificate, Process, Setting
from tests.support.pages import Page, whole

EVIL = "</td><script>alert('\"&')</script>\u202e"


def target(name, lag=0, error=None, tenant=None, **labels):
    """A container of a pod of its own."""
    return Target(namespace="shop", pod=name, uid="u", container="app", instance=0, labels=labels,
                  tenant=tenant, position=None, lag_bytes=lag, last_line=1.0, last_error=error)  # fmt: skip


TARGETS = [
    target("a", tenant="red", team="red"),
    target("b", lag=9000, tenant="red", team="red"),
    target("c", error="the kubelet serves no logs", tenant="gold", team="gold"),
    target("d", lag=20, team="Blue"),
]
STATUS = LogsStatus(
    health="well",
    problem=None,
    shipping=Shipping(source="https://node-a:10250", reading=None, endpoint="https://loki/push",
                      sending=None, held=2048, buffer=16 << 20, oldest=3.0),
    containers=choose(TARGETS, TargetQuery()),
    labels_confirmed=4.0,
    certificates=[Certificate(name="serving", ends_in=86400.0)],
    process=Process(version="1.2.3", revision="", up=60.0, telemetry=":8081"),
    settings=[Setting(name="loki-url", value="https://loki/push", default=False)],
)  # fmt: skip


def found(**query):
    """The pods that a query finds, in order."""
    return "".join(each.pod for each in choose(TARGETS, TargetQuery(**query)).rows)


def shown(query=None, **changes):
    """The page as a browser reads it."""
    status = msgspec.structs.replace(STATUS, **changes)
    return Page(frame().page(title(status), whole(body(status, query or TargetQuery()))).decode())


def test_the_worst_come_first():
    """Failing ones, then the ones that are the most behind; or the order of names."""
    assert found() == "cbda"
    assert found(sort="name") == "abcd"
    assert [each.pod for each in by_name(reversed(TARGETS))] == list("abcd")


@pytest.mark.parametrize(
    ("query", "pods"),
    [({"text": "RED"}, "ba"), ({"text": "blue"}, "d"), ({"text": "shop"}, "cbda"), ({"text": "team"}, ""),
     ({"tenant": "red"}, "ba"), ({"tenant": "red", "text": "shop"}, "ba"), ({"tenant": "re"}, "")],
)  # fmt: skip
def test_search(query, pods):
    """In names, values and tenants; a tenant by its whole name."""
    assert found(**query) == pods


def test_sums_are_of_all():
    """Whatever is searched, the sums and the tenants are of all containers."""
    for query in (TargetQuery(), TargetQuery(text="nothing")):
        sums = choose(TARGETS, query)
        assert (sums.total, sums.failing, sums.lag_bytes) == (4, 1, 9020)
        assert [(each.name, each.containers, each.lag_bytes) for each in sums.tenants] == [
            ("red", 2, 9000),
            ("gold", 1, 0),
        ]


def test_pages():
    """Each container is on one page."""
    many = [target(f"p{number:03}", lag=number) for number in range(PAGE_ROWS + 1)]
    first, second, third = (choose(many, TargetQuery(page=number)) for number in (1, 2, 3))
    assert (len(first.rows), first.pages) == (PAGE_ROWS, 2)
    assert [each.pod for each in second.rows] == ["p000"]
    assert third == second


@pytest.mark.parametrize(
    "fact",
    ["1 container cannot be read", "Containers 4 1 failing", "Behind 8.8 KiB", "2.0 KiB of 16.0 MiB", "3 s old",
     "shop/c/app the kubelet serves no logs ✕ failing", 'team="red" red 8.8 KiB', "red 2, 8.8 KiB behind",
     "4 s ago", "Lines to https://loki/push", "1 d", "port 8081", "/targets", "loki-url"],
)  # fmt: skip
def test_every_fact_is_shown(fact):
    """Containers and their tenants, the lag, the way of the lines, the process and its settings."""
    assert fact in shown().text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"health": "unready", "problem": "not listed"}, "Not ready: no line is read not listed"),
        ({"health": "failing", "shipping": msgspec.structs.replace(STATUS.shipping, sending="503")}, "Lines cannot be sent 503"),
        ({"health": "failing", "shipping": msgspec.structs.replace(STATUS.shipping, reading="403")}, "Pods cannot be listed 403"),
        ({"health": "failing"}, "1 container cannot be read"),
        ({"containers": choose([], TargetQuery()), "labels_confirmed": None}, "No such container."),
    ],
)  # fmt: skip
def test_other_states(changes, said):
    """The heading says what is wrong."""
    assert said.split()[-1] in shown(**changes).text
    if "health" in changes:
        health = msgspec.structs.replace(STATUS.containers, failing=1)
        if changes == {"health": "failing"}:
            changes = {**changes, "containers": health}
        seen = shown(**changes)
        assert said in seen.text
        assert "banner failing" in seen.of("div", "class")


def test_nothing_shown_is_markup():
    """Labels, tenants, errors and searches are text."""
    evil = [target(EVIL, error=EVIL, tenant=EVIL, team=EVIL)]
    query = TargetQuery(text=EVIL, tenant=EVIL)
    shipping = Shipping(
        source=EVIL, reading=EVIL, endpoint=EVIL, sending=EVIL, held=1, buffer=1, oldest=None
    )
    seen = shown(
        query, containers=choose(evil, query), shipping=shipping, problem=EVIL, health="unready"
    )
    assert seen.tags.count("script") == 1
    assert seen.text.count("</td><script>alert('\"&')</script>\\u202e") >= 8
    assert not any(name.startswith("on") for _, name, _ in seen.attributes)


def test_json():
    """The facts and the targets are JSON."""
    assert json.loads(msgspec.json.encode(STATUS))["containers"]["rows"][0]["pod"] == "c"
    assert [each["pod"] for each in json.loads(targets_document(TARGETS))] == list("abcd")
