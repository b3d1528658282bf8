"""An exporter of a tenant invents namespaces: the API server is not asked about each of them."""

from __future__ import annotations

import asyncio

import pytest

from kmproxy.auth.tenant import INVENTED, INVENTED_IN, NamespaceNames
from kmproxy.kube.reviews import ACCESS_REVIEWS, Caller
from tests.support.callers import asked
from tests.support.exporters import Exporter, answer, config_file
from tests.support.sharing import Clock
from tests.support.tenants import bearer, grant

KSM = "/upstreams/ksm/metrics"
OWN = 'm{namespace="payments",team="payments"} 1\n'


def invented(count, *, start=0):
    """Samples of as many namespaces that do not exist, and one of a tenant's own."""
    lines = [f'm{{namespace="n{number}"}} 1\n' for number in range(start, start + count)]
    return "".join([*lines, 'm{namespace="payments"} 1\n']).encode()


@pytest.fixture
async def scraped(front, cluster, tmp_path):
    """A function with which a tenant scrapes an exporter. Its attribute `proxy` is the daemon's."""
    grant(cluster, "payments")
    clock = Clock()
    async with Exporter() as exporter:
        entry = {"name": "ksm", "url": exporter.url}
        proxy = await front(config_file(tmp_path, entry), "--authorization=tenant", clock=clock)

        async def scrape(body):
            exporter.say = answer(body)
            return await proxy.get(KSM, **bearer(cluster))

        scrape.proxy, scrape.clock = proxy, clock
        yield scrape


async def test_ten_thousand_names(scraped, cluster):
    """A few of them are reviewed, and none again; the tenant still sees its own namespace."""
    assert await scraped(invented(0)) == (200, OWN)
    before = asked(cluster, ACCESS_REVIEWS)
    assert await scraped(invented(10_000)) == (200, OWN)
    assert asked(cluster, ACCESS_REVIEWS) - before == INVENTED
    assert await scraped(invented(10_000, start=50_000)) == (200, OWN)
    assert asked(cluster, ACCESS_REVIEWS) - before == INVENTED
    scraped.clock.now += INVENTED_IN / 2
    assert await scraped(invented(10_000, start=90_000)) == (200, OWN)
    assert asked(cluster, ACCESS_REVIEWS) - before == INVENTED * 3 // 2


async def test_names_are_not_foreseen(scraped, cluster):
    """The next answer, and a search for a right, do not begin with the invented names."""
    await scraped(invented(200))
    scraped.clock.now += 1000
    before = asked(cluster, ACCESS_REVIEWS)
    assert await scraped(invented(0)) == (200, OWN)
    assert asked(cluster, ACCESS_REVIEWS) - before <= 3
    before = asked(cluster, ACCESS_REVIEWS)
    status, _ = await scraped.proxy.get(KSM, **bearer(cluster, "bob"))
    assert status == 403
    assert asked(cluster, ACCESS_REVIEWS) - before < 20


async def test_a_namespace_that_is_not_known_yet(scraped, cluster):
    """It is reviewed: a tenant with the right in it sees it before the watch has told of it."""
    grant(cluster, "payments", "new")
    assert await scraped(b'm{namespace="new"} 1\n') == (200, 'm{namespace="new"} 1\n')


async def test_a_denial_takes_as_long_as_a_review(desk):
    """So its time does not tell whether a namespace exists. It is counted as one, too."""
    names = NamespaceNames(lambda name: name == "real")
    ann = Caller("ann")
    for number in range(INVENTED):
        assert names.may_be_reviewed(ann, f"n{number}", desk.now)
        names.reviewed(ann, f"n{number}", desk.now)
    names.reviewed(ann, "real", desk.now)
    assert not names.may_be_reviewed(ann, "other", desk.now)
    assert names.may_be_reviewed(ann, "real", desk.now)
    assert names.may_be_reviewed(Caller("bob"), "other", desk.now)
    desk.reviewer._took.append(60.0)
    waiting = asyncio.create_task(desk.reviewer.deny_unasked(3, asyncio.get_running_loop().time()))
    assert await asyncio.wait({waiting}, timeout=0.01) == (set(), {waiting})
    waiting.cancel()
    await desk.reviewer.deny_unasked(3, asyncio.get_running_loop().time() - 60.0)
    denied = desk.metrics.registry.get_sample_value(
        "kmproxy_reviews_total", {"kind": "access", "result": "denied"}
    )
    assert denied == 6
