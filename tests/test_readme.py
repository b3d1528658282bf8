"""What the README says is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import bcrypt
import yaml

from kmproxy.access import KEYS
from kmproxy.config import SECTIONS, settings
from kmproxy.loader import Layer, load
from kmproxy.telemetry import Telemetry
from kmproxy.webconfig import Pem
from kmproxy.webfile import read_web_config

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def rows():
    """The table of settings, from the settings themselves."""
    for section in SECTIONS.values():
        blank = section()
        for key, spec in settings(section).items():
            default = getattr(blank, key)
            if spec.repeatable:
                shown = ", ".join(default)
            elif spec.metavar == "DURATION":
                shown = f"{default:g}s"
            else:
                shown = "" if default in {None, False} else str(default)
            flag = f"--{spec.name} {spec.metavar}".rstrip().replace("|", "\\|")
            notes = ["repeatable"] if spec.repeatable else []
            notes += [f"also `--{alias}`" for alias in spec.aliases]
            text = spec.help.replace("|", "\\|") + (f" ({'; '.join(notes)})" if notes else "")
            yield f"| `{flag}` | {f'`{shown}`' if shown else ''} | {text} |"


def test_the_table_of_settings():
    """Every setting has its row, generated from the same field as its flag."""
    table = "\n".join(rows())
    between = re.search(r"<!-- settings -->\n(.*)\n<!-- /settings -->", README, re.DOTALL)
    assert between[1] == table


def test_the_table_of_metrics():
    """Every metric of ours is in the README, and no other."""
    ours = set(re.findall(r"^# TYPE (kmproxy_\w+) ", Telemetry().render().decode(), re.MULTILINE))
    assert set(re.findall(r"`(kmproxy_\w+)", README)) == ours


def test_the_table_of_modules():
    """Every module is in the architecture section."""
    section = README.partition("## Architecture")[2].partition("## Develop")[0]
    for path in (ROOT / "kmproxy").glob("[a-z]*.py"):
        if not path.stem.startswith("sim"):
            assert f"`{path.stem}`" in section, path.stem


def test_the_yaml_example():
    """The configuration that is shown is one."""
    example = re.search(r"```yaml\n(label: .*?)```", README, re.DOTALL)[1]
    config, warnings = load([Layer("README", "", yaml.safe_load(example))])
    assert [rule.name for rule in config.labels.rules] == ["team", "cost_center"]
    assert warnings == []


def test_kubelet_access():
    """The section that is shown is one, and every key of it has its place in the table."""
    part = README.partition("### Kubelet access")[2].partition("\n## ")[0]
    example = re.search(r"```yaml\n(.*?)```", part, re.DOTALL)[1]
    config, warnings = load([Layer("README", "", yaml.safe_load(example))])
    assert config.access.credential.client_id == "kmproxy"
    assert config.access.tls.min_version == "TLS13"
    assert warnings == []
    for block, keys in KEYS.items():
        for key in [block, *keys] if block else keys:
            assert f"`{key}`" in part, key


def test_the_web_config_example(tmp_path):
    """It is one, with a certificate beside it, and asks for all that it seems to ask for."""
    example = re.search(r"```yaml\n(tls_server_config:.*?)```", README, re.DOTALL)[1]
    (tmp_path / "web.yaml").write_text(example)
    config = read_web_config(str(tmp_path / "web.yaml"))
    assert config.tls.certificate == Pem(str(tmp_path / "tls.crt"))
    assert config.tls.client_auth == "RequireAndVerifyClientCert"
    assert config.tls.client_sans == {"prometheus.example.com"}
    assert bcrypt.checkpw(b"example", config.users["prometheus"].encode())
    assert config.headers == (("X-Content-Type-Options", "nosniff"),)
    assert config.asks


def test_the_table_of_threats():
    """Whatever is said to be shown by a test is: the test is there."""
    table = README.partition("### Threats")[2].partition("## Performance")[0]
    rows = [line.strip("|").split("|") for line in table.strip().splitlines()[2:]]
    there = {
        name
        for path in Path(__file__).parent.glob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert len(rows) > 10
    for _, threat, stops, tests in rows:
        named = re.findall(r"`(\w+)`", tests)
        assert threat.strip()
        assert stops.strip()
        assert named, threat
        assert set(named) <= there, set(named) - there


def test_the_image():
    """It runs unprivileged, and what is last removed from it are pip, apt and the shells."""
    final = (ROOT / "Dockerfile").read_text("utf-8").rpartition("\nFROM ")[2]
    assert "USER 65532:65532\n" in final
    assert 'ENTRYPOINT ["kmproxy"]' in final
    (run,) = re.findall(r"^RUN (.*?[^\\])\n", final, re.MULTILINE | re.DOTALL)
    for gone in ("uninstall --yes", " /usr/bin/apt*", " /usr/bin/dpkg*", " /bin/sh", " /bin/bash"):
        assert gone in run


if __name__ == "__main__":
    print("\n".join(rows()))  # noqa: T201 - to be pasted into the README
