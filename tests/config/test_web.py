"""The web config: its settings, and every reason to refuse it."""

from __future__ import annotations

import ssl

import pytest

from kmproxy.config.web import CIPHERS, CURVES, Pem, RateLimit, TlsSection, parse_web_config
from kmproxy.errors import ConfigError

HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
PAIR = {"cert_file": "tls.crt", "key_file": "tls.key"}
CA = {"client_ca_file": "ca.crt", "client_auth_type": "RequireAndVerifyClientCert"}


def tls(**keys):
    """A TLS section with these keys beside a certificate and a key."""
    return parse_web_config({"tls_server_config": PAIR | keys}, "/etc/web").tls


def problems(document):
    """The problems of a document."""
    with pytest.raises(ConfigError) as caught:
        parse_web_config(document, "/etc/web")
    return caught.value.problems


@pytest.mark.parametrize(
    "document", [{}, None, {"tls_server_config": {}, "basic_auth_users": None}]
)
def test_nothing(document):
    """An empty file, and empty sections, set nothing."""
    config = parse_web_config(document, "/")
    assert config.tls is None
    assert not config.users
    assert config.locks() == frozenset()
    assert not config.asks


def test_everything():
    """A file with every supported key."""
    config = parse_web_config(
        {
            "tls_server_config": PAIR
            | CA
            | {
                "client_allowed_sans": ["prometheus.example"],
                "min_version": "TLS12",
                "max_version": "TLS13",
                "cipher_suites": [
                    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
                    "TLS_AES_128_GCM_SHA256",
                ],
                "curve_preferences": ["CurveP384"],
                "prefer_server_cipher_suites": False,
            },
            "http_server_config": {
                "http2": False,
                "headers": {"X-Frame-Options": "deny", "Strict-Transport-Security": "max-age=1"},
            },
            "basic_auth_users": {"alice": HASH},
            "rate_limit": {"interval": "1m30s", "burst": 7},
        },
        "/etc/web",
    )
    assert config.tls == TlsSection(
        certificate=Pem("/etc/web/tls.crt"),
        key=Pem("/etc/web/tls.key"),
        client_ca=Pem("/etc/web/ca.crt"),
        client_auth="RequireAndVerifyClientCert",
        client_sans=frozenset({"prometheus.example"}),
        ciphers=("ECDHE-RSA-AES128-GCM-SHA256",),
        curve="secp384r1",
        prefer_server_ciphers=False,
    )
    assert config.headers == (
        ("Strict-Transport-Security", "max-age=1"),
        ("X-Frame-Options", "deny"),
    )
    assert config.users == {"alice": HASH}
    assert config.rate_limit == RateLimit(90.0, 7)
    assert config.warnings == ()
    assert config.locks() >= {"basic_auth_users", "tls_server_config", "client_allowed_sans"}


def test_file_names():
    """A relative name is relative to the file, an absolute one is unchanged."""
    section = tls(cert_file="certs/a.crt", key_file="/keys/a.key")
    assert (section.certificate.path, section.key.path) == ("/etc/web/certs/a.crt", "/keys/a.key")


def test_inline():
    """A certificate, key and CA may be text in the file, and are not shown."""
    section = {"cert": "CERT", "key": "planted-key", "client_ca": "CA", **CA}
    del section["client_ca_file"]
    config = parse_web_config({"tls_server_config": section}, "/")
    assert config.tls.key == Pem(text="planted-key")
    assert "planted-key" not in repr(config)


def test_hashes_are_not_shown():
    """No repr and no problem shows a hash."""
    assert HASH not in repr(parse_web_config({"basic_auth_users": {"a": HASH}}, "/"))
    assert "planted" not in "".join(problems({"basic_auth_users": {"a": "planted"}}))


def test_a_value_that_became_part_of_its_key():
    """YAML reads {key:planted} as a key without a value. The problem does not show it."""
    said = "".join(problems({"tls_server_config": PAIR | {"key:planted": None}}))
    assert "tls_server_config: unknown key 'key'" in said
    assert "planted" not in said


REFUSED = [
    ({"tls_server_confg": {}}, "unknown key 'tls_server_confg'"),
    ({"tls_server_config": PAIR | {"cert_fil": "x"}}, "tls_server_config: unknown key 'cert_fil'"),
    ({"http_server_config": {"http3": True}}, "http_server_config: unknown key 'http3'"),
    ({"rate_limit": {"interval": "1s", "burst": 1, "x": 1}}, "rate_limit: unknown key 'x'"),
    (["a"], "a mapping is expected"),
    ({"tls_server_config": "x"}, "tls_server_config: a mapping is expected"),
    ({"tls_server_config": {"key_file": "k"}}, "cert_file or cert is missing"),
    ({"tls_server_config": {"cert_file": "c"}}, "key_file or key is missing"),
    ({"tls_server_config": {"min_version": "TLS13"}}, "cert_file or cert is missing"),
    ({"tls_server_config": PAIR | {"cert": "x"}}, "cert: makes no sense beside cert_file"),
    ({"tls_server_config": PAIR | {"key_file": 7}}, "key_file: text is expected"),
    ({"tls_server_config": PAIR | {"min_version": "TLS10"}}, "the minimum is TLS12"),
    ({"tls_server_config": PAIR | {"max_version": "TLS11"}}, "the minimum is TLS12"),
    ({"tls_server_config": PAIR | {"min_version": "TLS1.2"}}, "'TLS1.2' is not one of"),
    (
        {"tls_server_config": PAIR | {"min_version": "TLS13", "max_version": "TLS12"}},
        "leave no version of TLS",
    ),
    (
        {
            "tls_server_config": PAIR
            | {"max_version": "TLS12", "cipher_suites": ["TLS_AES_128_GCM_SHA256"]}
        },
        "leave no version of TLS",
    ),
    (
        {"tls_server_config": PAIR | {"cipher_suites": ["TLS_RSA_WITH_RC4_128_SHA"]}},
        "'TLS_RSA_WITH_RC4_128_SHA' is not a cipher suite",
    ),
    ({"tls_server_config": PAIR | {"cipher_suites": "x"}}, "a list of text is expected"),
    ({"tls_server_config": PAIR | {"curve_preferences": ["P-256"]}}, "'P-256' is not one of"),
    (
        {"tls_server_config": PAIR | {"curve_preferences": ["X25519", "CurveP256"]}},
        "only one curve is supported",
    ),
    (
        {"tls_server_config": PAIR | {"prefer_server_cipher_suites": "yes"}},
        "true or false is expected",
    ),
    ({"tls_server_config": PAIR | {"client_auth_type": "Any"}}, "'Any' is not one of"),
    (
        {"tls_server_config": PAIR | CA | {"client_auth_type": "NoClientCert"}},
        "client_ca_file has no effect without",
    ),
    (
        {"tls_server_config": PAIR | {"client_auth_type": "RequireAndVerifyClientCert"}},
        "needs client_ca_file",
    ),
    (
        {"tls_server_config": PAIR | {"client_allowed_sans": ["a"]}},
        "needs client_auth_type: RequireAndVerifyClientCert",
    ),
    (
        {
            "tls_server_config": PAIR
            | CA
            | {"client_auth_type": "VerifyClientCertIfGiven", "client_allowed_sans": []}
        },
        "needs client_auth_type: RequireAndVerifyClientCert",
    ),
    ({"http_server_config": {"headers": {"Server": "x"}}}, "unknown key 'Server'"),
    ({"http_server_config": {"headers": {"X-Frame-Options": "DENY"}}}, "is not deny or sameorigin"),
    (
        {"http_server_config": {"headers": {"X-XSS-Protection": "1\r\nSet-Cookie: a=b"}}},
        "not one line of printable text",
    ),
    ({"http_server_config": {"http2": "no"}}, "true or false is expected"),
    ({"basic_auth_users": {"a": "$2y$99" + HASH[6:]}}, "is not a bcrypt hash"),
    ({"basic_auth_users": {"a": HASH[:-1]}}, "is not a bcrypt hash"),
    ({"basic_auth_users": {"a": None}}, "is not a bcrypt hash"),
    ({"basic_auth_users": {"a:b": HASH}}, "text without a colon"),
    ({"basic_auth_users": {1: HASH}}, "text without a colon"),
    ({"rate_limit": {"interval": "1s"}}, "with less, kmproxy serves no request"),
    ({"rate_limit": {"interval": "soon", "burst": 1}}, "'soon' is not a duration"),
    ({"rate_limit": {"interval": "1s", "burst": True}}, "a whole number is expected"),
]


@pytest.mark.parametrize(("document", "says"), REFUSED)
def test_refused(document, says):
    """Each problem is one line with the place and the reason."""
    (line,) = [line for line in problems(document) if says in line]
    assert "\n" not in line


@pytest.mark.parametrize("kind", ["RequestClientCert", "RequireAnyClientCert", "RequireClientCert"])
def test_what_verifies_nothing_is_not_served_as_something_else(kind):
    """A type that accepts any certificate is refused, with an alternative."""
    (line,) = problems({"tls_server_config": PAIR | {"client_auth_type": kind}})
    assert kind in line
    assert "RequireAndVerifyClientCert verifies certificates" in line


def test_all_at_once():
    """All problems of all sections."""
    document = {"x": 1, "tls_server_config": {"y": 1}, "basic_auth_users": {"a": "b", "c": "d"}}
    assert len(problems(document)) == 6


def test_the_suites_of_tls_13_alone():
    """They cannot be selected, so a list of them only sets TLS 1.3 as minimum."""
    section = tls(cipher_suites=["TLS_AES_128_GCM_SHA256"])
    assert (section.minimum, section.ciphers) == ("TLS13", None)


def test_http2():
    """It is accepted with a warning that it has no effect, because the format's default is true."""
    config = parse_web_config({"http_server_config": {"http2": True}}, "/")
    (line,) = config.warnings
    assert "http2 has no effect" in line
    assert parse_web_config({"http_server_config": {}}, "/").warnings == ()


@pytest.mark.parametrize("interval", [0, "0s"])
def test_no_rate_limit(interval):
    """An interval of 0 turns it off."""
    assert parse_web_config({"rate_limit": {"interval": interval}}, "/").rate_limit is None


def test_openssl_knows_every_name():
    """OpenSSL accepts every accepted name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for cipher in filter(None, CIPHERS.values()):
        context.set_ciphers(cipher)
        assert cipher in [each["name"] for each in context.get_ciphers()]
    for curve in CURVES.values():
        context.set_ecdh_curve(curve)


@pytest.mark.parametrize(
    ("document", "asks"),
    [
        ({"tls_server_config": PAIR}, False),
        ({"tls_server_config": PAIR | CA}, True),
        ({"tls_server_config": PAIR | CA | {"client_auth_type": "VerifyClientCertIfGiven"}}, False),
        ({"basic_auth_users": {"a": HASH}}, True),
    ],
)
def test_who_is_asked(document, asks):
    """TLS alone, or with an optional certificate, admits everybody."""
    assert parse_web_config(document, "/").asks is asks
