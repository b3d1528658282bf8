"""The values of the chart: what is refused, and that documents and schema agree with them."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
import yaml

from kmproxy import __version__
from tests.support.chart_documents import README, SCHEMA, readme, schema, values
from tests.support.charts import CHART, CI, ci_values, helm, refusal, rendered, texts
from tests.support.overlays import file_of, of_kind, pod_of, variables
from tests.support.yaml_text import read_all

pytestmark = [helm]

CENTRAL, PROXY = {"mode": "central"}, {"access": "proxy"}
TLS = {"tls": {"mode": "certManager"}}
TENANT = {"authorization": {"mode": "tenant"}}
ON = {"enabled": True}
NONE = {"mode": "none"}
LOGS = {"enabled": True, "lokiUrl": "http://loki/loki/api/v1/push"}

CONTRADICTIONS = [
    (
        {"kubelet": PROXY},
        "kubelet.access=proxy is for mode=central alone: on every node there would be a token that can run commands in every pod",
    ),
    (
        CENTRAL | {"kubelet": PROXY, "config": {"kubelet": {"proxy_from_environment": True}}},
        "config.kubelet makes no sense beside kubelet.access=proxy: the API server connects to the kubelets",
    ),
    (
        CENTRAL | {"kubelet": PROXY, "config": {"kubelet-scheme": "http"}},
        "config.kubelet-scheme makes no sense beside kubelet.access=proxy: the API server connects to the kubelets",
    ),
    (
        {"config": {"kubelet-insecure-tls": True}},
        "config accepts every certificate of a kubelet: set kubelet.tlsPin=false, too, or better leave that out of config",
    ),
    (
        {"config": {"kubelet": {"tls_config": {"insecure_skip_verify": True}}}},
        "config accepts every certificate of a kubelet: set kubelet.tlsPin=false, too, or better leave that out of config",
    ),
    (
        TENANT,
        "authorization.mode=tenant needs TLS, as scrapers send their tokens: set tls.mode",
    ),
    (
        {"authorization": {"mode": "kubernetes"}},
        "authorization.mode=kubernetes needs TLS, as scrapers send their tokens: set tls.mode",
    ),
    (
        {"tls": {"webConfig": {"basic_auth_users": {"a": "$2y$10$x"}}}},
        "tls.webConfig needs TLS, as scrapers send their passwords: set tls.mode",
    ),
    (
        {"tls": {"mode": "existingSecret"}},
        "tls.mode=existingSecret needs tls.secretName: the Secret with tls.crt and tls.key",
    ),
    (
        {"config": {"all-nodes": True}},
        "config.all-nodes is what the chart sets itself: set mode instead",
    ),
    (
        {"config": {"kube-apiserver": "https://kubernetes.default.svc"}},
        "config.kube-apiserver is what the chart sets itself: set kubelet.access instead",
    ),
    (
        {"config": {"discovery": True}},
        "config.discovery is what the chart sets itself: set discovery.enabled instead",
    ),
    (
        {"config": {"authorization": "tenant"}},
        "config.authorization is what the chart sets itself: set authorization.mode instead",
    ),
    (
        {"config": {"pod-label": ["app"]}},
        "config.pod-label is what the chart sets itself: set workload.podLabel instead",
    ),
    (
        {"upstreams": [{"name": "a", "url": "http://a"}], "config": {"upstreams": []}},
        "upstreams and config.upstreams both list upstreams: use one of them",
    ),
    (
        CENTRAL | {"prometheus": {"podMonitor": ON}},
        "prometheus.podMonitor is for mode=daemonset: with mode=central take prometheus.scrapeConfig",
    ),
    (
        CENTRAL | {"prometheus": {"serviceMonitor": ON}},
        "prometheus.serviceMonitor is for mode=daemonset: with mode=central take prometheus.scrapeConfig",
    ),
    (
        {"prometheus": {"podMonitor": ON, "serviceMonitor": ON}},
        "prometheus.podMonitor and prometheus.serviceMonitor would scrape every node twice: use one of them",
    ),
    (
        {"prometheus": {"scrapeConfig": ON}},
        "prometheus.scrapeConfig is for mode=central: with mode=daemonset take prometheus.podMonitor",
    ),
    (
        {"prometheus": {"upstreams": ON}},
        "prometheus.upstreams.enabled has nothing to scrape: list exporters in upstreams",
    ),
    (
        TENANT | TLS | {"prometheus": {"podMonitor": ON}},
        "authorization.mode=tenant has a token for each tenant, and monitors of this chart have one: let each tenant have a monitor of its own",
    ),
    (
        {"kubeStateMetrics": {"mode": "http"}, "config": {"upstreams": []}},
        "kubeStateMetrics and config.upstreams both list upstreams: move those of config to upstreams",
    ),
    (
        {
            "kubeStateMetrics": {"mode": "tls"},
            "upstreams": [{"name": "kube-state-metrics", "url": "http://a"}],
        },
        "kubeStateMetrics and upstreams both name kube-state-metrics: use one of them",
    ),
    (
        {"prometheus": {"logs": ON}},
        "prometheus.logs.enabled has nothing to scrape: set logs.enabled or events.enabled",
    ),
    (NONE, "mode=none runs nothing without logs.enabled or events.enabled: set one of them"),
    *(
        (
            NONE | {"logs": LOGS} | given,
            f"{name} is about metrics, which mode=none does not serve: leave it out",
        )
        for name, given in {
            "authorization.mode": {"authorization": {"mode": "tenant"}, **TLS},
            "config": {"config": {"on-conflict": "keep"}},
            "discovery.enabled": {"discovery": ON},
            "kubeStateMetrics.mode": {"kubeStateMetrics": {"mode": "http"}},
            "labelSnapshot.enabled": {"labelSnapshot": ON},
            "prometheus.podMonitor.enabled": {"prometheus": {"podMonitor": ON}},
            "prometheus.serviceMonitor.enabled": {"prometheus": {"serviceMonitor": ON}},
            "tls.mode": TLS,
            "upstreams": {"upstreams": [{"name": "a", "url": "http://a"}]},
            "workload.enabled": {"workload": ON},
            "workload.podLabel": {"workload": {"podLabel": ["app"]}},
        }.items()
    ),
    (
        {"logs": ON},
        "logs.enabled needs logs.lokiUrl: a push endpoint, such as http://HOST:PORT/loki/api/v1/push",
    ),
    (
        CENTRAL | {"kubelet": PROXY, "logs": LOGS},
        "logs.source=files asks the kubelets themselves, which kubelet.access=proxy does not: set logs.source=api",
    ),
    (
        {"hostNetwork": True, "logs": LOGS},
        "hostNetwork with logs.source=files gives two pods of a node the same ports: set logs.source=api",
    ),
    (
        {"logs": LOGS | {"config": {"kubelet-scheme": "http"}}},
        "logs.config.kubelet-scheme=http: the read-only port of a kubelet serves no logs: leave it out",
    ),
    (
        {"logs": LOGS | {"source": "api", "config": {"kubelet": {}}}},
        "logs.config.kubelet makes no sense beside logs.source=api: the API server connects to the kubelets",
    ),
    (
        {"logs": LOGS | {"config": {"kubelet-insecure-tls": True}}},
        "logs.config accepts every certificate of a kubelet: set kubelet.tlsPin=false, too, or better leave that out of logs.config",
    ),
    (
        {"logs": LOGS, "networkPolicy": ON},
        "networkPolicy.enabled lets no line reach logs.lokiUrl: add a rule for the pods of the endpoint to networkPolicy.logsEgress",
    ),
    (
        {"logs": LOGS | {"config": {"positions": "/x"}}},
        "logs.config.positions is what the chart sets itself: set logs.persistence instead",
    ),
    (
        {"events": ON},
        "events.enabled needs events.lokiUrl: a push endpoint, such as http://HOST:PORT/loki/api/v1/push",
    ),
    (
        {"events": LOGS, "networkPolicy": ON},
        "networkPolicy.enabled lets no line reach events.lokiUrl: add a rule for the pods of the endpoint to networkPolicy.logsEgress",
    ),
    (
        {"events": LOGS | {"config": {"events-lease": "other"}}},
        "events.config.events-lease is what the chart sets itself: set fullnameOverride instead",
    ),
    (
        {"events": LOGS | {"config": {"node-port": 10250}}},
        "events.config.node-port makes no sense: events come from the API server",
    ),
    (
        {"events": LOGS | {"serviceAccount": {"create": False}}},
        "events.serviceAccount.create=false needs events.serviceAccount.name: the role is not for the account that every pod has",
    ),
    (
        {"logs": LOGS | {"serviceAccount": {"create": False}}},
        "logs.serviceAccount.create=false needs logs.serviceAccount.name: the role is not for the account that every pod has",
    ),
    (
        {"serviceAccount": {"create": False}},
        "serviceAccount.create=false needs serviceAccount.name: the roles are not for the account that every pod has",
    ),
]


@pytest.mark.parametrize(("given", "line"), CONTRADICTIONS)
def test_contradictions(given, line):
    """Values that make no sense together end the rendering with one line."""
    said = refusal(given)
    assert said.count("\n") == 0
    assert said.endswith(line)


def test_every_contradiction_is_tested():
    """Each `fail` of the templates has a case above."""
    text = "".join(path.read_text("utf-8") for path in (CHART / "templates").rglob("*.*"))
    lines = re.findall(r'- fail (?:\(printf )?"([^"]+)"', text)
    assert len(lines) == text.count("- fail ") > 10
    for line in lines:
        form = re.escape(line).replace("%s", "[A-Za-z.-]+")
        assert any(re.fullmatch(form, said) for _, said in CONTRADICTIONS), line


WRONG = {
    "an unknown value": {"labels": ["team"]},
    "an unknown value in a part": {"kubelet": {"pin": True}},
    "an unknown setting": {"config": {"lable": "team"}},
    "an unknown key of a section": {"config": {"kubelet": {"bearertoken_file": "/x"}}},
    "an unknown key of an upstream": {
        "upstreams": [{"name": "a", "url": "http://a", "labels": ["x"]}]
    },
    "a secret in a ConfigMap": {"config": {"kubelet": {"bearer_token": "abc"}}},
    "a password in a ConfigMap": {
        "config": {"kubelet": {"basic_auth": {"username": "a", "password": "b"}}}
    },
    "a secret of an upstream": {
        "upstreams": [{"name": "a", "url": "http://a", "authorization": {"credentials": "x"}}]
    },
    "another mode": {"mode": "sidecar"},
    "another way": {"kubelet": {"access": "indirect"}},
    "text for a switch": {"discovery": {"enabled": "yes"}},
    "another choice of a setting": {"config": {"on-conflict": "merge"}},
    "every pod label": {"workload": {"podLabel": ["*"]}},
    "no digest": {"image": {"digest": "1234"}},
    "no port": {"service": {"port": 0}},
    "no replica": {"replicaCount": 0},
    "no name": {"fullnameOverride": "A_B"},
    "arguments": {"extraArgs": ["--label=team"]},
    "an unknown field of a toleration": {"tolerations": [{"keys": "a"}]},
    "an account of no namespace": {
        "authorization": {"scrapers": [{"kind": "ServiceAccount", "name": "a"}]}
    },
    "an entry without a URL": {"upstreams": [{"name": "a"}]},
    "another source of logs": {"logs": {"source": "journal"}},
    "an unknown setting of events": {"events": {"config": {"on-conflict": "keep"}}},
    "another source of events": {"events": {"source": "none"}},
    "an unknown setting of logs": {"logs": {"config": {"loki_url": "http://a"}}},
    "a setting of metrics for logs": {"logs": {"config": {"on-conflict": "keep"}}},
    "a secret for the endpoint": {
        "logs": {"config": {"loki": {"authorization": {"credentials": "x"}}}}
    },
    "a password in the endpoint": {"logs": {"lokiUrl": "https://user:word@logs/loki/api/v1/push"}},
    "a number for a tenant": {"logs": {"config": {"tenants": {"a": 1}}}},
    "another kube-state-metrics": {"kubeStateMetrics": {"mode": "on"}},
}


@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG)
def test_the_schema_refuses(given):
    """What no value can be, before anything is rendered."""
    assert "values don't meet the specifications of the schema" in refusal(given)


def test_the_schema_is_closed():
    """It is draft-07, and no object with named properties takes others."""
    document = json.loads(SCHEMA.read_text("utf-8"))
    jsonschema.Draft7Validator.check_schema(document)
    assert document["$schema"] == "http://json-schema.org/draft-07/schema#"

    def parts(one):
        if isinstance(one, dict):
            yield one
            for each in one.values():
                yield from parts(each)

    closed = [one for one in parts(document) if isinstance(one.get("properties"), dict) and "type" in one]  # fmt: skip
    assert len(closed) > 30
    assert all(one["additionalProperties"] is False for one in closed)


def test_schema_and_values_name_the_same():
    """Each value has a schema, and each part of the schema a value and a comment."""
    document = json.loads(SCHEMA.read_text("utf-8"))
    described = {each.path for each in values()}

    def leaves(path):
        part = document
        for key in path:
            part = part["properties"][key]
        if path in described:
            return {path}
        return set().union(*(leaves((*path, key)) for key in part["properties"] if key != "global"))

    assert leaves(()) == described
    defaults = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))

    def given(path, part):
        if path in described:
            return {path}
        return set().union(*(given((*path, key), each) for key, each in part.items()))

    assert given((), defaults) == described


def test_what_make_writes_is_written():
    """`make chart-documents` has nothing to change."""
    assert README.read_text("utf-8") == readme()
    assert SCHEMA.read_text("utf-8") == schema()


def test_the_readme_names_every_way():
    """Each file in ci/ has a row, and no row is left over."""
    table = README.read_text("utf-8").partition("## Ways of running")[2].partition("\n## ")[0]
    named = [line.split("`")[1] for line in table.splitlines() if line.startswith("| [`")]
    assert sorted(named) == CI


def test_versions_agree():
    """The chart's and the image's are that of the package."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["apiVersion"] == "v2"
    assert chart["appVersion"] == chart["version"] == __version__
    assert pod_of(rendered({}))[1]["image"] == f"kmproxy:{__version__}"


def test_the_files_are_the_components_own():
    """The repository has the rules and dashboards once: the chart leads to them."""
    components = CHART.parent / "components"
    assert (CHART / "files/rules").resolve() == components / "rules"
    assert (CHART / "files/dashboards").resolve() == components / "dashboard"


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"registry": "r.example.com:5000/a", "tag": "1"}, "r.example.com:5000/a/kmproxy:1"),
        ({"tag": "1", "digest": f"sha256:{'a' * 64}"}, f"kmproxy@sha256:{'a' * 64}"),
    ],
)
def test_the_image(image, expected):
    """The registry is before it, and a digest wins over a tag."""
    assert pod_of(rendered({"image": image}))[1]["image"] == expected


def test_labels_in_the_config_win():
    """So a value of the chart never hides a line of the YAML file."""
    assert variables(rendered({}))["KMPROXY_LABEL"] == "team"
    assert variables(rendered({"label": ["team", "*"]}))["KMPROXY_LABEL"] == "team\n*"
    assert "KMPROXY_LABEL" not in variables(rendered({"config": {"label": ["owner"]}}))


def test_numbers_are_whole():
    """A number of bytes is written out, whatever the reader of YAML made of it."""
    objects = rendered({"config": {"max-response-bytes": 536870912.0}})
    assert file_of(objects, "/etc/kmproxy/config/config.yml") == "max-response-bytes: 536870912\n"


def test_another_config_takes_new_pods():
    """The daemon reads its configuration at the start, so a change of it restarts the pods."""
    first, again, second = (
        rendered({"config": {"on-conflict": each}}) for each in ("keep", "keep", "overwrite")
    )
    sums = [
        one["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
        for objects in (first, again, second)
        for one in of_kind(objects, "DaemonSet")
    ]
    assert sums[0] == sums[1] != sums[2]


def test_what_is_left_out_is_not_what_is_empty():
    """Left out, a DaemonSet is on every taint with priority; empty, it is not."""
    pod, _ = pod_of(rendered({}))
    assert (pod["tolerations"], pod["priorityClassName"]) == ([{"operator": "Exists"}], "system-node-critical")  # fmt: skip
    pod, container = pod_of(rendered({"tolerations": [], "priorityClassName": "", "resources": {}}))
    assert not {"tolerations", "priorityClassName"} & set(pod)
    assert container["resources"] == {}


def test_more_objects():
    """Text and YAML, with templates in both."""
    more = ["kind: ConfigMap\napiVersion: v1\nmetadata: {name: '{{ .Release.Name }}-a'}"]
    more.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}})
    names = [one["metadata"]["name"] for one in of_kind(rendered({"extraObjects": more}), "ConfigMap")]  # fmt: skip
    assert names == ["kmproxy-a", "b"]


@pytest.mark.parametrize("key", sorted(ci_values("central-secure")["config"]))
def test_a_setting_reaches_the_file(key):
    """As it was written in the values."""
    values_ = ci_values("central-secure")
    text = file_of(rendered(values_), "/etc/kmproxy/config/config.yml")
    assert yaml.safe_load(text)[key] == values_["config"][key]


def test_one_object_in_a_file():
    """Each template has one object, but for files of rules and for `extraObjects`."""
    for way in CI:
        for path, text in texts(ci_values(way)).items():
            if path.endswith(".yaml") and path not in {"extra-objects.yaml", "prometheus/rules.yaml"}:  # fmt: skip
                assert len(read_all(text)) <= 1, path
