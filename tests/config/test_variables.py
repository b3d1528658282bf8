"""Settings from environment variables: names, values, precedence, and foreign variables."""

from __future__ import annotations

import pytest

from kmproxy.cli.flags import help_text
from kmproxy.cli.read import read_config
from kmproxy.config.sections import SECTIONS
from kmproxy.config.settings import settings
from kmproxy.config.variables import PREFIX, read_variables, variable
from kmproxy.errors import ConfigError


def read(*flags, **environment):
    """The configuration of flags and of variables without their prefix."""
    return read_config(list(flags), {PREFIX + key: value for key, value in environment.items()})


def config(*flags, **environment):
    """The configuration of flags and variables, without warnings."""
    built, warnings = read(*flags, **environment)
    assert warnings == []
    return built


def test_every_setting_has_a_variable():
    """The name of the variable follows the flag."""
    known = {spec.name: spec for each in SECTIONS.values() for spec in settings(each).values()}
    for name in known:
        key = "KMPROXY_" + name.upper().replace("-", "_")
        assert variable(name) == key
        assert read_variables({key: "v"}, known) == ({name: ("v",)}, [])
    assert len({variable(name) for name in known}) == len(known)


def test_values():
    """As on the command line: numbers, durations and booleans, without blanks around them."""
    built = config(
        NODE_NAME_OR_IP="10.0.0.7", NODE_PORT=" 10255\n", ALL_NODES="true", DISCOVERY="0",
        CACHE_SYNC_TIMEOUT="1m30s", LISTEN="127.0.0.1:9000",
    )  # fmt: skip
    assert (built.kubelet.node, built.kubelet.port, built.kubelet.all_nodes) == ("10.0.0.7", 10255, True)  # fmt: skip
    assert built.apiserver.cache_sync_timeout == 90.0
    assert str(built.server.listen) == "127.0.0.1:9000"
    assert not built.discovery.enabled


def test_a_line_is_a_value_of_a_repeatable_one():
    """Each line is a value. Empty lines are none, and a comma is part of a value."""
    built = config(
        LABEL="team\n\n owner=owner \r\n", LABEL_DEFAULT="team=a,b", KEEP_METRIC="a{1,2}"
    )
    assert [rule.name for rule in built.labels.rules] == ["team", "owner"]
    assert built.labels.rules[0].default == "a,b"
    assert built.selection.keep_metric[0].pattern == "a{1,2}"


@pytest.mark.parametrize("name", ["LABEL", "ANNOTATION", "NAMESPACE", "EXCLUDE_NAMESPACE", "DISCOVERY_NAMESPACE"])  # fmt: skip
@pytest.mark.parametrize("text", ["team,owner", "team owner"])
def test_a_list_by_mistake(name, text):
    """A name with a comma or a blank is refused: it would silently match nothing."""
    with pytest.raises(ConfigError, match="give each value separately"):
        read(**{name: text})
    with pytest.raises(ConfigError, match="give each value separately"):
        read(f"--{name.lower().replace('_', '-')}={text}")


def test_an_empty_variable_is_none():
    """An empty variable gives the default, so manifests can remove a value."""
    assert config(LABEL="", NODE_PORT="", ALL_NODES="\n") == config()


def test_what_wins(tmp_path):
    """The command line, then the environment, then the file. A variable may name the file."""
    file = tmp_path / "k.yaml"
    file.write_text("node-port: 1\nmax-concurrency: 2\nlabel: [a, b]\nlog-level: error\n")
    built = config(
        "--node-port=3", "--label=c", "--label=d",
        CONFIG=str(file), NODE_PORT="4", MAX_CONCURRENCY="5", LABEL="e",
    )  # fmt: skip
    assert built.kubelet.port == 3
    assert built.labels.label == ("c", "d")
    assert built.server.max_concurrency == 5
    assert built.log.level == "error"
    other = tmp_path / "other.yaml"
    other.write_text("node-port: 7\n")
    assert config(f"--config={other}", CONFIG=str(file)).kubelet.port == 7
    assert config("--node-ip=b", NODE_NAME_OR_IP="a").kubelet.node == "b"


def test_every_problem_is_told_by_the_variables_name(tmp_path):
    """Problems of the environment, of flags and of the file are all reported."""
    file = tmp_path / "k.yaml"
    file.write_text("nonsense: 1\n")
    with pytest.raises(ConfigError) as raised:
        read("--node-port=x", CONFIG=str(file), NODE_PORT="0", ALL_NODES="maybe", LABEL="0=0")
    told = " ".join(raised.value.problems)
    for words in ("KMPROXY_NODE_PORT: '0'", "KMPROXY_ALL_NODES: 'maybe'", "--node-port: 'x'", "nonsense"):  # fmt: skip
        assert words in told
    with pytest.raises(ConfigError, match="KMPROXY_NODE_PORT: '0'"):
        read(NODE_PORT="0")
    with pytest.raises(ConfigError, match=r"--config .*nowhere"):
        read(CONFIG=str(tmp_path / "nowhere"))


def test_what_kubernetes_makes_of_services():
    """Kubernetes' own variables of Services cause neither a warning nor a port.

    The last two have names of settings: they come from the Services `kmproxy-node` and
    `kmproxy-metrics`.
    """
    linked = "tcp://10.96.0.7:8080"
    built = config(
        SERVICE_HOST="10.96.0.7", SERVICE_PORT="8080", SERVICE_PORT_METRICS="8080", PORT=linked,
        PORT_8080_TCP=linked, PORT_8080_TCP_PROTO="tcp", PORT_8080_TCP_PORT="8080",
        PORT_8080_TCP_ADDR="10.96.0.7", LOCAL_SERVICE_HOST="10.96.0.8", LOCAL_PORT=linked,
        NODE_PORT=linked, METRICS_PORT=linked,
    )  # fmt: skip
    assert built == config()


def test_a_stranger_is_named():
    """An unknown variable is named, with a suggestion. Others without the prefix are ignored."""
    _, warnings = read(LABELS="team", METRICS_PORT="8080", XYZZY="1")
    assert warnings == [
        "the environment variable KMPROXY_LABELS names no setting and is ignored, did you mean KMPROXY_LABEL?",
        "the environment variable KMPROXY_METRICS_PORT names no setting and is ignored, did you mean KMPROXY_LISTEN?",
        "the environment variable KMPROXY_XYZZY names no setting and is ignored",
    ]  # fmt: skip
    assert read_config([], {"LABEL": "x", "XKMPROXY_LABEL": "x"})[1] == []


def test_what_is_for_check_alone():
    """The daemon ignores it: its container has it for `check`."""
    assert config(OUTPUT="json", TRY_NODE="node-a") == config()
    with pytest.raises(ConfigError, match="unknown flag --output"):
        read("--output=json")


@pytest.mark.parametrize("command", ["serve", "check"])
def test_the_help_says_so(command):
    """The help names the variables beside the flags."""
    text = " ".join(help_text(command).split())
    assert "KMPROXY_NODE_PORT for --node-port" in text
    assert "KMPROXY_" not in help_text("enrich")
