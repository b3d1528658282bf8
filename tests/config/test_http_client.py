"""The `kubelet` section: its keys, contradictions between them, and hidden secrets."""

from __future__ import annotations

import pytest

from kmproxy.config.http_client import KEYS, read_access
from kmproxy.config.http_options import (
    Access,
    Authorization,
    BasicAuth,
    OAuth2,
    ProxyOptions,
    TlsOptions,
)
from kmproxy.config.proxies import Proxies, Proxy
from kmproxy.config.types import File, Secret

OAUTH2 = {"client_id": "c", "client_secret": "s", "token_url": "https://login.example.com/token"}


def read(**document):
    """The section of a document without problems."""
    access, problems = read_access(document, "kubelet")
    assert problems == []
    return access


def problems(**document):
    """The problems of a document."""
    return read_access(document, "kubelet")[1]


def test_an_empty_section():
    """An empty section changes nothing."""
    assert read() == Access()
    assert not Access().identifies


@pytest.mark.parametrize(
    ("document", "credential"),
    [
        ({"bearer_token": "t"}, Authorization(Secret("t"), "bearer_token")),
        ({"bearer_token_file": "/t"}, Authorization(File("/t"), "bearer_token_file")),
        ({"authorization": {"credentials": "t"}}, Authorization(Secret("t"), "authorization")),
        (
            {"authorization": {"type": " Token ", "credentials_file": "/t"}},
            Authorization(File("/t"), "authorization", "Token"),
        ),
        (
            {"basic_auth": {"username": "u", "password": "p"}},
            BasicAuth(Secret("u"), Secret("p")),
        ),
        (
            {"basic_auth": {"username_file": "/u", "password_file": "/p"}},
            BasicAuth(File("/u"), File("/p")),
        ),
        ({"basic_auth": {"username": "u", "password": ""}}, BasicAuth(Secret("u"), Secret(""))),
        ({"oauth2": OAUTH2}, OAuth2("c", Secret("s"), "https://login.example.com/token")),
        (
            {
                "oauth2": {
                    "client_id": "c",
                    "client_secret_file": "/s",
                    "token_url": "http://127.0.0.1:1/t",
                    "scopes": ["a", "b"],
                    "endpoint_params": {"audience": "kubelet", "x": ["1", "2"]},
                    "tls_config": {"ca_file": "/ca"},
                }
            },
            OAuth2(
                "c",
                File("/s"),
                "http://127.0.0.1:1/t",
                ("a", "b"),
                (("audience", Secret("kubelet")), ("x", Secret("1")), ("x", Secret("2"))),
                TlsOptions(ca=File("/ca")),
            ),
        ),
    ],
)
def test_a_credential(document, credential):
    """Each kind, as text and as a file, replaces the pod's own credential."""
    assert read(**document).credential == credential
    assert read(**document).identifies


@pytest.mark.parametrize(
    ("document", "tls"),
    [
        ({"ca_file": "/ca"}, TlsOptions(ca=File("/ca"))),
        ({"ca": "pem"}, TlsOptions(ca=Secret("pem"))),
        ({"ca_pem": "pem"}, TlsOptions(ca=Secret("pem"))),
        (
            {"cert_file": "/c", "key_file": "/k"},
            TlsOptions(cert=File("/c"), key=File("/k")),
        ),
        ({"cert": "c", "key_pem": "k"}, TlsOptions(cert=Secret("c"), key=Secret("k"))),
        ({"cert_pem": "c", "key": "k"}, TlsOptions(cert=Secret("c"), key=Secret("k"))),
        ({"server_name": "n"}, TlsOptions(server_name="n")),
        ({"min_version": "TLS13"}, TlsOptions(min_version="TLS13")),
        ({"insecure_skip_verify": True}, TlsOptions(insecure=True)),
    ],
)
def test_tls(document, tls):
    """The spellings of Prometheus and of Alloy. A client certificate is an identity."""
    access = read(tls_config=document)
    assert access.tls == tls
    assert access.identifies is (tls.cert is not None)


def test_a_proxy():
    """The proxy's URL, its exceptions, and its headers."""
    access = read(
        proxy_url="http://proxy:3128",
        no_proxy="10.0.0.0/8",
        proxy_connect_header={"X-A": ["1", "2"], "Proxy-Authorization": "t"},
    )
    headers = (
        ("X-A", Secret("1")),
        ("X-A", Secret("2")),
        ("Proxy-Authorization", Secret("t")),
    )
    assert access.proxy == ProxyOptions(Proxies(Proxy("http://proxy:3128", headers), "10.0.0.0/8"))
    assert read(proxy_url="proxy").proxy.proxies.excluded is None
    assert read(proxy_url="proxy", no_proxy="").proxy.proxies.excluded == ""
    assert read(proxy_from_environment=True).proxy == ProxyOptions(from_environment=True)


def test_headers_and_redirects():
    """A header has one value or several. Redirects are off by default."""
    access = read(http_headers={"X-Scope-OrgID": "a", "X-B": ["1", "2"]}, follow_redirects=True)
    assert access.headers == (
        ("X-Scope-OrgID", Secret("a")),
        ("X-B", Secret("1")),
        ("X-B", Secret("2")),
    )
    assert access.follow_redirects
    assert not read().follow_redirects


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"bearer_token_fiel": "t"}, "unknown key kubelet.bearer_token_fiel, did you mean kubelet.bearer_token_file?"),
        ({"tls_config": {"cafile": "t"}}, "unknown key kubelet.tls_config.cafile, did you mean kubelet.tls_config.ca_file?"),
        ({"oauth2": OAUTH2 | {"scope": "a"}}, "unknown key kubelet.oauth2.scope, did you mean kubelet.oauth2.scopes?"),
        ({"oauth2": OAUTH2 | {"tls_config": {"x": 1}}}, "unknown key kubelet.oauth2.tls_config.x"),
        ({"tls_config": None}, "kubelet.tls_config: a mapping with these keys is expected: ca, "),
        ({"basic_auth": "u:p"}, "kubelet.basic_auth: a mapping with these keys is expected: username, "),
        ({"bearer_token": ""}, "kubelet.bearer_token: the value is empty"),
        ({"bearer_token": None}, "kubelet.bearer_token: the value is missing"),
        ({"bearer_token_file": ["a"]}, "kubelet.bearer_token_file: text is expected; put the value in quotes"),
        ({"basic_auth": {"username": "u", "password": 83}}, "kubelet.basic_auth.password: text is expected; put the value in quotes"),
        ({"basic_auth": {"username": "u"}}, "kubelet.basic_auth: password or password_file is missing"),
        ({"basic_auth": {"password_file": "/p"}}, "kubelet.basic_auth: username or username_file is missing"),
        ({"basic_auth": {"username": "u", "password": "p", "password_file": "/p"}}, "kubelet.basic_auth: password and password_file exclude each other"),
        ({"authorization": {"type": "Bearer"}}, "kubelet.authorization: credentials or credentials_file is missing"),
        ({"authorization": {"type": "basic", "credentials": "t"}}, "kubelet.authorization.type: for Basic, use basic_auth"),
        ({"authorization": {"type": "a b", "credentials": "t"}}, "kubelet.authorization.type: the value is not the name of a scheme"),
        ({"authorization": {"credentials": "t", "credentials_file": "/t"}}, "kubelet.authorization: credentials and credentials_file exclude each other"),
        ({"bearer_token": "t", "bearer_token_file": "/t"}, "kubelet: bearer_token and bearer_token_file exclude each other"),
        (
            {"bearer_token": "t", "basic_auth": {"username": "u", "password": "p"}, "authorization": {"credentials": "c"}, "oauth2": OAUTH2},
            "kubelet: authorization and basic_auth and bearer_token and oauth2 exclude each other",
        ),
        ({"bearer_token_file": "/a\0b"}, "kubelet.bearer_token_file: the value holds a character that is not allowed"),
        ({"basic_auth": {"username": "u", "password": "\ud800"}}, "kubelet.basic_auth.password: the value holds a character that is not allowed"),
        ({"tls_config": {"ca": "a", "ca_file": "/a"}}, "kubelet.tls_config: ca and ca_file exclude each other"),
        ({"tls_config": {"cert_file": "/c"}}, "kubelet.tls_config: key or key_pem or key_file is missing"),
        ({"tls_config": {"key": "k"}}, "kubelet.tls_config: cert or cert_pem or cert_file is missing"),
        ({"tls_config": {"cert": "c", "cert_file": "/c", "key": "k"}}, "kubelet.tls_config: cert and cert_file exclude each other"),
        ({"tls_config": {"min_version": "TLS11"}}, "kubelet.tls_config.min_version: TLS11 is not secure; the minimum is TLS12"),
        ({"tls_config": {"min_version": "1.3"}}, "kubelet.tls_config.min_version: '1.3' is not one of TLS12, TLS13"),
        ({"tls_config": {"min_version": 1.3}}, "kubelet.tls_config.min_version: text is expected; put the value in quotes"),
        ({"tls_config": {"server_name": "a/b"}}, "kubelet.tls_config.server_name: 'a/b' is neither"),
        ({"tls_config": {"insecure_skip_verify": True, "ca_file": "/a"}}, "kubelet.tls_config.insecure_skip_verify: the key makes no sense beside a CA"),
        ({"tls_config": {"insecure_skip_verify": "maybe"}}, "kubelet.tls_config.insecure_skip_verify: 'maybe' is neither true nor false"),
        ({"tls_config": {"insecure_skip_verify": None}}, "kubelet.tls_config.insecure_skip_verify: the value is missing"),
        ({"oauth2": {"client_secret": "s", "token_url": "https://a"}}, "kubelet.oauth2: client_id is missing"),
        ({"oauth2": {"client_id": "c", "client_secret": "s"}}, "kubelet.oauth2: token_url is missing"),
        ({"oauth2": {"client_id": "c", "token_url": "https://a"}}, "kubelet.oauth2: client_secret or client_secret_file is missing"),
        ({"oauth2": OAUTH2 | {"token_url": "http://login.example.com"}}, "kubelet.oauth2.token_url: write an https URL"),
        ({"oauth2": OAUTH2 | {"token_url": "ftp://127.0.0.1"}}, "kubelet.oauth2.token_url: write an https URL"),
        ({"oauth2": OAUTH2 | {"token_url": "https://u:p@a"}}, "kubelet.oauth2.token_url: the value is not a URL"),
        ({"oauth2": OAUTH2 | {"token_url": "https://a:x"}}, "kubelet.oauth2.token_url: the value is not a URL"),
        ({"oauth2": OAUTH2 | {"token_url": "http://localhost/t", "proxy_url": "proxy"}}, "kubelet.oauth2.token_url: write an https URL: through a proxy, kmproxy sends the client secret only over https"),
        ({"oauth2": OAUTH2 | {"token_url": "HTTP://localhost/t", "proxy_url": "proxy"}}, "kubelet.oauth2.token_url: write an https URL: through a proxy, kmproxy sends the client secret only over https"),
        ({"oauth2": OAUTH2 | {"scopes": [""]}}, "kubelet.oauth2.scopes: the value is empty"),
        ({"oauth2": OAUTH2 | {"endpoint_params": {"a": 1}}}, "kubelet.oauth2.endpoint_params.a: text is expected"),
        ({"proxy_url": "socks5://proxy"}, "kubelet.proxy_url: SOCKS is not supported: write an http:// or https:// URL"),
        ({"proxy_url": "proxy", "proxy_from_environment": True}, "kubelet.proxy_url: the key makes no sense beside proxy_from_environment"),
        ({"no_proxy": "x", "proxy_from_environment": True}, "kubelet.no_proxy: the key makes no sense beside proxy_from_environment"),
        ({"no_proxy": "x"}, "kubelet.no_proxy: the key needs proxy_url"),
        ({"proxy_connect_header": {"X-A": "b"}}, "kubelet.proxy_connect_header: the key needs proxy_url"),
        ({"proxy_url": "http://u:p@proxy", "proxy_connect_header": {"proxy-authorization": "b"}}, "kubelet.proxy_connect_header: proxy_url has a user and password already"),
        ({"proxy_url": "proxy", "proxy_connect_header": {"Host": "b"}}, "kubelet.proxy_connect_header.Host: kmproxy sets this header itself"),
        ({"http_headers": "X-A: b"}, "kubelet.http_headers: a mapping from names to values is expected"),
        ({"http_headers": {"X A": "b"}}, "kubelet.http_headers.X A: the key is not a header name"),
        ({"http_headers": {"X-A": "b\r\nHost: c"}}, "kubelet.http_headers.X-A: the value of a header must be printable ASCII"),
        ({"http_headers": {"X-A": None}}, "kubelet.http_headers.X-A: the value is missing"),
        ({"follow_redirects": "maybe"}, "kubelet.follow_redirects: 'maybe' is neither true nor false"),
    ],
)  # fmt: skip
def test_a_problem(document, problem):
    """Each problem is one line that begins with the path of its key."""
    (found,) = problems(**document)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    "name", ["accept", "Accept-Encoding", "AUTHORIZATION", "Host", "Connection", "Transfer-Encoding",
             "Proxy-Authorization", "Upgrade", "TE", "Trailer", "Keep-Alive", "Content-Length"],
)  # fmt: skip
def test_headers_that_are_not_the_users(name):
    """Headers that set host, identity, coding or kind cannot be added."""
    (found,) = problems(http_headers={name: "x"})
    assert found == f"kubelet.http_headers.{name}: kmproxy sets this header itself"


@pytest.mark.parametrize("document", [None, "x", [], 1])
def test_no_section_at_all(document):
    """A section that is not a mapping is refused."""
    (found,) = read_access(document, "kubelet")[1]
    assert found.startswith("kubelet: a mapping with these keys is expected: authorization, ")


def test_all_problems_at_once():
    """All problems of all blocks, one line each."""
    found = problems(
        lable="x",
        basic_auth={"username": "u", "passwort": "x"},
        oauth2={"client_id": "c", "client_secret": "", "token_url": "http://login"},
        bearer_token=7,
        tls_config={"cert_file": "/c", "min_version": "SSL3"},
        proxy_url="ftp://a",
        http_headers={"Host": "x", "X-A": 1},
    )
    assert len(found) == 12
    assert not any("\n" in line for line in found)


SECRETS = {
    "authorization": {"credentials": "planted-secret"},
    "basic_auth": {"username": "planted-secret", "password": "planted-secret"},
    "bearer_token": "planted-secret",
    "oauth2": OAUTH2
    | {
        "client_secret": "planted-secret",
        "token_url": "https://login.example.com/planted-secret?key=planted-secret",
        "endpoint_params": {"a": "planted-secret"},
    },
    "tls_config": {"cert": "planted-secret", "key": "planted-secret"},
    "proxy_url": "http://planted-secret:planted-secret@proxy",
    "proxy_connect_header": {"X-A": "planted-secret"},
    "http_headers": {"X-A": "planted-secret"},
}


@pytest.mark.parametrize("key", SECRETS)
def test_nothing_secret_is_shown(key):
    """No repr, str or format of the section, and no problem, shows a secret."""
    document = {key: SECRETS[key]}
    if key == "proxy_connect_header":
        document["proxy_url"] = "proxy"
    access = read(**document)
    for text in (repr(access), str(access), f"{access}", str(problems(**document, wrong=1))):
        assert "planted" not in text


@pytest.mark.parametrize(
    "key", ["bearer_token", "bearer_token_file", "proxy_url", "follow_redirects"]
)
@pytest.mark.parametrize("value", [["planted-secret"], {"planted-secret": 1}, b"planted-secret"])
def test_a_value_of_the_wrong_kind_is_not_shown(key, value):
    """A value of a wrong type is not shown, because it may be a secret."""
    assert "planted" not in "".join(problems(**{key: value}))


@pytest.mark.parametrize("between", [":", "=", ": =", " : "])
@pytest.mark.parametrize(
    ("block", "key"),
    [
        ("basic_auth", "password"),
        ("authorization", "credentials"),
        ("http_headers", "X-A"),
        ("proxy_connect_header", "X-A"),
    ],
)
def test_a_value_that_became_part_of_its_key(block, key, between):
    """YAML reads {password:secret} as one key. Only the part before the colon is shown."""
    found = "".join(problems(**{block: {f"{key}{between}planted": None}}))
    assert key in found
    assert "planted" not in found


def test_every_key_can_be_read():
    """Every known key is read."""
    assert set(KEYS) == {"", "authorization", "basic_auth", "oauth2", "tls_config"}
    assert set(SECRETS) <= set(KEYS[""])
