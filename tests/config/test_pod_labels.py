"""Labels from pods: how they are configured, and each mistake with its line."""

from __future__ import annotations

import pytest

from kmproxy.cli.read import read_config, read_sections
from kmproxy.config.pod_labels import PodConfig, PodRule
from kmproxy.config.recipe import read_recipe
from kmproxy.errors import ConfigError


def pods(*flags):
    """The section of these flags."""
    return read_config(flags)[0].pods


def problems(*flags):
    """The lines of what is wrong with these flags."""
    with pytest.raises(ConfigError) as raised:
        read_config(flags)
    return list(raised.value.problems)


def test_rules_in_order():
    """KEY alone makes its own name; workload and its type come last."""
    found = pods("--workload", "--pod-label=app.kubernetes.io/name=app", "--pod-label=9-lives")
    assert found.rules == (PodRule("app.kubernetes.io/name", "app"), PodRule("9-lives", "_9_lives"))
    assert found.names == ("app", "_9_lives", "workload", "workload_type")
    assert found.unknown_pod == "drop"
    assert found.enabled


def test_nothing_by_default():
    """Without a flag no pod is asked for."""
    assert not PodConfig().enabled
    assert not pods("--unknown-pod=drop").enabled
    assert PodConfig().reserved == frozenset()


def test_the_file(tmp_path):
    """The same names without dashes."""
    path = tmp_path / "kmproxy.yaml"
    path.write_text("pod-label: [app, tier=level]\nworkload: true\nunknown-pod: keep\n")
    found = pods("--config", str(path))
    assert found.names == ("app", "level", "workload", "workload_type")
    assert found.unknown_pod == "keep"


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--pod-label=*"], "--pod-label *: '*' is for namespaces only: name each label of pods"),
        (["--pod-label=*=x"], "--pod-label *=x: '*' is for namespaces only: name each label of pods"),
        (["--pod-label=app="], "--pod-label: 'app=' is not KEY or KEY=NAME"),
        (["--pod-label=app=9"], "--pod-label app=9: '9' is not a label name: [a-zA-Z_][a-zA-Z0-9_]*"),
        (["--pod-label=app=__a"], "--pod-label app=__a: '__a' begins with two underscores, which Prometheus keeps for itself"),
        (["--pod-label=app=namespace"], "--pod-label app=namespace: kmproxy looks labels up by 'namespace' and cannot replace that label"),
        (["--pod-label=pod"], "--pod-label pod: kmproxy looks labels of pods up by 'pod' and cannot replace that label"),
        (["--pod-label=team"], "--pod-label team: the label 'team' is already made by --label team"),
        (["--pod-label=app", "--pod-label=name=app"], "--pod-label name=app: the label 'app' is already made by --pod-label app"),
        (["--pod-label=app", "--annotation=x/app=app"], "--pod-label app: the label 'app' is already made by --annotation x/app=app"),
        (["--pod-label=app", "--label=*", "--label-default=app=x"], "--pod-label app: the label 'app' is already made by --label-default app=x"),
        (["--pod-label=app=workload", "--workload"], "--pod-label app=workload: the label 'workload' is already made by --workload"),
        (["--pod-label=app=workload_type", "--workload"], "--pod-label app=workload_type: the label 'workload_type' is already made by --workload"),
        (["--label=workload", "--workload"], "--label workload: the label 'workload' is already made by --workload"),
        (["--annotation=x=workload_type", "--workload"], "--annotation x=workload_type: the label 'workload_type' is already made by --workload"),
        (["--label=x=pod", "--workload"], "--label x=pod: kmproxy looks labels of pods up by 'pod' and cannot replace that label"),
        (["--unknown-pod=lose"], "--unknown-pod: 'lose' is not one of drop, keep"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_line(flags, line):
    """The line names the flag, and the other one where two are at odds."""
    assert problems(*flags) == [line]


def test_all_mistakes_at_once():
    """Of both kinds of rules."""
    assert len(problems("--pod-label=*", "--pod-label=pod", "--label=x=9", "--unknown-pod=x")) == 4


def test_names_without_pods():
    """Without `--workload` and `--pod-label` the names are free for namespaces."""
    config, _ = read_config(["--label=workload", "--label=pod", "--label=workload_type"])
    assert [rule.name for rule in config.labels.rules] == ["workload", "pod", "workload_type"]


@pytest.mark.parametrize(
    ("flags", "warned"),
    [
        (["--unknown-pod=keep"], True),
        (["--unknown-pod=keep", "--workload"], False),
        (["--workload", "--drop-label=pod"], True),
        (["--drop-label=pod"], False),
    ],
)
def test_settings_without_an_effect(flags, warned):
    """They are warned of."""
    assert any("no effect" in line for line in read_config(flags)[1]) is warned


def test_enrich_knows_no_pods():
    """It has no kubelet to ask."""
    with pytest.raises(ConfigError, match="--workload"):
        read_sections("enrich", ["--workload"])


def test_the_recipe():
    """It has the names of pods' labels, so that a sample never gets one twice."""
    config, _ = read_config(["--pod-label=app", "--workload"])
    recipe = read_recipe(config.labels, config.selection, config.pods)
    assert recipe.names == {b"team", b"app", b"workload", b"workload_type"}
    assert recipe.pods
    plain = read_recipe(config.labels, config.selection)
    assert plain.names == {b"team"}
    assert not plain.pods
