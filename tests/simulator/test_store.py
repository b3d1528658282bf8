"""What the simulated API server keeps: versions, a history, tokens, rules, patches."""

import asyncio

import pytest

from kmproxy.simulator.authority import AUDIENCE, MASTERS, SERVICE_ACCOUNT, Authority
from kmproxy.simulator.objects import node_object
from kmproxy.simulator.statuses import StatusError, already_exists, conflict, not_found
from kmproxy.simulator.store import Namespaces, Store, patched

STRATEGIC = "application/strategic-merge-patch+json"
MERGE = "application/merge-patch+json"
JSON = "application/json-patch+json"


@pytest.fixture
def store():
    """Make an empty store."""
    return Store()


@pytest.fixture
def namespaces(store):
    """Return the namespaces of the store."""
    return Namespaces(store)


def test_a_status_has_reason_details_and_retry():
    """The reason follows the code if none is given; what is not there is not named."""
    assert StatusError(404, "gone").status == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "gone",
        "reason": "NotFound",
        "code": 404,
    }
    assert StatusError(418, "tea").status["reason"] == "Unknown"
    error = StatusError(429, "slow", reason="Custom", details={"kind": "x"}, retry_after=3)
    assert error.headers == {"Retry-After": "3"}
    assert error.status["reason"] == "Custom"
    assert error.status["details"] == {"kind": "x", "retryAfterSeconds": 3}


@pytest.mark.parametrize(
    ("make", "code", "reason", "said"),
    [
        (not_found, 404, "NotFound", 'nodes "n" not found'),
        (already_exists, 409, "AlreadyExists", 'nodes "n" already exists'),
        (conflict, 409, "Conflict", 'cannot be fulfilled on nodes "n": the object has been mod'),
    ],
)
def test_errors_of_an_object_name_it(make, code, reason, said):
    """The details have its name and, as the API server does, its resource as the kind."""
    error = make("nodes", "n")
    assert (error.code, error.status["reason"]) == (code, reason)
    assert said in str(error)
    assert error.status["details"] == {"name": "n", "kind": "nodes"}


def test_history_is_bounded():
    """A store forgets its oldest changes, and knows from where on it can resume."""
    store = Store(history=2)
    for name in "abcd":
        store.put("namespaces", {"metadata": {"name": name}})
    assert store.floor == 1002
    assert [version for version, _, _ in store.since("namespaces", 0)] == [1003, 1004]
    assert repr(store) == "<Store at 1004, history from 1002>"


def test_a_change_that_changes_nothing_is_none(store):
    """The version grows with every real change, and is that of the object."""
    first = store.put("namespaces", {"metadata": {"name": "a"}})
    assert store.put("namespaces", first) is first
    assert store.version == 1001
    second = store.put("namespaces", {"metadata": {"name": "a", "labels": {}}})
    assert second["metadata"]["resourceVersion"] == "1002"
    assert second["metadata"]["uid"] == first["metadata"]["uid"]
    last = store.remove("namespaces", "a")
    assert last["metadata"]["resourceVersion"] == "1003"
    kinds = [kind for _, kind, _ in store.since("namespaces", 1000)]
    assert kinds == ["ADDED", "MODIFIED", "DELETED"]
    assert list(store.since("nodes", 0)) == []
    with pytest.raises(KeyError):
        store.remove("namespaces", "a")


async def test_who_waits_is_woken_by_a_change(store):
    """`changed` taken before reading is set by the next change, and replaced."""
    changed = store.changed
    store.put("nodes", node_object("n", 1))
    await asyncio.wait_for(changed.wait(), 30)
    assert not store.changed.is_set()


def test_versions_that_were_reached(store):
    """No version counts as 0; one to come is refused, and so is what is no number."""
    assert (store.reached(""), store.reached("0"), store.reached("1000")) == (0, 0, 1000)
    with pytest.raises(
        StatusError, match="Too large resource version: 1001, current: 1000"
    ) as error:
        store.reached("1001")
    assert (error.value.code, error.value.headers) == (504, {"Retry-After": "1"})
    with pytest.raises(StatusError, match='Invalid value: "-1"') as error:
        store.reached("-1")
    assert error.value.code == 400


def test_an_expired_history_leaves_the_objects(store):
    """Every version given out is before the floor."""
    store.put("namespaces", {"metadata": {"name": "a"}})
    old = store.version
    store.expire()
    assert store.floor == store.version > old
    assert list(store.since("namespaces", 0)) == []
    assert list(store.objects["namespaces"]) == ["a"]


def test_restored_objects_version_and_history(store):
    """What came after the backup has never been; the backup can be restored again."""
    store.put("namespaces", {"metadata": {"name": "a"}})
    store.back_up()
    for _ in range(2):
        store.put("namespaces", {"metadata": {"name": "b"}})
        store.remove("namespaces", "a")
        store.restore()
        assert (store.version, list(store.objects["namespaces"])) == (1001, ["a"])
        assert [version for version, _, _ in store.since("namespaces", 0)] == [1001]


def test_what_is_restored_can_be_watched_from(store):
    """A history that was lost after the backup is no bar to watching on from it."""
    store.put("namespaces", {"metadata": {"name": "a"}})
    store.back_up()
    store.put("namespaces", {"metadata": {"name": "b"}})
    store.expire()
    store.restore()
    assert store.floor <= store.version


def test_namespaces_are_completed(namespaces):
    """A namespace gets its own name as a label, a phase, and no empty annotations."""
    made = namespaces.apply("a", {"team": "x"}, {})
    assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "a", "team": "x"}
    assert "annotations" not in made["metadata"]
    assert (made["kind"], made["status"]) == ("Namespace", {"phase": "Active"})
    assert namespaces.get("a") is made
    assert (len(namespaces), list(namespaces), repr(namespaces)) == (1, ["a"], "<Namespaces a>")


def test_what_is_not_given_is_left(namespaces):
    """Labels and annotations are replaced one without the other."""
    namespaces.apply("a", {"team": "x"}, {"note": "n"})
    assert namespaces.apply("a")["metadata"]["annotations"] == {"note": "n"}
    changed = namespaces.apply("a", {"tier": "1"})["metadata"]
    assert changed["labels"] == {"kubernetes.io/metadata.name": "a", "tier": "1"}
    assert changed["annotations"] == {"note": "n"}
    padded = namespaces.pad("a", 10)["metadata"]["annotations"]
    assert padded == {"note": "n", "example.com/padding": "x" * 10}
    namespaces.delete("a")
    assert namespaces.get("a") is None


def test_rules_name_users_and_groups():
    """A rule can be of a user or a group, and denied of one without the others."""
    authority = Authority()
    authority.allow("get", "/metrics", user="scrapers")
    authority.allow("get", "/metrics", user="ann")
    assert authority.allows("bob", "get", "/metrics", ("scrapers",))
    authority.deny("get", "/metrics", user="scrapers")
    assert not authority.allows("bob", "get", "/metrics", ("scrapers",))
    assert authority.allows("ann", "get", "/metrics")
    assert authority.allows("bob", "get", "/metrics", ("system:masters",))


def test_rights_of_the_daemon():
    """A new authority lets the daemon do what its manifest asks for, and a master everything."""
    authority = Authority()
    assert authority.allows(SERVICE_ACCOUNT, "watch", "namespaces")
    assert not authority.allows(SERVICE_ACCOUNT, "delete", "namespaces")
    assert authority.allows(MASTERS[0], "delete", "namespaces")
    authority.deny("watch", "namespaces")
    assert not authority.allows(SERVICE_ACCOUNT, "watch", "namespaces")
    authority.allow("watch", "namespaces")
    authority.check(SERVICE_ACCOUNT, "watch", "namespaces")
    assert repr(authority) == "<Authority 0 tokens, 22 rules>"


@pytest.mark.parametrize(
    ("resource", "more", "said"),
    [
        ("namespaces", {}, "namespaces is forbidden: .* at the cluster scope"),
        ("namespaces", {"name": "a"}, 'namespaces "a" is forbidden: .* in the namespace "a"'),
        ("nodes/proxy", {"name": "n"}, 'nodes "n" is forbidden: .* resource "nodes/proxy" in API'),
        ("tokenreviews", {"group": "g.io"}, 'tokenreviews.g.io is forbidden: .* API group "g.io"'),
    ],
)
def test_a_refusal_says_what_to_whom(resource, more, said):
    """403 in the API server's words, with the details that there are."""
    with pytest.raises(StatusError, match=said) as error:
        Authority().check("ann", "get", resource, **more)
    assert (error.value.code, error.value.status["reason"]) == (403, "Forbidden")
    assert 'User "ann" cannot get resource' in str(error.value)
    assert error.value.status["details"] == {"kind": resource.partition("/")[0], **more}


def test_tokens_are_good_until_revoked():
    """A token is of its user, for its audiences."""
    authority = Authority()
    token = authority.issue("ann", groups=("team-a",), audiences=("kmproxy", AUDIENCE))
    assert token.count(".") == 2
    assert authority.authenticate(token) == "ann"
    review = authority.review(token, ["other", "kmproxy"])
    assert (review["authenticated"], review["audiences"]) == (True, ["kmproxy"])
    assert review["user"]["groups"] == ["system:authenticated", "team-a"]
    assert "authenticated" not in authority.review(token, ["other"])
    authority.revoke(token)
    authority.revoke(token)
    assert authority.authenticate(token) is None
    assert "error" in authority.review(token, [])
    assert authority.authenticate(authority.issue("bob", audiences=("kmproxy",))) is None


@pytest.mark.parametrize("kind", [MERGE, STRATEGIC])
@pytest.mark.parametrize(
    ("patch", "after"),
    [
        ({}, {"m": {"a": 1, "b": {"c": 2}}}),
        ({"m": {"a": None, "d": 3}}, {"m": {"b": {"c": 2}, "d": 3}}),
        ({"m": {"b": {"c": None}}}, {"m": {"a": 1, "b": {}}}),
        ({"m": {"a": {"x": 1, "y": None}}}, {"m": {"a": {"x": 1}, "b": {"c": 2}}}),
        ({"m": [1]}, {"m": [1]}),
    ],
)
def test_merged(kind, patch, after):
    """What is null goes, what is an object is merged, what is anything else replaces."""
    before = {"m": {"a": 1, "b": {"c": 2}}}
    assert patched(before, patch, kind) == after
    assert before == {"m": {"a": 1, "b": {"c": 2}}}


def test_patched_step_by_step():
    """A JSON patch adds, replaces, removes and tests at paths with escapes in them."""
    before = {"m": {"a/b": 1, "c~d": 2}}
    steps = [
        {"op": "test", "path": "/m/a~1b", "value": 1},
        {"op": "remove", "path": "/m/a~1b"},
        {"op": "replace", "path": "/m/c~0d", "value": 3},
        {"op": "add", "path": "/n/e", "value": 4},
    ]
    assert patched(before, steps, JSON) == {"m": {"c~d": 3}, "n": {"e": 4}}
    assert before == {"m": {"a/b": 1, "c~d": 2}}


@pytest.mark.parametrize(
    ("patch", "kind", "code"),
    [
        ([{"op": "test", "path": "/a", "value": 2}], JSON, 422),
        ({}, "application/apply-patch+json", 415),
    ],
)
def test_patches_that_are_refused(patch, kind, code):
    """A test that fails, and a kind of patch that is not known."""
    with pytest.raises(StatusError) as error:
        patched({"a": 1}, patch, kind)
    assert error.value.code == code
