"""The search for one namespace in which a caller has a right: order, cost and sharing."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.auth import footholds
from kmproxy.auth.footholds import Footholds, in_parallel, own_namespace
from kmproxy.errors import AccessError
from kmproxy.kube.reviews import ACCESS_REVIEWS, ALLOWED_FOR, DENIED_FOR, Caller
from kmproxy.simulator.answers import ApiFault
from tests.conftest import until
from tests.support.desk import bind
from tests.support.resources import PODS, RESOURCE

ACCOUNT = Caller("system:serviceaccount:n7:prometheus")
ANN = Caller("ann")
NAMES = [f"n{number}" for number in range(50)]


def footholds_of(desk, known=NAMES, likely=()):
    """The footholds in a cluster of these namespaces."""
    return Footholds(desk.reviewer, RESOURCE, likely=lambda: likely, known=lambda: known)


def subject(name="ann"):
    """A user as the subject of a binding."""
    return {"kind": "User", "name": name}


@pytest.mark.parametrize(
    ("name", "namespace"),
    [
        ("system:serviceaccount:payments:prometheus", "payments"),
        ("system:serviceaccount:Payments:x", ""),
        ("system:serviceaccount:a:b:c", ""),
        ("xsystem:serviceaccount:a:b", ""),
        ("ann", ""),
    ],
)
def test_own_namespace(name, namespace):
    """Only a service account has an own namespace, and only with a valid name."""
    assert own_namespace(Caller(name)) == namespace


async def test_ones_own_namespace_is_tried_first(desk, cluster):
    """A service account with a right in its own namespace costs one review."""
    bind(cluster, PODS, subject(ACCOUNT.username), namespace="n7")
    found = footholds_of(desk)
    for _ in range(3):
        assert await found.has_any(ACCOUNT)
    assert desk.asked(ACCESS_REVIEWS) == 1


async def test_a_right_elsewhere_is_found_and_kept(desk, cluster):
    """After a search only the found namespace is reviewed, while the right lasts."""
    bound = bind(cluster, PODS, namespace="n33")
    found = footholds_of(desk)
    assert await found.has_any(ANN)
    searched = desk.asked(ACCESS_REVIEWS)
    assert searched <= 34 + footholds.PARALLEL
    desk.now += ALLOWED_FOR
    assert await found.has_any(ANN)
    assert desk.asked(ACCESS_REVIEWS) == searched + 1
    cluster.authority.rbac.delete(bound)
    desk.now += ALLOWED_FOR
    assert not await found.has_any(ANN)


async def test_what_answers_held_is_tried_first(desk, cluster):
    """Namespaces of the last answer are tried first, because they need reviews anyway."""
    bind(cluster, PODS, namespace="n49")
    assert await footholds_of(desk, likely=["n49"]).has_any(ANN)
    assert desk.asked(ACCESS_REVIEWS) <= footholds.PARALLEL


async def test_a_search_in_vain(desk, cluster):
    """A small cluster is searched once in 30 seconds. The next search finds a new right."""
    found = footholds_of(desk)
    for _ in range(3):
        assert not await found.has_any(ANN)
    assert desk.asked(ACCESS_REVIEWS) == len(NAMES)
    bind(cluster, PODS, namespace="n2")
    desk.now += DENIED_FOR - 1
    assert not await found.has_any(ANN)
    desk.now += 1
    assert await found.has_any(ANN)
    assert repr(found) == "<Footholds of 1 callers, 1 without>"


async def test_a_large_cluster_is_searched_less_often(desk, cluster):
    """At most ten reviews a second on average, none kept. The own namespace is still tried."""
    names = [f"n{number}" for number in range(2000)]
    found = footholds_of(desk, names)
    assert not await found.has_any(ACCOUNT)
    assert desk.asked(ACCESS_REVIEWS) == len(names)
    assert len(desk.reviewer._allowed) == 1
    desk.now += len(names) * footholds.PACE - 1
    assert not await found.has_any(ACCOUNT)
    assert desk.asked(ACCESS_REVIEWS) == len(names) + 1
    bind(cluster, PODS, subject(ACCOUNT.username), namespace="n7")
    desk.now += DENIED_FOR
    assert await found.has_any(ACCOUNT)
    assert desk.asked(ACCESS_REVIEWS) == len(names) + 2


async def test_one_search_for_all_who_wait(desk, cluster):
    """All waiting requests share a search. It continues when they have left."""
    bind(cluster, PODS, namespace="n40")
    found = footholds_of(desk)
    cluster.api.fail("review", ApiFault.HANG)
    leaving = asyncio.create_task(found.has_any(ANN))
    await until(lambda: _reaches(desk, footholds.PARALLEL))
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    staying = [asyncio.create_task(found.has_any(ANN)) for _ in range(5)]
    await asyncio.sleep(0.05)
    assert desk.asked(ACCESS_REVIEWS) == footholds.PARALLEL
    for each in staying:
        each.cancel()
    await desk.reviewer.close()
    cluster.api.recover()
    desk.reviewer = desk.open()
    assert await footholds_of(desk).has_any(ANN)


async def _reaches(desk, count):
    return desk.asked(ACCESS_REVIEWS) == count


async def test_searches_at_once_are_bounded(desk, cluster):
    """The number of concurrent searches is bounded for any number of callers."""
    found = footholds_of(desk)
    cluster.api.fail("review", ApiFault.HANG)
    limit = footholds.SEARCHES * footholds.PARALLEL
    asking = [asyncio.create_task(found.has_any(Caller(f"u{n}"))) for n in range(20)]
    await until(lambda: _reaches(desk, limit))
    await asyncio.sleep(0.1)
    assert desk.asked(ACCESS_REVIEWS) == limit
    for each in asking:
        each.cancel()


async def test_a_review_that_fails(desk, cluster):
    """A failed review is an error, and is not remembered."""
    found = footholds_of(desk)
    bind(cluster, PODS, namespace="n2")
    cluster.api.fail("review", ApiFault.STATUS, status=500)
    with pytest.raises(AccessError):
        await found.has_any(ANN)
    cluster.api.recover()
    assert await found.has_any(ANN)


async def test_no_namespace_is_known_yet(desk):
    """Without known namespaces no caller is refused for a missing right: nothing is served yet."""
    assert await footholds_of(desk, known=(), likely=["x"]).has_any(ANN)
    assert not desk.asked(ACCESS_REVIEWS)


async def test_in_parallel():
    """Each name is taken once, until a worker stops."""
    asked = []

    async def ask(name):
        asked.append(name)
        await asyncio.sleep(0)
        return name != 20

    await in_parallel(range(10), ask)
    assert asked == list(range(10))
    asked.clear()
    await in_parallel(range(1000), ask)
    assert set(range(21)) <= set(asked)
    assert len(asked) <= 20 + 2 * footholds.PARALLEL
