"""The meaning of kubeconfigs: merging, the current context, and named errors."""

from __future__ import annotations

import base64
import json

import pytest

from kmproxy.config.proxies import Proxy
from kmproxy.config.types import File, Secret
from kmproxy.errors import CredentialError
from kmproxy.kube.context_options import ExecPlugin, OidcProvider, User
from kmproxy.kube.contexts import Kubeconfigs

V1 = "client.authentication.k8s.io/v1"


def document(user=None, cluster=None, **other):
    """A kubeconfig of this user and this cluster, with `other` keys."""
    return {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://api:6443"} | (cluster or {})}],
        "users": [{"name": "u", "user": {} if user is None else user}],
    } | other


def select(*documents):
    """The current context of documents, as files /one/config, /two/config, ..."""
    kubeconfigs = Kubeconfigs()
    for folder, each in zip(("one", "two", "three"), documents, strict=False):
        text = each if isinstance(each, str) else json.dumps(each)
        kubeconfigs.add(f"/{folder}/config", text.encode())
    return kubeconfigs.select()


def revealed(headers):
    """Headers with their secret values."""
    return [(name, value.reveal()) for name, value in headers]


def test_several():
    """The first file with an entry defines all of it. Paths are relative to that file."""
    first = {"users": [{"name": "u", "user": {"tokenFile": "a"}}], "current-context": "c"}
    second = document({"token": "t"}, {"certificate-authority": "../ca"}, **{"current-context": ""})
    third = document({"token": "x"}, {"server": "https://no"}, **{"current-context": "no"})
    for empty in ("", "# nothing\n", "null"):
        selected = select(first, second, third)
        assert selected.user == User("u", token_file="/one/a")
        assert (selected.cluster.server, selected.cluster.ca) == (
            "https://api:6443",
            File("/two/../ca"),
        )
        assert select(empty, second | {"current-context": "c"}).user.token == Secret("t")


def test_a_nameless_context():
    """Without a current context, the context with an empty name is the current one."""
    contexts = [{"context": {"cluster": "c", "user": "u"}}]
    selected = select(document({"token": "t"}, contexts=contexts, **{"current-context": None}))
    assert selected.user.token == Secret("t")


@pytest.mark.parametrize("empty", ["", None])
def test_what_is_empty_is_absent(empty):
    """An empty text, list or mapping, and a null, count as absent."""
    keys = ("token", "as", "as-uid", "client-certificate-data", "client-key", "username")
    user = dict.fromkeys(keys, empty) | {"tokenFile": "/t", "as-groups": None, "exec": None}
    names = ("certificate-authority-data", "tls-server-name", "proxy-url")
    selected = select(document(user, dict.fromkeys(names, empty) | {"certificate-authority": "ca"}))
    assert selected.user == User("u", token_file="/t")
    assert (selected.cluster.ca, selected.cluster.server_name) == (File("/one/ca"), None)


def test_data_wins_over_files():
    """Inline data has precedence over a file, for each of the three pairs of keys."""
    data = base64.b64encode(b"pem").decode()
    keys = ("client-certificate", "client-key")
    user = dict.fromkeys(keys, "/file") | {f"{key}-data": data for key in keys}
    ca = {"certificate-authority": "/file", "certificate-authority-data": f"{data[:2]}\n{data[2:]}"}
    selected = select(document(user, ca))
    assert selected.cluster.ca == selected.user.cert == selected.user.key == Secret("pem")


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("HTTPS://API:6443/", "https://API:6443"),
        ("https://api/k8s/clusters/c-1/", "https://api/k8s/clusters/c-1"),
        ("https://api?x=1#y", "https://api"),
        ("http://localhost:8001", "http://localhost:8001"),
        ("localhost:8001", "http://localhost:8001"),
        ("https://api.:6443", "https://api.:6443"),
    ],
)
def test_servers(url, server):
    """Capitals, a path and a query in a server are read as kubectl reads them."""
    assert select(document({}, {"server": url})).cluster.server == server


def test_impersonation():
    """Impersonation becomes headers, with percent encoding in extra keys, also over plain HTTP."""
    user = {
        "token": "t",
        "as": "jané",
        "as-uid": "7",
        "as-groups": ["a", "b"],
        "as-user-extra": {"example.com/Scope": ["x", "y"]},
    }
    expected = [
        ("Impersonate-User", "jané"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Group", "a"),
        ("Impersonate-Group", "b"),
        ("Impersonate-Extra-example.com%2FScope", "x"),
        ("Impersonate-Extra-example.com%2FScope", "y"),
    ]
    selected = select(document(user))
    assert revealed(selected.user.headers) == expected
    plain = select(document(user, {"server": "http://localhost:8001"}))
    assert (revealed(plain.user.headers), plain.user.token) == (expected, None)


def test_plugins():
    """A command with a slash is relative to the file. A given credential disables the plugin."""
    config = {"audience": None, "n": 1}
    extensions = [
        {"name": "other", "extension": 1},
        {"name": f"{V1[:-3]}/exec", "extension": config},
    ]
    plugin = {
        "apiVersion": V1,
        "command": "./bin/plugin",
        "args": ["a", None],
        "env": [{"name": "A", "value": "b"}],
        "provideClusterInfo": True,
        "installHint": "brew",
    }
    found = select(document({"exec": plugin}, {"extensions": extensions})).user
    assert found.plugin == ExecPlugin(
        "/one/bin/plugin", ("a", ""), (("A", Secret("b")),), V1, "brew", True, config
    )
    assert select(document({"exec": plugin | {"command": "p"}})).user.plugin.command == "p"
    for given in ({"token": "t"}, {"username": "u"}, {"tokenFile": "t"}):
        assert select(document({"exec": plugin} | given)).user.plugin is None
    pair = {"client-certificate": "c", "client-key": "k"}
    assert select(document({"exec": plugin} | pair)).user.plugin is None
    config = {"idp-issuer-url": "https://i", "client-id": "c", "id-token": "t"}
    config["idp-certificate-authority"] = "ca"
    oidc = select(document({"auth-provider": {"name": "oidc", "config": config}} | pair)).user
    assert oidc.plugin == OidcProvider(
        "https://i", "c", Secret(""), Secret("t"), None, File("/one/ca")
    )


NONE = {"current-context": None, "contexts": None}
EXEC = {"apiVersion": V1, "command": "x"}
OIDC = {"idp-issuer-url": "https://i", "client-id": "c", "refresh-token": "planted"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("planted", "/one/config: the file is not a kubeconfig: a mapping is expected"),
        ("[planted]", "/one/config: the file is not a kubeconfig: a mapping is expected"),
        ("a: [planted", "/one/config: the file is not YAML in line "),
        ({"kind": "Pod"}, "kind is not Config"),
        ({"apiVersion": "v2"}, "or apiVersion not v1"),
        ("", "/one/config: current-context is missing"),
        (document(**NONE), "/one/config: current-context is missing"),
        (document(**{"current-context": ""}), "current-context is missing; the file has 'c'"),
        (
            document(**{"current-context": "typo"}),
            "the current-context 'typo' is not in the file; the file has 'c'",
        ),
        (
            document(contexts=[{"name": "c", "context": {"cluster": "c", "user": "typo"}}]),
            "context 'c': the file has no user 'typo'; the file has 'u'",
        ),
        (
            document(contexts=[{"name": "c", "context": {"cluster": "typo", "user": "u"}}]),
            "context 'c': the file has no cluster 'typo'; the file has 'c'",
        ),
        (document(contexts=[{"name": "c"}]), "context 'c': the file has no cluster ''"),
        (document(users=[{"name": "u"}, {"name": "u"}]), "two users have the name 'u'"),
        (document(clusters={"name": "c"}), "clusters: a list is expected"),
        (
            document({"token": 1}),
            "users[0].user.token: text is expected: put it in quotes (user 'u')",
        ),
        (document({"as-groups": "planted"}), "users[0].user.as-groups: a list is expected"),
        (document("planted"), "users[0].user: a mapping is expected (user 'u')"),
        (
            document({}, {"insecure-skip-tls-verify": "true"}),
            "clusters[0].cluster.insecure-skip-tls-verify: true or false is expected (cluster 'c')",
        ),
        (document({}, {"server": ""}), "/one/config: cluster 'c': server: the value is missing"),
        (document({}, {"server": "ftp://api"}), "cluster 'c': server: "),
        (
            document({}, {"server": "https://u:planted@api"}),
            "must not contain a user or a password",
        ),
        (
            document({"token": "planted"}, {"server": "api:6443"}),
            "server: write https:// first",
        ),
        (document({}, {"proxy-url": "socks5://planted:1"}), "proxy-url: SOCKS is not supported"),
        (
            document({}, {"insecure-skip-tls-verify": True, "certificate-authority": "/ca"}),
            "insecure-skip-tls-verify makes no sense beside a certificate-authority",
        ),
        (
            document({}, {"certificate-authority-data": "planted!"}),
            "certificate-authority-data: the value is not base64",
        ),
        (document({"client-certificate": "/c"}), "user 'u': client-key: the value is missing"),
        (document({"password": "planted"}), "user 'u': username: the value is missing"),
        (document({"username": "a:b"}), "user 'u': username: the value must not contain a colon"),
        (document({"token": "planted", "username": "u"}), "token and username exclude each other"),
        (document({"tokenFile": "/f", "username": "u"}), "token and username exclude each other"),
        (document({"token": "planted", "as-groups": ["g"]}), "user 'u': as: the value is missing"),
        (
            document({"as": "a\nb"}),
            "user 'u': as: the value holds a character that no header may contain",
        ),
        (
            document({"auth-provider": {"name": "gcp"}}),
            "'gcp' is not supported: use an exec plugin",
        ),
        (
            document({"auth-provider": {"name": "x"}}),
            "'x' is not supported: use oidc, or an exec plugin",
        ),
        (document({"token": "t", "auth-provider": {}}), "auth-provider '' is not supported"),
        (
            document({"auth-provider": {"name": "oidc"}}),
            "config.idp-issuer-url: the value is missing; ",
        ),
        (
            document({"exec": EXEC, "auth-provider": {"name": "oidc", "config": OIDC}}),
            "exec and auth-provider exclude each other",
        ),
        (
            document({"exec": {}}),
            "exec.command: the value is missing; exec.apiVersion: the value is not one of",
        ),
        (
            document({"exec": EXEC | {"apiVersion": f"{V1}alpha1"}}),
            "exec.apiVersion: the value is not one",
        ),
        (document({"exec": EXEC | {"interactiveMode": "Always"}}), "Always is not supported"),
        (
            document({"exec": EXEC | {"interactiveMode": "x"}}),
            "exec.interactiveMode: the value is not one",
        ),
        (
            document({"exec": EXEC | {"env": [{"value": "planted"}]}}),
            "exec.env: a variable has no name",
        ),
    ],
)
def test_what_is_refused(text, said):
    """An error names file, entry, key and remedy, and shows no possible secret."""
    with pytest.raises(CredentialError) as raised:
        select(text)
    assert said in str(raised.value)
    assert str(raised.value).startswith("/one/config: ")
    assert "planted" not in str(raised.value)


def test_what_is_not_known_does_not_matter():
    """Unknown keys and null entries of lists are ignored, as client-go does."""
    text = document({"token": "t", "x": 1}, {"X": 2}, preferences=5, extensions=[{}])
    text["contexts"] = [None, *text["contexts"]]
    text["users"].append({"name": "other", "user": {"extensions": [{"name": "e"}]}})
    assert select(text).user.token == Secret("t")


def test_nobody():
    """A context without a user sends no credential."""
    assert select(document(contexts=[{"name": "c", "context": {"cluster": "c"}}])).user == User("")


def test_a_proxy():
    """The proxy's user and password become a header. A plugin gets the URL as written."""
    cluster = select(document({}, {"proxy-url": "http://u:p@proxy:3128"})).cluster
    assert cluster.proxy == Proxy(
        "http://proxy:3128", (("Proxy-Authorization", Secret("Basic dTpw")),)
    )
    assert cluster.proxy_url == Secret("http://u:p@proxy:3128")
