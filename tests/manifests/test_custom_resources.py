"""The objects of the Prometheus Operator and cert-manager: their form, and honest labels.

Kubernetes' own schemas do not have them, so the usable fields of their APIs are listed here:
monitoring.coreos.com v1 and v1alpha1 as of the operator 0.80, and cert-manager.io v1.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.support.kustomize import build

MANIFESTS = Path(__file__).parents[2] / "manifests"

RELABELING = {
    "sourceLabels": [str], "separator": str, "targetLabel": str, "regex": str, "modulus": int,
    "replacement": str, "action": str,
}  # fmt: skip
KEY = {"name": str, "key": str, "optional": bool}
SOURCE = {"secret": KEY, "configMap": KEY}
TLS = {
    "ca": SOURCE, "cert": SOURCE, "keySecret": KEY, "serverName": str, "insecureSkipVerify": bool,
    "minVersion": str, "maxVersion": str,
}  # fmt: skip
SCRAPE = {
    "honorLabels": bool, "honorTimestamps": bool, "trackTimestampsStaleness": bool,
    "relabelings": [RELABELING], "metricRelabelings": [RELABELING], "scheme": str,
    "tlsConfig": TLS, "authorization": {"type": str, "credentials": KEY},
    "basicAuth": {"username": KEY, "password": KEY},
}  # fmt: skip
ENDPOINT = SCRAPE | {"port": str, "path": str, "interval": str, "scrapeTimeout": str}
SELECTOR = {
    "matchLabels": {},
    "matchExpressions": [{"key": str, "operator": str, "values": [str]}],
}
RULE = {"record": str, "alert": str, "expr": str, "for": str, "labels": {}, "annotations": {}}

SPECS = {
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "selector": SELECTOR, "podMetricsEndpoints": [ENDPOINT],
    },
    ("monitoring.coreos.com/v1", "ServiceMonitor"): {
        "selector": SELECTOR, "endpoints": [ENDPOINT],
    },
    ("monitoring.coreos.com/v1alpha1", "ScrapeConfig"): SCRAPE | {
        "jobName": str, "kubernetesSDConfigs": [{"role": str}], "scrapeInterval": str,
        "httpSDConfigs": [{
            "url": str, "refreshInterval": str, "tlsConfig": TLS,
            "authorization": {"type": str, "credentials": KEY},
        }],
    },
    ("monitoring.coreos.com/v1", "PrometheusRule"): {
        "groups": [{"name": str, "interval": str, "rules": [RULE]}],
    },
    ("cert-manager.io/v1", "Issuer"): {"selfSigned": {}, "ca": {"secretName": str}},
    ("cert-manager.io/v1", "Certificate"): {
        "secretName": str, "dnsNames": [str], "ipAddresses": [str], "commonName": str, "isCA": bool,
        "usages": [str], "duration": str, "renewBefore": str, "issuerRef": {"name": str, "kind": str},
        "privateKey": {"algorithm": str, "size": int, "rotationPolicy": str},
    },
}  # fmt: skip
"""The fields of a spec and the types of their values; `{}` is any mapping from text to text."""

ACTIONS = {"replace", "keep", "drop", "labelmap", "labeldrop", "labelkeep"}


def custom_resources():
    """Every object that the components build outside of Kubernetes' own APIs."""
    for component in sorted((MANIFESTS / "components").iterdir()):
        overlay = "deployment" if component.name == "scrapeconfig" else "daemonset"
        for one in build(MANIFESTS / "overlays" / overlay, component):
            if one["apiVersion"].startswith(("monitoring.coreos.com/", "cert-manager.io/")):
                name = f"{component.name}-{one['kind']}-{one['metadata']['name']}"
                yield pytest.param(one, id=name)


every_one = pytest.mark.parametrize("one", list(custom_resources()))


def problems(value, shape, path):
    """The differences from a shape, each with its path."""
    if isinstance(shape, type):
        if type(value) is not shape:
            yield f"{path}: {value!r} is no {shape.__name__}"
    elif isinstance(shape, list):
        if not isinstance(value, list) or not value:
            yield f"{path}: {value!r} is no list"
            return
        for number, each in enumerate(value):
            yield from problems(each, shape[0], f"{path}[{number}]")
    elif not isinstance(value, dict):
        yield f"{path}: {value!r} is no mapping"
    else:
        for key, each in value.items():
            if shape and key not in shape:
                yield f"{path}.{key} is no field"
            else:
                yield from problems(each, shape.get(key, str), f"{path}.{key}")


def scrapes(one):
    """The scrape settings of an object: its endpoints, or the object itself."""
    spec = one["spec"]
    return spec.get("podMetricsEndpoints") or spec.get("endpoints") or [spec]


@every_one
def test_its_form(one):
    """Every field exists in its API, and every value has the right type."""
    assert list(problems(one["spec"], SPECS[one["apiVersion"], one["kind"]], "spec")) == []
    assert set(one) == {"apiVersion", "kind", "metadata", "spec"}


def test_what_is_wrong_is_found():
    """An unknown field, a wrong type, a list for a mapping and a null are found."""
    shape = SPECS["monitoring.coreos.com/v1", "PodMonitor"]
    wrong = {
        "selector": [],
        "podMetricsEndpoints": [
            {"port": 8080, "honourLabels": True, "relabelings": [{"regex": 1}]}
        ],
    }
    assert list(problems(wrong, shape, "spec")) == [
        "spec.selector: [] is no mapping",
        "spec.podMetricsEndpoints[0].port: 8080 is no str",
        "spec.podMetricsEndpoints[0].honourLabels is no field",
        "spec.podMetricsEndpoints[0].relabelings[0].regex: 1 is no str",
    ]


MONITORS = [each for each in custom_resources() if "relabelings" in str(each.values[0])]


@pytest.mark.parametrize("one", MONITORS)
def test_honest_labels(one):
    """Enriched samples keep their own labels, and end when they are gone. None gets a target's."""
    for scrape in scrapes(one):
        relabelings = scrape["relabelings"]
        assert {each.get("action", "replace") for each in relabelings} <= ACTIONS
        if scrape.get("path") == "/metrics":
            continue
        assert scrape["honorLabels"] is True
        assert scrape["honorTimestamps"] is scrape["trackTimestampsStaleness"] is True
        if one["kind"] != "ScrapeConfig":  # of a monitor's targets the operator names these
            assert relabelings[0]["action"] == "labeldrop"
            assert {"namespace", "pod", "container"} <= set(relabelings[0]["regex"].split("|"))


def test_the_operator_and_the_plain_files_do_the_same():
    """Both forms have the same relabelling for a target's labels."""
    pairs = {
        "podmonitor": ("beside", "kmproxy"),
        "podmonitor-instead": ("instead", "kubelet-cadvisor"),
        "scrapeconfig": ("central", "kubernetes-cadvisor"),
    }
    for component, (name, job) in pairs.items():
        document = yaml.safe_load((MANIFESTS / f"prometheus/{name}.yml").read_text("utf-8"))
        (plain,) = [each for each in document["scrape_configs"] if each["job_name"] == job]
        theirs = [
            {_camel(key): value for key, value in each.items()}
            for each in plain["relabel_configs"]
            if each.get("action") != "keep"  # which the monitor's own port does
        ]
        kind = "ScrapeConfig" if name == "central" else "PodMonitor"
        (one,) = [each.values[0] for each in MONITORS if each.id == f"{component}-{kind}-kmproxy"]
        ours = scrapes(one)[0]
        relabelings = [
            each
            for each in ours["relabelings"]
            if each.get("action") != "labeldrop"
            and each != {"targetLabel": "job", "replacement": job}
        ]
        assert relabelings == theirs, component


def _camel(key):
    first, *rest = key.split("_")
    return first + "".join(part.title() for part in rest)


MONITORED = {
    "podmonitor": ("recommended", "PodMonitor", "https"),
    "podmonitor-instead": ("recommended", "PodMonitor", "https"),
    "servicemonitor": ("recommended", "ServiceMonitor", "https"),
    "scrapeconfig": ("deployment", "ScrapeConfig", "HTTPS"),
}


@pytest.mark.parametrize("component", MONITORED)
def test_a_monitor_of_a_daemon_with_tls(component):
    """It verifies a name that the certificate has, and sends a token that may scrape."""
    overlay, kind, scheme = MONITORED[component]
    folders = [MANIFESTS / "components" / name for name in (component, "monitor-tls")]
    if overlay == "deployment":
        folders[:0] = [
            MANIFESTS / f"components/{name}" for name in ("tls-cert-manager", "authorization")
        ]
    objects = {(one["kind"], one["metadata"]["name"]): one for one in build(MANIFESTS / "overlays" / overlay, *folders)}  # fmt: skip
    monitor = objects[kind, "kmproxy"]
    assert list(problems(monitor["spec"], SPECS[monitor["apiVersion"], kind], "spec")) == []
    scrape = scrapes(monitor)[0]
    assert scrape["scheme"] == scheme
    certificate = objects["Certificate", "kmproxy-tls"]["spec"]
    assert scrape["tlsConfig"]["serverName"] in certificate["dnsNames"]
    assert scrape["tlsConfig"]["ca"]["secret"]["name"] == certificate["secretName"]
    secret = objects["Secret", scrape["authorization"]["credentials"]["name"]]
    (subject,) = objects["ClusterRoleBinding", "kmproxy-scraper"]["subjects"]
    assert secret["type"] == "kubernetes.io/service-account-token"
    assert (
        secret["metadata"]["annotations"]["kubernetes.io/service-account.name"] == subject["name"]
    )
    assert ("ServiceAccount", subject["name"]) in objects
    role = objects["ClusterRoleBinding", "kmproxy-scraper"]["roleRef"]["name"]
    assert objects["ClusterRole", role]["rules"] == [
        {"nonResourceURLs": ["/metrics", "/metrics/*", "/sd/*", "/upstreams/*"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]},
    ]


def test_upstreams_of_a_daemon_with_tls():
    """The targets and the exporters' metrics come over TLS, with the token that may scrape."""
    folders = [
        MANIFESTS / "components" / name
        for name in ("kube-state-metrics", "upstreams-scrapeconfig", "monitor-tls")
    ]
    objects = {
        (one["kind"], one["metadata"]["name"]): one
        for one in build(MANIFESTS / "overlays" / "recommended", *folders)
    }
    spec = objects["ScrapeConfig", "kmproxy-upstreams"]["spec"]
    shape = SPECS["monitoring.coreos.com/v1alpha1", "ScrapeConfig"]
    assert list(problems(spec, shape, "spec")) == []
    (targets,) = spec["httpSDConfigs"]
    assert spec["scheme"] == "HTTPS"
    assert targets["url"] == "https://kmproxy.kmproxy-system.svc:8080/sd/upstreams"
    for key in ("tlsConfig", "authorization"):
        assert targets[key] == spec[key]
    assert spec["honorLabels"] is True
