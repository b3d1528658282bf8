"""The web config file: reloads, broken versions, certificates and their expiry metric."""

from __future__ import annotations

import logging
import ssl

import pytest
from cryptography.hazmat.primitives import serialization as pem

from kmproxy.config.sections import ServerConfig
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.errors import ConfigError
from kmproxy.web.config_file import LOOK_EVERY, find_web_config, read_web_config
from tests.conftest import credential_failures
from tests.support.tls import HASHES, Authority, write_config

PAIR = {"cert_file": "tls.crt", "key_file": "tls.key"}
MUTUAL = PAIR | {"client_ca_file": "ca.crt", "client_auth_type": "RequireAndVerifyClientCert"}


class Clock:
    """Seconds that pass only when a test moves them."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Files:
    """A web config, the files that it names, and the object that follows them."""

    def __init__(self, directory):
        self.directory = directory
        self.clock = Clock()
        self.metrics = OwnMetrics()
        self.authority = Authority()
        self.authority.write_pair(directory)
        (directory / "ca.crt").write_bytes(self.authority.pem)
        self.path = directory / "web.yaml"
        self.web = None

    def load(self, document=None, **settings):
        """Reads the files for the first time."""
        if document is not None:
            write_config(self.path, document)
        settings = settings or {"web_config_file": str(self.path)}
        self.web = find_web_config(
            ServerConfig(**settings), clock=self.clock, metrics=self.metrics.web_file
        )
        return self.web.current() if self.web else None

    def later(self):
        """The current version at the time of the next look."""
        self.clock.now += LOOK_EVERY
        return self.web.current()

    def failures(self):
        """The number of looks that found an unusable file."""
        return credential_failures(self.metrics, "web_config")

    def expiry(self, which):
        """The expiry of a certificate in the metric."""
        return self.metrics.web_file.certificate_expiry.labels(which)._value.get()


@pytest.fixture
def files(tmp_path):
    """A directory with a certificate, its key and a CA."""
    return Files(tmp_path)


def test_nothing_configured(files):
    """Without a web config there is no file to follow."""
    assert files.load(telemetry_listen=None) is None


def test_unchanged_files_are_one_version(files):
    """Unchanged contents stay one version, also when the files are written again."""
    first = files.load({"tls_server_config": PAIR})
    assert files.later() is first
    write_config(files.path, {"tls_server_config": PAIR})
    assert files.later() is first


@pytest.mark.parametrize("name", ["tls", "ca", "web"])
def test_a_change_is_seen_when_it_is_time(files, name):
    """A change of any of the files gives a new version with a new TLS context."""
    first = files.load({"tls_server_config": MUTUAL})
    if name == "tls":
        files.authority.write_pair(files.directory)
    elif name == "ca":
        (files.directory / "ca.crt").write_bytes(Authority().pem)
    else:
        write_config(files.path, {"tls_server_config": MUTUAL, "basic_auth_users": HASHES})
    files.clock.now += LOOK_EVERY - 0.1
    assert files.web.current() is first
    second = files.later()
    assert second is not first
    assert second.context is not first.context
    assert files.failures() == 0


def test_the_swap_of_a_mounted_secret(tmp_path):
    """A swap of the inner link of a mounted Secret is a change."""
    for version in ("..1", "..2"):
        Authority().write_pair(tmp_path / version)
        write_config(tmp_path / version / "web.yaml", {"tls_server_config": PAIR})
    (tmp_path / "..data").symlink_to("..1")
    for name in ("tls.crt", "tls.key", "web.yaml"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    web = find_web_config(
        ServerConfig(web_config_file=str(tmp_path / "web.yaml")),
        clock=(clock := Clock()),
        metrics=OwnMetrics().web_file,
    )
    first = web.current()
    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")
    clock.now += LOOK_EVERY
    assert web.current() is not first


def encrypt(files):
    """Encrypts the key with a password."""
    path = files.directory / "tls.key"
    loaded = pem.load_pem_private_key(path.read_bytes(), None)
    lock = pem.BestAvailableEncryption(b"planted-secret")
    path.write_bytes(loaded.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, lock))


def write(name, content):
    """A function that overwrites a file."""
    return lambda files: (files.directory / name).write_bytes(content)


TWICE = "basic_auth_users:\n" + "".join(f"  alice: {value}\n" for value in HASHES.values())
BROKEN = {
    "the key does not belong to": lambda files: files.authority.write_pair(
        files.directory, key=False
    ),
    "tls.key are not a certificate and its key": write("tls.key", b"planted-secret"),
    "tls.crt and": write("tls.crt", b"planted-secret"),
    "the key is encrypted": encrypt,
    "No such file or directory": lambda files: (files.directory / "tls.key").unlink(),
    "the file holds no CA certificate": write("ca.crt", b"planted-secret"),
    "the file is not YAML in line 2": write("web.yaml", b"planted-secret:\n  ]planted-secret"),
    "line 3 repeats a key": write("web.yaml", TWICE.encode()),
    "unknown key 'x'": write("web.yaml", b"x: planted-secret"),
    "the file is not text": write("web.yaml", b"\xff\xfeplanted-secret"),
}
"""How files can be such as cannot be used, by what is said of them."""


@pytest.mark.parametrize("says", BROKEN)
def test_a_broken_first_version(files, says):
    """ConfigError names the setting and the reason, and shows no contents of files."""
    write_config(files.path, {"tls_server_config": MUTUAL})
    BROKEN[says](files)
    with pytest.raises(ConfigError) as caught:
        files.load()
    (line,) = caught.value.problems
    assert line.startswith(f"--web-config-file {files.path}: ")
    assert says in line
    assert "planted-secret" not in line
    assert all(value not in line for value in HASHES.values())


@pytest.mark.parametrize("says", BROKEN)
def test_a_broken_new_version(files, says, caplog):
    """The last good version stays. The error is logged once, counted, and shows no secret."""
    caplog.set_level(logging.WARNING)
    document = {"tls_server_config": MUTUAL}
    first = files.load(document)
    whole = {path: path.read_bytes() for path in files.directory.iterdir()}
    BROKEN[says](files)
    for looks in (1, 2, 3):
        assert files.later() is first
        assert files.failures() == looks
    (record,) = caplog.records
    assert says in record.getMessage()
    assert "the last good version stays in use" in record.getMessage()
    assert "planted-secret" not in caplog.text
    for path, content in whole.items():
        path.write_bytes(content)
    assert files.later() is first
    files.authority.write_pair(files.directory)
    assert files.later() is not first
    assert files.failures() == 3


LOCKS = {
    "tls_server_config": {"tls_server_config": PAIR},
    "client_auth_type": {"tls_server_config": MUTUAL},
    "client_allowed_sans": {"tls_server_config": MUTUAL | {"client_allowed_sans": ["a"]}},
    "basic_auth_users": {"tls_server_config": PAIR, "basic_auth_users": HASHES},
}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_is_never_taken_off_while_running(files, lock):
    """A truncated or empty file never removes TLS or users."""
    first = files.load(LOCKS[lock])
    for fewer in ({}, {"tls_server_config": PAIR} if lock != "tls_server_config" else {}):
        write_config(files.path, fewer)
        assert files.later() is first
    assert files.failures() == 2


def test_a_lock_may_be_put_on_and_changed(files):
    """TLS, client certificates and users can be added and changed while running."""
    assert files.load({}).context is None
    for document in (
        {"tls_server_config": PAIR},
        {"tls_server_config": PAIR, "basic_auth_users": HASHES},
        {"tls_server_config": MUTUAL, "basic_auth_users": {"bob": HASHES["bob"]}},
    ):
        write_config(files.path, document)
        state = files.later()
    assert state.context.verify_mode is ssl.CERT_REQUIRED
    assert set(state.config.users) == {"bob"}
    assert files.failures() == 0


def test_every_cut_of_a_file_keeps_the_locks(files):
    """A file that was cut at any byte never removes TLS or users."""
    document = {"tls_server_config": MUTUAL, "basic_auth_users": HASHES}
    files.load(document)
    whole = files.path.read_bytes()
    for cut in range(len(whole)):
        files.path.write_bytes(whole[:cut])
        state = files.later()
        assert state.config.locks() == files.web._state.config.locks()
        assert state.context.verify_mode is ssl.CERT_REQUIRED
        assert state.config.users


def test_what_a_context_is_made_of(files):
    """Versions, ciphers, ALPN and client certificates follow the configuration."""
    context = files.load(
        {
            "tls_server_config": MUTUAL
            | {
                "max_version": "TLS12",
                "cipher_suites": ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
                "curve_preferences": ["X25519"],
                "prefer_server_cipher_suites": False,
            }
        }
    ).context
    assert context.minimum_version is context.maximum_version is ssl.TLSVersion.TLSv1_2
    names = [each["name"] for each in context.get_ciphers() if each["protocol"] == "TLSv1.2"]
    assert names == ["ECDHE-RSA-AES128-GCM-SHA256"]
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert len(context.get_ca_certs()) == 1
    assert files.load({"tls_server_config": PAIR}).context.verify_mode is ssl.CERT_NONE


def test_what_stands_in_the_file_itself(files):
    """A certificate, a key and a CA can be text in the file."""
    read = {name: (files.directory / name).read_text() for name in ("tls.crt", "tls.key", "ca.crt")}
    state = files.load(
        {
            "tls_server_config": {
                "cert": read["tls.crt"],
                "key": read["tls.key"],
                "client_ca": read["ca.crt"],
                "client_auth_type": "VerifyClientCertIfGiven",
            }
        }
    )
    assert state.context.verify_mode is ssl.CERT_OPTIONAL
    assert read["tls.key"] not in repr(state)


def test_expiry_is_told(files):
    """The metric shows the expiry of both certificates, also after a rotation."""
    files.load({"tls_server_config": MUTUAL})
    told = ssl._ssl._test_decode_cert(str(files.directory / "tls.crt"))["notAfter"]
    assert files.expiry("serving") == ssl.cert_time_to_seconds(told)
    assert files.expiry("client_ca") > 1e9


def test_the_flags_of_kubelet_meta_proxy(files):
    """A directory and two file names: a new pair is used as with a web config."""
    files.authority.write_pair(files.directory, "other")
    settings = {"metrics_cert_path": str(files.directory)}
    first = files.load(**settings)
    assert first.context.verify_mode is ssl.CERT_NONE
    files.authority.write_pair(files.directory)
    assert files.later() is not first
    assert files.load(**settings, metrics_cert_name="other.crt", metrics_cert_key="other.key")
    assert files.load(**settings, metrics_secure=False) is None
    with pytest.raises(ConfigError, match=r"--metrics-cert-path: .*no\.crt: No such file"):
        files.load(**settings, metrics_cert_name="no.crt")


def test_nothing_secret_is_shown(files):
    """No repr shows a secret."""
    state = files.load({"tls_server_config": PAIR, "basic_auth_users": HASHES})
    shown = repr(files.web) + repr(state)
    assert HASHES["alice"] not in shown
    assert "basic_auth_users, tls_server_config" in repr(files.web)


def test_a_client_ca_that_is_broken_in_part(files, caplog):
    """Readable certificates of a bundle are trusted, others reported. An empty one fails."""
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    (files.directory / "ca.crt").write_bytes(broken + files.authority.pem)
    state = files.load({"tls_server_config": MUTUAL})
    assert len(state.context.get_ca_certs()) == 1
    assert "ca.crt: kmproxy cannot read, and leaves out, certificate 1 of 2" in caplog.text
    (files.directory / "ca.crt").write_bytes(broken)
    with pytest.raises(ConfigError, match=r"ca\.crt: the file holds no CA certificate"):
        files.load({"tls_server_config": MUTUAL})


def test_text_that_yaml_reads_as_something_else(files):
    """Scalars are strings where the exporter toolkit decodes strings, and typed elsewhere."""
    hashed = HASHES["alice"]
    (files.directory / "web.yml").write_text(
        "http_server_config:\n  http2: off\n  headers:\n    X-XSS-Protection: 1\n"
        "    Strict-Transport-Security: 0x1F\n    Content-Security-Policy: yes\n"
        f"basic_auth_users:\n  1234: {hashed}\n  1_0.50: {hashed}\n  true: {hashed}\n"
        f"  2020-13-01: {hashed}\n"
        "rate_limit: {burst: 5, interval: 1s}\n"
    )
    config = read_web_config(str(files.directory / "web.yml"))
    assert dict(config.headers) == {
        "X-XSS-Protection": "1",
        "Strict-Transport-Security": "0x1F",
        "Content-Security-Policy": "yes",
    }
    assert list(config.users) == ["1234", "1_0.50", "true", "2020-13-01"]
    assert config.rate_limit.burst == 5
    (files.directory / "web.yml").write_text(f"basic_auth_users: {{1: {hashed}, '1': {hashed}}}\n")
    with pytest.raises(ConfigError, match="repeats a key"):
        read_web_config(str(files.directory / "web.yml"))
    (files.directory / "web.yml").write_text("http_server_config: {http2: 1}\n")
    with pytest.raises(ConfigError, match="true or false is expected"):
        read_web_config(str(files.directory / "web.yml"))
