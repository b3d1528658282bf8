"""The settings of `kmproxy logs`: names and defaults, and every problem at once."""

import pytest

from kmproxy.cli.flags import help_text
from kmproxy.config.http_options import Access, Authorization
from kmproxy.config.loader import Layer, load_logs
from kmproxy.config.logs import LOGS_SECTIONS, NOT_OF_LOGS
from kmproxy.config.logs_values import Shard, Size
from kmproxy.config.settings import settings
from kmproxy.config.types import Address, File
from kmproxy.errors import ConfigError

URL = "http://loki.monitoring.svc:3100/loki/api/v1/push"
VICTORIA = "http://logs:9428/insert/loki/api/v1/push"

CONTRACT = {
    "loki-url": None,
    "source": "files",
    "namespace": (),
    "exclude-namespace": (),
    "container": (),
    "exclude-container": (),
    "stream-label": ("namespace", "container", "stream"),
    "external-label": (),
    "tenant-label": None,
    "default-tenant": None,
    "positions": "/var/lib/kmproxy/positions.json",
    "max-age": 86400.0,
    "batch-bytes": 1 << 20,
    "batch-wait": 1.0,
    "max-buffer-bytes": 16 << 20,
    "max-line-bytes": 262144,
    "shard": Shard(0, 1),
    "listen": Address("127.0.0.1", 8080),
    "telemetry-listen": Address("", 8081),
    "web-config-file": None,
    "label": ("team",),
    "annotation": (),
    "label-default": (),
    "max-label-value-bytes": 1024,
    "node-name-or-ip": "localhost",
    "node-port": None,
    "kube-apiserver": None,
    "kubelet-scheme": "https",
    "kubelet-insecure-tls": False,
    "kubelet-ca-file": None,
    "kubelet-server-name": None,
    "kubelet-tls-pin": False,
    "pod-label": (),
    "workload": False,
    "kubeconfig": None,
    "cache-sync-timeout": 30.0,
    "log-level": "info",
    "log-format": "text",
}
"""The flags that users rely on, with their defaults."""


def flags(**values):
    """A layer of the command line: each flag with a tuple of values."""
    named = {name.replace("_", "-"): value for name, value in values.items()}
    return Layer("command line", "--", {n: v if isinstance(v, tuple) else (v,) for n, v in named.items()})  # fmt: skip


def file(**values):
    """A layer of a YAML file: scalars and lists."""
    return Layer("k.yaml", "", {name.replace("_", "-"): value for name, value in values.items()})


def loaded(*layers, url=URL):
    """The configuration of layers without warnings."""
    command, warnings = load_logs([flags(loki_url=url), *layers])
    assert warnings == []
    return command


def problems(*layers, url=URL):
    """The problems of these layers."""
    with pytest.raises(ConfigError) as caught:
        load_logs([flags(loki_url=url), *layers])
    return list(caught.value.problems)


def value(command, name):
    """The value of a setting, by its name."""
    for section, cls in LOGS_SECTIONS.items():
        for attribute, spec in settings(cls).items():
            if spec.name == name:
                held = command.logs if section == "logs" else getattr(command.config, section)
                return getattr(held, attribute)
    raise KeyError(name)


@pytest.mark.parametrize("name", CONTRACT)
def test_a_default(name):
    """Every flag of the contract exists, with its default."""
    default = CONTRACT[name] if name != "loki-url" else URL
    assert value(loaded(), name) == default


def test_the_shared_sections_get_the_addresses():
    """The page of `logs` listens on loopback unless it is told otherwise."""
    assert loaded().config.server.listen == Address("127.0.0.1", 8080)
    command = loaded(flags(listen=":9000", health_probe_bind_address=":9001"))
    assert command.config.server.listen == Address("", 9000)
    assert command.config.server.telemetry_listen == Address("", 9001)


def test_the_help_names_every_flag():
    """No flag of the daemon's that has no meaning here is offered."""
    text = help_text("logs")
    for name in CONTRACT:
        assert f"  --{name}" in text
    for name in NOT_OF_LOGS:
        assert f"  --{name}" not in text
    assert "default 16MiB" in " ".join(text.split())


@pytest.mark.parametrize("name", sorted(NOT_OF_LOGS))
def test_a_setting_of_the_daemon_only(name):
    """It is an unknown flag here."""
    assert problems(flags(**{name: "1"}))[0].startswith(f"unknown flag --{name}")


def test_the_sections_of_the_file():
    """`loki` is an HTTP client; `tenants` maps values to tenants."""
    command = loaded(
        file(
            loki={"authorization": {"credentials_file": "/token"}},
            tenants={"payments": "7"},
            tenant_label="team",
            kubelet={"authorization": {"credentials_file": "/kubelet"}},
        ),
        url="https://loki/loki/api/v1/push",
    )
    assert command.loki == Access(Authorization(File("/token"), "authorization"))
    assert command.config.access == Access(Authorization(File("/kubelet"), "authorization"))
    assert command.tenants == {"payments": "7"}


@pytest.mark.parametrize(
    ("text", "size"),
    [("1048576", 1 << 20), ("1MiB", 1 << 20), ("4KiB", 4096), ("1MB", 10**6), ("2048B", 2048)],
)
def test_a_size(text, size):
    """Plain bytes, or a unit; in text the largest that divides it."""
    assert loaded(flags(batch_bytes=text, max_line_bytes="1KiB")).logs.batch_bytes == size
    assert str(Size(1 << 20)) == "1MiB"
    assert str(Size(1000)) == "1000"


def test_labels_of_pods():
    """They may be labels of streams; without --stream-label they are metadata."""
    command = loaded(flags(workload="true", pod_label="app", stream_label=("workload", "app")))
    assert command.logs.stream_label == ("workload", "app")
    assert command.config.pods.names == ("app", "workload", "workload_type")


def test_a_shard():
    """The first process of three is 0."""
    assert loaded(flags(shard="2/3")).logs.shard == Shard(2, 3)
    assert str(Shard(2, 3)) == "2/3"


BAD = {
    "no URL": ((), None, "--loki-url is missing"),
    "no URL at all": ((), "loki:3100", "--loki-url: the value is not a URL such as http"),
    "no path": ((), "http://loki:3100/", "the usual path of a push endpoint is /loki/api/v1/push"),
    "a password": ((), "http://u:p@loki/push", "see loki.basic_auth"),
    "a source": ([flags(source="tail")], URL, "--source: 'tail' is not one of files, api"),
    "a label Loki refuses": ([flags(external_label="my.label=x")], URL, "--external-label: "),
    "a label for a scraper": ([flags(external_label="__x__=x")], URL, "--external-label: "),
    "no stream label": ([flags(stream_label="path")], URL, "--stream-label: 'path' is not one of"),
    "a label twice": ([flags(external_label=("a=x", "a=y"))], URL, "'a' is given twice"),
    "a rule and an external label": ([flags(external_label="team=x")], URL, "'team' is made by"),
    "a rule named as metadata": ([flags(label="x=pod")], URL, "the label 'pod' is a label or"),
    "too many labels": (
        [flags(external_label=tuple(f"a{n}=x" for n in range(12)))], URL, "16 labels of a stream, at most 15",
    ),
    "no such tenant label": ([flags(tenant_label="owner")], URL, "no stream has the label 'owner'"),
    "a tenant": ([flags(default_tenant="a/b")], URL, "--default-tenant: 'a/b' is no tenant"),
    "VictoriaLogs": ([flags(default_tenant="team-a")], VICTORIA, "--default-tenant: VictoriaLogs"),
    "VictoriaLogs' map": (
        [file(tenants={"a": "4294967296"}, tenant_label="team")], VICTORIA, "tenants.a: VictoriaLogs",
    ),
    "tenants": ([file(tenants=["a"])], URL, "tenants: a mapping from values"),
    "a tenant's number": ([file(tenants={"a": 7})], URL, "tenants.a: one text is expected"),
    "both sources": (
        [flags(source="api", kubelet_insecure_tls="true", node_port="1")], URL,
        "--node-port, --kubelet-insecure-tls makes no sense beside --source=api",
    ),
    "api and an address": (
        [flags(source="api", node_name_or_ip="10.0.0.1")], URL, "--node-name-or-ip: an address, but",
    ),
    "api with a kubelet section": (
        [flags(source="api"), file(kubelet={"bearer_token": "x"})], URL, "kubelet: the section makes",
    ),
    "the read-only port": ([flags(kubelet_scheme="http")], URL, "the read-only port serves no logs"),
    "no workload": ([flags(stream_label="workload")], URL, "'workload' is not one of namespace"),
    "a pod label named as metadata": ([flags(pod_label="x=node")], URL, "'node' is a label or"),
    "a pod label twice": (
        [flags(pod_label="app", external_label="app=x")], URL, "--external-label: 'app' is a label of",
    ),
    "a shard": ([flags(shard="3/3")], URL, "--shard: '3/3' is not I/N"),
    "a batch over the buffer": (
        [flags(batch_bytes="2MiB", max_buffer_bytes="1MiB")], URL, "--batch-bytes is more than",
    ),
    "a line over the batch": (
        [flags(batch_bytes="1KiB")], URL, "--max-line-bytes is more than --batch-bytes",
    ),
    "a credential in plain text": (
        [file(loki={"bearer_token": "x"})], URL, "--loki-url: no credential and none of http_headers",
    ),
    "two tenants": (
        [flags(default_tenant="a"), file(loki={"http_headers": {"X-Scope-OrgID": "b"}})],
        "https://loki/loki/api/v1/push", "loki.http_headers: X-Scope-OrgID is set by",
    ),
    "a redirect": (
        [file(loki={"follow_redirects": True})], URL, "loki.follow_redirects: no redirect of a push",
    ),
    "a positions directory": ([flags(positions="/var/lib/")], URL, "--positions: '/var/lib/' is not"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case):
    """Each is one line that says what to do."""
    layers, url, message = BAD[case]
    found = [*_given(layers, url)]
    assert len(found) == 1, found
    assert message in found[0]


def _given(layers, url):
    with pytest.raises(ConfigError) as caught:
        load_logs([*([flags(loki_url=url)] if url else []), *layers])
    return caught.value.problems


def test_all_problems_at_once():
    """Flags, the file and what contradicts."""
    found = problems(
        flags(batch_wait="soon", shard="x"), file(loki={"x": 1}, source="api", node_port=1)
    )
    for each in ("--batch-wait", "--shard", "unknown key loki.x", "--node-port makes no sense"):
        assert any(each in line for line in found), each


def test_a_url_is_never_shown():
    """Its query may hold a key."""
    for url in ("ftp://h/p?key=secret", "http://u:secret@h/push", "http://h/push#secret"):
        assert "secret" not in str(problems(url=url))


@pytest.mark.parametrize("tenant", ["12:3", "7", "4294967295:0"])
def test_an_account(tenant):
    """VictoriaLogs' numbers, with or without a project."""
    command = loaded(flags(default_tenant=tenant), url=VICTORIA)
    assert command.logs.default_tenant == tenant


def test_tenants_without_their_label():
    """They have no effect, which is said."""
    _, warnings = load_logs([flags(loki_url=URL), file(tenants={"a": "b"})])
    assert warnings == ["tenants has no effect without --tenant-label"]
