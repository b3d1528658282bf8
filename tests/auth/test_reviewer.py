"""Reviews by the API server's own tokens and RBAC objects: number, lifetime and failures."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest

from kmproxy.auth import reviewer
from kmproxy.bounded_cache import BoundedCache
from kmproxy.errors import AccessError
from kmproxy.kube.reviews import ACCESS_REVIEWS, TOKEN_REVIEWS, Question
from kmproxy.simulator.answers import ApiFault
from kmproxy.telemetry import render
from tests.conftest import until
from tests.support.desk import PATHS, bind
from tests.support.own_metrics import samples


async def test_audiences(desk, cluster):
    """With audiences, other tokens are refused. Without, only tokens for the API server pass."""
    own = cluster.authority.issue("ann")
    ours = cluster.authority.issue("ann", audiences=("kmproxy",))
    plain, strict = desk.reviewer, desk.open("kmproxy", "other")
    assert (await plain.authenticate(own)).username == "ann"
    assert await plain.authenticate(ours) is None
    assert await strict.authenticate(own) is None
    caller = await strict.authenticate(ours)
    assert (caller.username, caller.groups) == ("ann", ("system:authenticated",))


async def test_an_accepted_token_is_remembered(desk, cluster):
    """An accepted token is remembered for a minute. Then a revoked token is refused."""
    token = cluster.authority.issue("ann")
    assert (await desk.reviewer.authenticate(token)).username == "ann"
    cluster.authority.revoke(token)
    desk.now += 59.9
    assert (await desk.reviewer.authenticate(token)).username == "ann"
    assert desk.asked(TOKEN_REVIEWS) == 1
    desk.now += 0.1
    assert await desk.reviewer.authenticate(token) is None
    assert desk.asked(TOKEN_REVIEWS) == 2


async def test_a_rejection_that_is_an_error_is_not_remembered(desk):
    """A failed look-up of a token is not remembered as a rejection."""
    for _ in range(2):
        assert await desk.reviewer.authenticate("unknown") is None
    assert desk.asked(TOKEN_REVIEWS) == 2
    assert len(desk.reviewer._rejected) == 0


async def test_a_rejection_is_remembered(desk, cluster, monkeypatch):
    """A rejection without an error is remembered for half a minute."""
    monkeypatch.setattr(cluster.authority, "review", lambda *_: {"authenticated": False})
    for asked, later in ((1, 0.0), (1, 29.9), (2, 0.1)):
        desk.now += later
        assert await desk.reviewer.authenticate("unknown") is None
        assert desk.asked(TOKEN_REVIEWS) == asked


async def test_callers_are_bounded_in_bytes(desk, cluster):
    """The callers that were unused longest are forgotten, and reviewed again later."""
    groups = tuple(f"{number:0>900}" for number in range(60))
    tokens = [cluster.authority.issue(f"user-{number}", groups=groups) for number in range(200)]
    for token in tokens:
        assert len((await desk.reviewer.authenticate(token)).groups) == 61
    held = desk.reviewer._callers
    assert sum(caller.size for caller in held.values()) <= held.weight
    assert held.weight <= reviewer.MAX_CALLERS_BYTES
    assert 100 < len(held) < 200
    await desk.reviewer.authenticate(tokens[-1])
    assert desk.asked(TOKEN_REVIEWS) == 200
    await desk.reviewer.authenticate(tokens[0])
    assert desk.asked(TOKEN_REVIEWS) == 201


@pytest.mark.parametrize(
    ("count", "said"), [(3000, "in fewer groups"), (300_000, "is over 262144")]
)
async def test_a_caller_with_too_many_groups(desk, cluster, count, said):
    """A caller with too many groups gets 500 with a line, and is not kept."""
    groups = tuple(f"group-{number}" for number in range(count))
    refusal = await desk.refusal(cluster.authority.issue("ann", groups=groups))
    assert refusal.status == 500
    assert said in str(refusal)
    assert len(desk.reviewer._callers) == 0


async def test_what_is_allowed_is_remembered(desk, cluster):
    """A right is remembered for five minutes. Then a withdrawn right is gone."""
    bound = bind(cluster, PATHS)
    caller = await desk.reviewer.authenticate(cluster.authority.issue("ann"))
    assert await desk.reviewer.may(caller, Question("/metrics"))
    cluster.authority.rbac.delete(bound)
    desk.now += 299.9
    assert await desk.reviewer.may(caller, Question("/metrics"))
    assert desk.asked(ACCESS_REVIEWS) == 1
    desk.now += 0.1
    assert not await desk.reviewer.may(caller, Question("/metrics"))
    assert desk.asked(ACCESS_REVIEWS) == 2


async def test_what_is_denied_is_remembered(desk, cluster):
    """A denial is remembered for half a minute. Then a new right holds."""
    caller = await desk.reviewer.authenticate(cluster.authority.issue("ann"))
    assert not await desk.reviewer.may(caller, Question("/metrics"))
    bind(cluster, PATHS)
    desk.now += 29.9
    assert not await desk.reviewer.may(caller, Question("/metrics"))
    desk.now += 0.1
    assert await desk.reviewer.may(caller, Question("/metrics"))


async def test_one_review_for_all(desk, cluster):
    """A thousand requests with one token share one review of each kind."""
    bind(cluster, PATHS)
    token = cluster.authority.issue("ann")
    await asyncio.gather(*(desk.admit(token) for _ in range(1000)))
    assert (desk.asked(TOKEN_REVIEWS), desk.asked(ACCESS_REVIEWS)) == (1, 1)
    counts = samples(desk.metrics)
    for kind in ("token", "access"):
        assert counts["kmproxy_reviews_total", ("kind", kind), ("result", "allowed")] == 1


async def test_who_leaves_takes_nothing_away(desk, cluster):
    """The request that began a review is cancelled. The others still get the result."""
    token = cluster.authority.issue("ann")
    askers = [asyncio.create_task(desk.reviewer.authenticate(token)) for _ in range(3)]
    await desk.begun()
    askers[0].cancel()
    assert [caller.username for caller in await asyncio.gather(*askers[1:])] == ["ann", "ann"]
    with pytest.raises(asyncio.CancelledError):
        await askers[0]
    assert desk.asked(TOKEN_REVIEWS) == 1


async def test_all_have_left(desk, cluster, caplog):
    """A review without waiting requests ends quietly, even if it fails."""
    cluster.api.fail("review", ApiFault.STATUS, status=500)
    asker = asyncio.create_task(desk.reviewer.authenticate("t"))
    await desk.begun()
    asker.cancel()
    while desk.reviewer._under_way:  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0)
    gc.collect()
    assert caplog.text == ""  # of the error that no task has seen
    assert repr(desk.reviewer) == "<Reviewer 0 callers, 0 answers, 0 under way>"


@pytest.mark.parametrize(
    ("fault", "needs", "what"),
    [
        (ApiFault.STATUS, {"status": 500}, "answered 500"),
        (ApiFault.STATUS, {"status": 429, "reason": "TooManyRequests"}, "answered 429"),
        (ApiFault.GARBAGE, {}, "is not a TokenReview"),
        (ApiFault.CUT, {}, "cut short"),
        (ApiFault.HANG, {}, "within 0.2 s"),
    ],
)
async def test_a_review_that_fails(desk, cluster, monkeypatch, fault, needs, what):
    """A failed review of either kind gives 500 with the reason, and is forgotten at once."""
    bind(cluster, PATHS)
    token = cluster.authority.issue("ann")

    @contextlib.contextmanager
    def failing():
        with monkeypatch.context() as patch:
            if fault is ApiFault.HANG:
                patch.setattr(reviewer, "TIMEOUT", 0.2)
            cluster.api.fail("review", fault, **needs)
            yield
            cluster.api.recover()

    with failing():
        error = await desk.refusal(token)
    assert (error.status, error.reason) == (500, "review")
    assert what in str(error)
    caller = await desk.reviewer.authenticate(token)
    with failing(), pytest.raises(AccessError) as raised:
        await desk.reviewer.may(caller, Question("/metrics"))
    assert (raised.value.status, raised.value.reason) == (500, "review")
    await desk.admit(token)
    counts = samples(desk.metrics)
    for kind in ("token", "access"):
        assert counts["kmproxy_reviews_total", ("kind", kind), ("result", "failed")] == 1


async def test_the_api_server_is_away(desk, cluster):
    """500 during an outage, also after a remembered review expires. Then all works again."""
    bind(cluster, PATHS)
    token = cluster.authority.issue("ann")
    await desk.admit(token)
    await cluster.api.stop()
    await desk.admit(token)
    desk.now += 60.0
    error = await desk.refusal(token)
    assert (error.status, error.reason) == (500, "review")
    await cluster.api.start()
    await desk.admit(token)


@pytest.mark.parametrize(
    ("resource", "group"),
    [
        ("tokenreviews", "authentication.k8s.io"),
        ("subjectaccessreviews", "authorization.k8s.io"),
    ],
)
async def test_reviews_are_forbidden_to_us(desk, cluster, resource, group):
    """The error names the missing rule."""
    cluster.authority.deny("create", resource)
    error = await desk.refusal(cluster.authority.issue("ann"))
    assert error.status == 500
    assert str(error) == (
        "kmproxy cannot review your access: the API server forbids kmproxy to create "
        f"{resource}: add a ClusterRole rule with apiGroups [{group}], "
        f"resources [{resource}] and verbs [create]"
    )


async def test_our_own_token_has_rotated(desk, cluster, tmp_path):
    """After a 401 for kmproxy its token is read again. The caller gets no error."""
    bind(cluster, PATHS)
    cluster.rotate_token()
    cluster.write_service_account(tmp_path)
    await desk.admit(cluster.authority.issue("ann"))


async def test_a_closed_connection_is_opened_anew(desk, cluster):
    """A review on a connection that closed meanwhile is posted again."""
    await desk.reviewer.authenticate("first")
    (handlers,) = desk.api._upstream._session.connector._conns.values()
    transport = handlers[0][0].transport._ssl_protocol._transport
    transport.pause_reading()  # so that the end is not seen before the next request is sent
    await cluster.api.stop()
    await cluster.api.start()
    cluster.api.requests.clear()
    asyncio.get_running_loop().call_soon(transport.resume_reading)
    assert await desk.reviewer.authenticate("second") is None
    assert desk.asked(TOKEN_REVIEWS) == 1


async def test_strangers_do_not_hold_up_who_is_known(desk, cluster):
    """A token that was accepted before is reviewed at once, however many unknown ones wait."""
    token = cluster.authority.issue("ann")
    await desk.reviewer.authenticate(token)
    desk.now += 60.0
    cluster.api.fail("review", ApiFault.HANG, times=reviewer.STRANGERS)
    strangers = [
        asyncio.create_task(desk.reviewer.authenticate(f"t{number}"))
        for number in range(2 * reviewer.STRANGERS)
    ]
    await until(lambda: desk.has_asked(1 + reviewer.STRANGERS))
    assert (await desk.reviewer.authenticate(token)).username == "ann"
    assert not any(stranger.done() for stranger in strangers)
    assert desk.asked(TOKEN_REVIEWS) == 2 + reviewer.STRANGERS
    await desk.reviewer.close()
    for stranger in strangers:
        with contextlib.suppress(asyncio.CancelledError):
            await stranger


async def test_a_flood_of_tokens_is_bounded(desk, cluster, monkeypatch):
    """Rejected tokens take bounded memory, and do not displace accepted callers."""
    monkeypatch.setattr(cluster.authority, "review", lambda *_: {"authenticated": False})
    desk.reviewer._rejected._number = 10
    for number in range(50):
        await desk.reviewer.authenticate(f"t{number}")
    assert len(desk.reviewer._rejected) == 10


async def test_no_token_is_kept(desk, cluster):
    """No cache, repr or error holds a token."""
    token = cluster.authority.issue("ann")
    error = await desk.refusal(token)
    kept = [repr(desk.reviewer), repr(desk.authorizer()), str(error), repr(error)]
    held = [getattr(desk.reviewer, name) for name in desk.reviewer.__slots__]
    caches = [str(vars(each)) for each in held if isinstance(each, BoundedCache)]
    assert len(caches) == 3
    kept += caches
    kept.append(render(desk.metrics.registry).decode())
    assert not [text for text in kept for part in token.split(".") if part in text]
