"""The effective settings, and that no secret is among them."""

from kmproxy.cli.read import read_config
from kmproxy.config.logs import LOGS_SECTIONS
from kmproxy.config.sections import SECTIONS
from kmproxy.config.settings import settings
from kmproxy.status.settings import effective, section_given, without_credentials


def shown(*flags):
    """The settings of a configuration, by name."""
    config, _ = read_config(list(flags))
    return {each.name: each for each in effective(getattr(config, name) for name in SECTIONS)}


def test_every_setting_is_listed():
    """Each one once, with a text for its value."""
    found = shown()
    assert set(found) == {
        each.name for section in SECTIONS.values() for each in settings(section).values()
    }
    assert all(each.default for each in found.values())


def test_values_are_written_as_they_are_given():
    """Durations, addresses, booleans, resources, expressions and several values."""
    found = shown(
        "--listen=127.0.0.1:9", "--max-scrape-time=1m30s", "--header-timeout=1500ms", "--all-nodes",
        "--label=team", "--label=a/b=c", "--keep-metric=container_.*", "--cache-sync-timeout=2h0m1s",
    )  # fmt: skip
    assert {name: each.value for name, each in found.items() if not each.default} == {
        "listen": "127.0.0.1:9",
        "max-scrape-time": "1m30s",
        "header-timeout": "1.5s",
        "all-nodes": "true",
        "label": "team\na/b=c",
        "keep-metric": "container_.*",
        "cache-sync-timeout": "2h1s",
    }
    assert found["tenant-resource"].value == "pods/metrics.metrics.k8s.io"
    assert found["idle-timeout"].value == "2m"
    assert found["enable-http2"].value == "false"
    assert found["kubeconfig"].value == ""


def test_a_url_is_shown_without_credentials():
    """User, password, query and fragment may be credentials."""
    url = "https://user:pass@loki.example:3100/loki/api/v1/push?token=abc#x"
    assert without_credentials(url) == "https://loki.example:3100/loki/api/v1/push"
    logs = LOGS_SECTIONS["logs"](loki_url=url, external_label=(("cluster", "eu"), ("a", "b")))
    found = {each.name: each.value for each in effective([logs])}
    assert found["loki-url"] == "https://loki.example:3100/loki/api/v1/push"
    assert found["external-label"] == "cluster=eu\na=b"
    assert found["shard"] == "0/1"


def test_of_a_section_only_its_presence_is_shown():
    """The kubelet section may hold passwords."""
    assert section_given("kubelet", given=True).value == "given"
    assert section_given("kubelet", given=False).default
