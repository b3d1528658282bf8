"""The settings: their names and defaults, their layers, and every problem at once."""

import dataclasses

import pytest

from kmproxy.config.commands import DemoConfig, EnrichConfig
from kmproxy.config.http_options import Access, Authorization
from kmproxy.config.label_rules import LabelRule
from kmproxy.config.loader import IGNORED, Layer, load, load_sections
from kmproxy.config.samples import LabelConfig
from kmproxy.config.sections import SECTIONS, Config, KubeletConfig, ServerConfig
from kmproxy.config.settings import settings
from kmproxy.config.types import Address, File
from kmproxy.errors import ConfigError


def flags(**values):
    """A layer of the command line: each flag with a tuple of values."""
    named = {name.replace("_", "-"): value for name, value in values.items()}
    return Layer("command line", "--", {n: v if isinstance(v, tuple) else (v,) for n, v in named.items()})  # fmt: skip


def file(**values):
    """A layer of a YAML file: scalars and lists."""
    return Layer("k.yaml", "", {name.replace("_", "-"): value for name, value in values.items()})


def loaded(*layers):
    """The configuration of layers without warnings."""
    config, warnings = load(layers)
    assert warnings == []
    return config


def problems(*layers):
    """The problems of these layers."""
    with pytest.raises(ConfigError) as caught:
        load(layers)
    return list(caught.value.problems)


def value(config, name):
    """The value of a setting, by its name."""
    for section, cls in SECTIONS.items():
        for attribute, spec in settings(cls).items():
            if spec.name == name:
                return getattr(getattr(config, section), attribute)
    raise KeyError(name)


CONTRACT = {
    "label": ("team",),
    "annotation": (),
    "label-default": (),
    "on-conflict": "keep",
    "node-name-or-ip": "localhost",
    "node-port": None,  # 10250 or 443, by the way that is taken
    "kube-apiserver": None,
    "all-nodes": False,
    "node-cadvisor-path": "/metrics/cadvisor",
    "kubeconfig": None,
    "kubelet-scheme": "https",
    "kubelet-insecure-tls": False,
    "kubelet-ca-file": None,
    "kubelet-server-name": None,
    "listen": Address("", 8080),
    "telemetry-listen": Address("", 8081),
    "max-concurrency": 5,
    "cache-sync-timeout": 30.0,
    "enable-http2": False,
    "log-level": "info",
    "log-format": "text",
}
"""The flags of the daemon that are documented, with their defaults."""


@pytest.mark.parametrize("name", CONTRACT)
def test_a_documented_setting_has_its_default(name):
    """Every setting has its documented default."""
    assert value(loaded(), name) == CONTRACT[name]


def test_without_a_word_the_team_label_is_added():
    """The only default rule is the label `team`."""
    assert loaded().labels.rules == (LabelRule("label", "team", "team"),)


def test_every_name_is_one_setting():
    """Settings, aliases and ignored flags have unique names, so none hides another."""
    specs = [spec for section in SECTIONS.values() for spec in settings(section).values()]
    names = [*[spec.name for spec in specs], *[a for spec in specs for a in spec.aliases], *IGNORED]
    assert len(names) == len(set(names))
    assert set(CONTRACT) <= set(names)


@pytest.mark.parametrize("section", [*SECTIONS.values(), EnrichConfig, DemoConfig])
def test_every_setting_is_explained_and_cannot_be_changed(section):
    """It has a help line, a name in the style of flags, and belongs to a frozen section."""
    for attribute, spec in settings(section).items():
        assert spec.help
        assert spec.name == spec.name.lower().strip("-")
        assert "_" not in spec.name
        assert spec.boolean is (spec.metavar == "")
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(section(), attribute, None)


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("label", "team=squad", ("team=squad",)),
        ("annotation", "owner", ("owner",)),
        ("on-conflict", "overwrite", "overwrite"),
        ("node-name-or-ip", "10.0.0.9", "10.0.0.9"),
        ("node-port", "10255", 10255),
        ("kube-apiserver", "https://api:6443", "https://api:6443"),
        ("all-nodes", "true", True),
        ("node-cadvisor-path", "/cadvisor", "/cadvisor"),
        ("kubeconfig", "/k", "/k"),
        ("kubelet-scheme", "http", "http"),
        ("kubelet-insecure-tls", "true", True),
        ("kubelet-ca-file", "/ca", "/ca"),
        ("kubelet-server-name", "node", "node"),
        ("listen", "127.0.0.1:1", Address("127.0.0.1", 1)),
        ("telemetry-listen", "[::1]:2", Address("::1", 2)),
        ("max-concurrency", "9", 9),
        ("cache-sync-timeout", "1m30s", 90.0),
        ("enable-http2", "false", False),
        ("log-level", "debug", "debug"),
        ("log-format", "json", "json"),
        ("service-account-dir", "/sa", "/sa"),
        ("label-snapshot", "/labels", "/labels"),
    ],
)
@pytest.mark.parametrize("make", [file, flags])
def test_a_setting_is_read_from_either_layer(make, name, text, read):
    """The same name and text mean the same on the command line and in a file."""
    assert value(loaded(make(**{name: text})), name) == read


@pytest.mark.parametrize(
    ("alias", "text", "name", "read"),
    [
        ("metrics-port", "9000", "listen", Address("", 9000)),
        ("health-probe-bind-address", ":9001", "telemetry-listen", Address("", 9001)),
        ("node-ip", "10.0.0.7", "node-name-or-ip", "10.0.0.7"),
    ],
)
@pytest.mark.parametrize("make", [file, flags])
def test_an_alias_is_the_same_setting(make, alias, text, name, read):
    """kubelet-meta-proxy's name works. Beside our name it loses, with a warning."""
    assert value(loaded(make(**{alias: text})), name) == read
    default = {"listen": ":1", "telemetry-listen": ":1", "node-name-or-ip": "n"}[name]
    config, warnings = load([make(**{alias: text, name: default})])
    assert value(config, name) == value(loaded(make(**{name: default})), name)
    assert len(warnings) == 1
    assert alias in warnings[0]


@pytest.mark.parametrize(
    ("document", "name", "read"),
    [
        ({"label": ["a", "b"]}, "label", ("a", "b")),
        ({"label": "a"}, "label", ("a",)),
        ({"label": []}, "label", ()),
        ({"node-port": 10255}, "node-port", 10255),
        ({"all-nodes": True}, "all-nodes", True),
        ({"all-nodes": False}, "all-nodes", False),
        ({"label": [9]}, "label", ("9",)),
    ],
)
def test_yaml_values(document, name, read):
    """Numbers, booleans and lists are read with their types."""
    assert value(loaded(file(**document)), name) == read


def test_no_rules_at_all():
    """`label: []` makes a proxy that adds nothing."""
    assert loaded(file(label=[])).labels.rules == ()


def test_the_later_layer_wins():
    """The command line has precedence over the file, per setting. Lists are not joined."""
    config = loaded(
        file(label=["a", "b"], node_port=1, log_level="debug", metrics_port=7000),
        flags(label=("c",), node_port="2", listen=":7001"),
    )
    assert config.labels.label == ("c",)
    assert (config.kubelet.port, config.log.level) == (2, "debug")
    assert config.server.listen == Address("", 7001)
    assert [rule.name for rule in config.labels.rules] == ["c"]


def test_the_last_of_a_flag_counts():
    """A repeated flag has its last value, unless it is a list."""
    config = loaded(flags(node_port=("1", "2"), label=("a", "b")))
    assert config.kubelet.port == 2
    assert config.labels.label == ("a", "b")


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        (flags(node_port="0"), "--node-port: '0' is not a port (1 to 65535)"),
        (flags(node_port=()), "--node-port: the value is missing"),
        (flags(label=()), "--label: the value is missing"),
        (flags(label=""), "--label: the value is empty"),
        (flags(listen="8080"), "--listen: '8080' is not ADDR:PORT"),
        (flags(metrics_port="x"), "--metrics-port: "),
        (flags(all_nodes="maybe"), "--all-nodes: 'maybe' is neither true nor false"),
        (flags(on_conflict="merge"), "--on-conflict: 'merge' is not one of keep, overwrite"),
        (flags(cache_sync_timeout="30"), "--cache-sync-timeout: '30' is not a duration"),
        (flags(label_snapshot="/"), "--label-snapshot: '/' is not the path of a file"),
        (flags(label="team=a-b"), "--label team=a-b: 'a-b' is not a label name"),
        (flags(label_default="tier=x"), "--label-default tier=x: no rule makes the label"),
        (file(node_port="x"), "node-port: 'x' is not a port (1 to 65535) (k.yaml)"),
        (file(node_port=[1]), "node-port: one value is expected, not a list (k.yaml)"),
        (file(node_port=None), "node-port: the value is missing (k.yaml)"),
        (file(node_port={}), "node-port: the value is not text (k.yaml)"),
        (file(label=[["a"]]), "label: the value is not text (k.yaml)"),
        (file(label=[None]), "label: the value is missing (k.yaml)"),
        (file(label={"team": "squad"}), "label: the value is not text (k.yaml)"),
        (file(all_nodes=2), "all-nodes: '2' is neither true nor false (k.yaml)"),
        (file(cache_sync_timeout=30), "cache-sync-timeout: '30' is not a duration"),
        (flags(bogus="1"), "unknown flag --bogus"),
        (file(bogus=1), "unknown key bogus (k.yaml)"),
        (file(config="x"), "unknown key config"),
        (flags(node_prot="1"), "unknown flag --node-prot, did you mean --node-port?"),
        (flags(lable="team"), "unknown flag --lable, did you mean --label?"),
        (flags(metric_port="1"), "unknown flag --metric-port, did you mean --metrics-port?"),
        (flags(kubelet_insecure="1"), "unknown flag --kubelet-insecure, did you mean --kubelet-insecure-tls?"),
        (Layer("k.yaml", "", {"node_port": 1}), "unknown key node_port, did you mean node-port? (k.yaml)"),
        (Layer("k.yaml", "", {"--label": "a"}), "unknown key --label, did you mean label? (k.yaml)"),
    ],
)  # fmt: skip
def test_a_problem_is_named(layer, problem):
    """As written by the user, with the reason, the file and the nearest name."""
    (found,) = problems(layer)
    assert found.startswith(problem)


@pytest.mark.parametrize(
    ("values", "about"),
    [
        ({"enable_http2": "true"}, ["--enable-http2"]),
        ({"kube_apiserver": "h", "kubelet_scheme": "http"}, ["--kubelet-scheme"]),
        ({"kubelet_insecure_tls": "true", "kubelet_ca_file": "f"}, ["--kubelet-insecure-tls", "--kubelet-ca-file"]),
        ({"kubelet_insecure_tls": "true", "kubelet_server_name": "n"}, ["--kubelet-server-name"]),
        ({"web_config_file": "f", "metrics_cert_path": "d"}, ["--web-config-file", "--metrics-cert-path"]),
    ],
)  # fmt: skip
def test_contradictions(values, about):
    """Contradicting settings are refused, and both are named."""
    (found,) = problems(flags(**values))
    assert all(word in found for word in about)


@pytest.mark.parametrize("way", [{"kube_apiserver": "h"}, {"kubelet_scheme": "http"}])
@pytest.mark.parametrize(
    "unused",
    [{"kubelet_insecure_tls": "true"}, {"kubelet_ca_file": "f"}, {"kubelet_server_name": "n"}],
)
def test_what_has_no_effect(way, unused):
    """A flag without effect beside another is accepted, with a warning that names it."""
    _, (warning,) = load([flags(**way, **unused)])
    assert all(f"--{name.replace('_', '-')}" in warning for name in unused)
    assert "has no effect" in warning


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        ({"authorization_audience": "a"}, "none"),
        ({"authorization_attributes": "nodes/metrics"}, "none"),
    ],
)
def test_what_authorization_leaves_without_effect(values, mode):
    """A setting of another authorization mode is accepted, with a warning."""
    _, (warning,) = load([flags(authorization=mode, **values)])
    assert warning.startswith(f"--{next(iter(values)).replace('_', '-')} has no effect without ")
    _, warnings = load([flags(authorization="kubernetes", **values)])
    assert warnings == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"metrics_secure": "true"}, "so --listen serves plain HTTP"),
        (
            {"metrics_secure": "false", "metrics_cert_path": "d"},
            "--metrics-cert-path has no effect",
        ),
    ],
)
def test_a_certificate_that_is_not_used(values, says):
    """A manifest of kubelet-meta-proxy is accepted. A warning says that TLS is off."""
    _, (warning,) = load([flags(**values)])
    assert says in warning


@pytest.mark.parametrize(
    "values",
    [
        {"metrics_secure": "true", "metrics_cert_path": "d"},
        {"metrics_secure": "true", "web_config_file": "f"},
        {"metrics_cert_path": "d", "metrics_cert_name": "a", "metrics_cert_key": "b"},
        {"metrics_secure": "false"},
    ],
)
def test_a_certificate_that_is_used(values):
    """With TLS on there is no warning."""
    loaded(flags(**values))


def test_all_problems_are_reported_at_once():
    """All problems of all layers, one line each."""
    found = problems(
        file(node_port="x", bogus=1, label=["a-b", "a.b"]),
        flags(max_concurrency="0", enable_http2="true", lable="team", log_level="loud"),
    )
    for part in ("node-port", "bogus", "'a_b'", "--max-concurrency", "http2", "lable", "log-level"):
        assert any(part in line for line in found)
    assert len(found) == 7
    assert not any("\n" in line for line in found)


@pytest.mark.parametrize("name", IGNORED)
@pytest.mark.parametrize("make", [file, flags])
def test_a_flag_without_meaning_is_accepted(make, name):
    """It changes nothing, and a warning gives the reason."""
    config, warnings = load([make(**{name: "anything"})])
    assert config == Config(labels=config.labels)
    assert config.labels == loaded().labels
    assert len(warnings) == 1
    assert f"{name} has no effect in kmproxy" in warnings[0]


@pytest.mark.parametrize(
    ("values", "port"),
    [({}, 10250), ({"node_port": "10255"}, 10255), ({"node_port": "443", "kube_apiserver": "h"}, 10250)],
)  # fmt: skip
def test_the_port_of_a_kubelet(values, port):
    """With the node proxy, `--node-port` is the API server's port, not the kubelet's."""
    assert loaded(flags(**values)).kubelet.kubelet_port == port


def test_only_the_sections_asked_for_are_built():
    """Each section has its own flags. Flags of other sections are unknown."""
    enrich, labels = load_sections([flags(namespaces="f", label="a")], EnrichConfig, LabelConfig)
    assert enrich == EnrichConfig("f")
    assert labels.rules == (LabelRule("label", "a", "a"),)
    with pytest.raises(ConfigError) as caught:
        load_sections([flags(listen=":1", label="=", zap_devel="x")], EnrichConfig, LabelConfig)
    assert len(caught.value.problems) == 3


def test_a_section_stands_alone():
    """Each section has its own defaults, so a class is tested with its section only."""
    assert KubeletConfig() == Config().kubelet
    assert ServerConfig(max_concurrency=2).listen == Address("", 8080)


def section(**values):
    """A file with a `kubelet` section."""
    return Layer("k.yaml", "", {"kubelet": values})


def test_the_kubelet_section():
    """It stands beside the settings. Of two files the last one's section counts, as a whole."""
    assert loaded().access is None
    config = loaded(
        section(bearer_token="a", follow_redirects=True), section(bearer_token_file="/b")
    )
    assert config.access == Access(Authorization(File("/b"), "bearer_token_file"))
    assert loaded(Layer("k.yaml", "", {"kubelet": {}, "node-port": 1})).access == Access()


def test_the_kubelet_section_is_no_flag():
    """Its keys have no form on the command line."""
    (found,) = problems(flags(kubelet="x"))
    assert found.startswith("unknown flag --kubelet")


def test_problems_of_the_kubelet_section():
    """They are reported with those of the settings, and with the file."""
    found = problems(
        Layer(
            "k.yaml", "", {"kubelet": {"bearer_tokn": "planted", "proxy_url": 1}, "node-port": "x"}
        )
    )
    assert found == [
        "node-port: 'x' is not a port (1 to 65535) (k.yaml)",
        "unknown key kubelet.bearer_tokn, did you mean kubelet.bearer_token? (k.yaml)",
        "kubelet.proxy_url: text is expected; put the value in quotes (k.yaml)",
    ]


@pytest.mark.parametrize(
    ("values", "tls", "about"),
    [
        ({"kube_apiserver": "h"}, {}, ["kubelet: ", "--kube-apiserver"]),
        ({"kubelet_scheme": "http"}, {}, ["kubelet: ", "--kubelet-scheme=http"]),
        ({"kubelet_ca_file": "f"}, {"ca": "c"}, ["--kubelet-ca-file", "ca or ca_file", "give one"]),
        ({"kubelet_server_name": "n"}, {"server_name": "n"}, ["--kubelet-server-name", "give one"]),
        ({"kubelet_insecure_tls": "true"}, {"insecure_skip_verify": True}, ["--kubelet-insecure-tls", "give one"]),
        ({"kubelet_insecure_tls": "true"}, {"ca_file": "f"}, ["--kubelet-insecure-tls", "CA"]),
        ({"kubelet_insecure_tls": "true"}, {"server_name": "n"}, ["--kubelet-insecure-tls", "server name"]),
        ({"kubelet_ca_file": "f"}, {"insecure_skip_verify": True}, ["insecure_skip_verify", "CA"]),
        ({"kubelet_server_name": "n"}, {"insecure_skip_verify": True}, ["insecure_skip_verify", "flag"]),
    ],
)  # fmt: skip
def test_contradictions_of_the_kubelet_section(values, tls, about):
    """A key that repeats or contradicts a flag is refused, and both are named."""
    (found,) = problems(section(tls_config=tls), flags(**values))
    assert all(word in found for word in about)


def test_flags_beside_the_kubelet_section():
    """A flag about something else is accepted beside it."""
    config = loaded(section(tls_config={"server_name": "n"}), flags(kubelet_ca_file="f"))
    assert (config.kubelet.ca_file, config.access.tls.server_name) == ("f", "n")


@pytest.mark.parametrize(
    "unused",
    [
        {"discovery_namespace": "a"},
        {"discovery_refresh_interval": "9s"},
        {"discovery_max_age": "1h", "discovery_namespace": "a"},
    ],
)
def test_discovery_that_is_off(unused):
    """Settings of discovery have no effect then, and cause a warning."""
    _, (warning,) = load([flags(**unused)])
    assert all(f"--{name.replace('_', '-')}" in warning for name in unused)
    assert warning.endswith("has no effect without --discovery")
    assert load([flags(discovery="true", **unused)])[1] == []


def test_discovery_limits():
    """The maximum age of a list is at least the refresh interval."""
    (problem,) = problems(flags(discovery="true", discovery_max_age="4s"))
    assert problem == "--discovery-max-age is less than --discovery-refresh-interval"
    loaded(flags(discovery="true", discovery_max_age="5s"))
