"""The documents agree with the code: README.md, docs/ and others."""

from __future__ import annotations

import re

import bcrypt
import pytest
import yaml

from kmproxy.config.http_client import KEYS
from kmproxy.config.loader import Layer, load
from kmproxy.config.sections import SECTIONS
from kmproxy.config.web import Pem
from kmproxy.daemon.metrics import OwnMetrics
from kmproxy.telemetry import _REASONS as REASONS
from kmproxy.web.config_file import read_web_config
from tests.support.documents import (
    ALL,
    PAGES,
    README,
    ROOT,
    anchors,
    block,
    blocks,
    headings,
    is_a_test,
    links,
    section,
)
from tests.support.modules import FOLDERS, PLAIN
from tests.support.own_metrics import log_names, shown_names
from tests.support.setting_rows import setting_rows

WORDS = 2500
"""The README's limit: a reader has it in ten minutes."""


def rows():
    """The table of settings, made from the settings."""
    return setting_rows(SECTIONS.values())


def test_the_table_of_settings():
    """Every setting has its row, from the same field as its flag."""
    table = "\n".join(rows())
    page = PAGES["docs/configuration.md"]
    between = re.search(r"<!-- settings -->\n(.*)\n<!-- /settings -->", page, re.DOTALL)
    assert between[1] == table


def test_the_most_wanted_settings():
    """Five rows of that table, unchanged."""
    shown = re.findall(r"^\| `--.*$", PAGES[README], re.MULTILINE)
    assert len(shown) == 5
    assert set(shown) <= set(rows())


def test_the_table_of_metrics():
    """Every own metric has its row, and no document names another."""
    ours, logs = set(shown_names(OwnMetrics().registry)), set(log_names())
    table = section("docs/operations.md", "Metrics")
    assert set(re.findall(r"`(kmproxy_\w+)", table)) == ours
    table = section("docs/operations.md", "Metrics of `kmproxy logs`")
    assert set(re.findall(r"`(kmproxy_\w+)", table)) == logs
    assert set(re.findall(r"`(kmproxy_\w+)", ALL)) == ours | logs


def test_the_page_of_the_architecture():
    """Every folder and top-level module stands on its level and in the table."""
    picture = next(each.text for each in blocks("docs/architecture.md") if "level" in each.text)
    table = section("docs/architecture.md", "The folders")
    assert set(re.findall(r"(\w+)/(?= |\n)", picture)) - {"kmproxy"} == set(FOLDERS)
    assert set(re.findall(r"^\| `(\w+)/` \|", table, re.MULTILINE)) == set(FOLDERS)
    beside = {name for name in PLAIN if "." not in name} - {"__main__", "revision"}
    assert set(re.findall(r"(\w+)\.py", picture)) == beside


def test_the_yaml_example():
    """The documented configuration is valid."""
    example = block("label: ")
    config, warnings = load([Layer("README", "", yaml.safe_load(example))])
    assert [rule.name for rule in config.labels.rules] == ["team", "cost_center"]
    assert warnings == []


def test_kubelet_access():
    """The documented section is valid, and every key of it has a row."""
    part = section("docs/configuration.md", "Kubelet access")
    example = block("kubelet:\n  oauth2:")
    assert example in part
    config, warnings = load([Layer("README", "", yaml.safe_load(example))])
    assert config.access.credential.client_id == "kmproxy"
    assert config.access.tls.min_version == "TLS13"
    assert warnings == []
    for name, keys in KEYS.items():
        for key in [name, *keys] if name else keys:
            assert f"`{key}`" in part, key


def test_the_web_config_example(tmp_path):
    """It is valid beside a certificate, and requires all that it names."""
    example = block("tls_server_config:")
    (tmp_path / "web.yaml").write_text(example)
    config = read_web_config(str(tmp_path / "web.yaml"))
    assert config.tls.certificate == Pem(str(tmp_path / "tls.crt"))
    assert config.tls.client_auth == "RequireAndVerifyClientCert"
    assert config.tls.client_sans == {"prometheus.example.com"}
    assert bcrypt.checkpw(b"example", config.users["prometheus"].encode())
    assert config.headers == (("X-Content-Type-Options", "nosniff"),)
    assert config.asks


def test_the_table_of_threats():
    """Every test named in the table exists."""
    table = section("docs/security.md", "Threats").partition("\n")[2]
    rows = [line.strip("|").split("|") for line in table.strip().splitlines()[2:]]
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert len(rows) > 10
    for _, threat, stops, _, tests in rows:
        named = re.findall(r"`(\w+)`", tests)
        assert threat.strip()
        assert stops.strip()
        assert named, threat
        assert set(named) <= there, set(named) - there


def test_the_image():
    """It runs unprivileged, and its last step removes pip, apt and the shells."""
    final = (ROOT / "Dockerfile").read_text("utf-8").rpartition("\nFROM ")[2]
    assert "USER 65532:65532\n" in final
    assert 'ENTRYPOINT ["kmproxy"]' in final
    labels = dict(re.findall(r"org\.opencontainers\.image\.([\w.]+)=(\S+)", final))
    assert (
        labels.items()
        >= {
            "revision": "$REVISION",
            "version": "$VERSION",
            "created": "$CREATED",
            "base.name": "$BASE",
        }.items()
    )
    assert {"title", "description", "licenses", "url", "source", "documentation"} <= labels.keys()
    (run,) = re.findall(r"^RUN (.*?[^\\])\n", final, re.MULTILINE | re.DOTALL)
    for gone in ("uninstall --yes", " /usr/bin/apt*", " /usr/bin/dpkg*", " /bin/sh", " /bin/bash"):
        assert gone in run


# What runs each block of code: a test, or a script of .ci; by how the block begins.
RUN_BY = {
    "make run\n": ".ci/demo",
    "kmproxy demo: 2 nodes": "test_examples.test_try_it",
    "make run ARGS=--logs": "test_demo_logs.test_a_namespace_moves",
    "kmproxy demo: the containers of node-1": "test_demo_logs.test_the_example_of_the_documents",
    "curl -s http://localhost:8080/metrics/cadvisor | grep": "test_examples.test_try_it",
    'container_cpu_usage_seconds_total{container="api"': "test_examples.test_try_it",
    "kubectl --server=http://localhost:8001 label": "test_examples.test_try_it",
    "$ kubectl --server=http://localhost:8001 get namespaces": "test_examples.test_labels_without_a_daemon",
    "make docker-build docker-push": "test_examples.test_make_builds_and_pushes_the_image",
    "kind create cluster": "test_make_deploy.test_the_development_overlay",
    "helm install kmproxy": "test_chart_release.test_the_documents_install_it",
    "apiVersion: kustomize": "test_manifests_documented.test_the_example_of_a_component",
    "openssl req ": "test_manifests_documented.test_the_example_of_a_certificate",
    "kubectl get secret kmproxy-tls": "test_manifests_documented.test_the_example_of_the_ca",
    "scheme: https\n": "test_prometheus.test_the_lines_for_tls_of_the_documents",
    "$ kubectl exec -n kmproxy-system": "test_overlays.test_check_in_the_pod",
    "✓ identity": "test_preflight.test_the_example_of_the_documents",
    "kubelet:\n  serviceMonitor:": "test_examples.test_the_values_of_the_stack",
    "tls_server_config:": "test_secure.test_the_web_config_of_the_documents",
    "kubelet:\n  oauth2:": "test_readme.test_kubelet_access",
    "upstreams:\n  - name: kube-state-metrics\n    url: http:": "test_upstreams.test_the_examples_of_upstreams",
    "upstreams:\n  - name: pushgateway": "test_upstreams.test_the_examples_of_upstreams",
    "upstreams:\n  - name: kube-state-metrics\n    url: https:": "test_upstreams.test_the_examples_of_upstreams",
    "scrape_configs:\n  - job_name: upstreams": "test_upstreams.test_the_scrape_job_of_upstreams",
    "kmproxy serve --workload": "test_pod_labels.test_the_example_of_the_documents",
    "container_memory_working_set_bytes{": "test_pod_labels.test_the_example_of_the_documents",
    "kmproxy logs --loki-url": "test_logs_page.test_the_command",
    "loki-url: https": "test_logs_page.test_the_example",
    "label: [team,": "test_readme.test_the_yaml_example",
    "curl -s 'http://localhost:8080/metrics/cadvisor?namespace=": "test_examples.test_a_request_narrows",
    "sum by (namespace, pod) (": "test_joins.test_a_daemonset",
    "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: { name: kmproxy-reviews": "test_middleware.test_the_roles_of_the_documents",
    "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: { name: kmproxy-scrape": "test_middleware.test_the_roles_of_the_documents",
    "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: { name: kmproxy-tenant": "test_tenants.test_the_roles_of_the_documents",
    "user 'system:serviceaccount:monitoring:prometheus' may not": "test_middleware.test_the_refusal_of_the_documents",
    "curl -s -H 'Accept: application/json'": "test_serving.test_the_command_of_the_documents",
    "curl -s http://localhost:8080/sd/pods": "test_examples.test_targets",
    '{"targets":["10.244.': "test_examples.test_targets",
    "$ make load\n": "test_load.test_a_small_load",
    "make test\n": ".ci/run",
    "$ make pair": "test_pair.test_a_small_pair",
    "collected ": "test_examples.test_one_file",
    "make e2e\n": "test_examples.test_make_e2e",
    "tests/cluster/": "test_examples.test_make_e2e",
    "args:\n": "test_examples.test_arguments_of_kubelet_meta_proxy",
    "sum by (team) (rate(": "test_rules.test_the_joins_of_the_documents",
    'sum by (label_team) (\n    rate(container_cpu_usage_seconds_total{container!=""}[5m])\n'
    "  * on (namespace) group_left (label_team)\n    kube_": "test_rules.test_the_joins_of_the_documents",
    'sum by (label_team) (\n    rate(container_cpu_usage_seconds_total{container!=""}[5m])\n'
    "  * on (namespace) group_left (label_team)\n    max": "test_rules.test_the_joins_of_the_documents",
}


def sources(*patterns):
    """Shipped files and tests, with the indentation of their lines removed."""
    for pattern in patterns:
        for path in ROOT.glob(pattern):
            yield "\n".join(line.lstrip() for line in path.read_text("utf-8").splitlines())


def test_every_example_is_run():
    """Every block is run by a test, or is part of a shipped file. No entry is left over."""
    shipped = {path.read_text("utf-8") for path in (ROOT / "manifests").rglob("*.y*ml")}
    code = "\n".join(sources("kmproxy/**/*.py", "tests/**/*.py"))
    listed = {start: set() for start in RUN_BY}
    unknown = []
    for page, language, text in blocks():
        starts = [start for start in RUN_BY if text.startswith(start)]
        for start in starts:
            listed[start].add(text)
        picture = "────" in text
        if language == "python":
            shown = "\n".join(line.lstrip() for line in text.splitlines())
            known = shown in code
        else:
            known = starts or picture or any(text in whole for whole in shipped)
        if not known:
            unknown.append((page, text))
    assert unknown == []
    assert [start for start, texts in listed.items() if len(texts) != 1] == []


@pytest.mark.parametrize("runner", sorted(set(RUN_BY.values())))
def test_what_runs_an_example_exists(runner):
    """The named test exists, or the named script of .ci has the command."""
    if runner.startswith(".ci/"):
        (command, *_) = [start.strip() for start, by in RUN_BY.items() if by == runner]
        assert command in (ROOT / runner).read_text("utf-8")
    else:
        module, _, function = runner.partition(".")
        assert is_a_test(module, function)


def test_the_readme_is_short():
    """The README has a maximum length. Longer text is in docs/."""
    assert len(PAGES[README].split()) < WORDS


@pytest.mark.parametrize("page", PAGES)
def test_every_link_resolves(page):
    """A relative link leads to an existing file, and to one of its headings."""
    for link in links(page):
        path, _, anchor = link.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.exists(), link
        if anchor:
            assert anchor in anchors(str(there.resolve().relative_to(ROOT))), link


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_is_there(page):
    """A named source file or test exists, by its path or its name."""
    for path in re.findall(r"`((?:[\w.-]+/)*[\w-]+\.py)`", PAGES[page]):
        places = [ROOT / path, ROOT / "kmproxy" / path, ROOT / "tests" / path]
        there = any(place.exists() for place in places)
        there = there or ("/" not in path and any((ROOT / "tests").rglob(path)))
        assert there, path


def test_every_page_can_be_found():
    """The README leads to each page of docs/ in one step or two."""
    found, ahead = set(), {README}
    for _ in range(2):
        ahead = {
            str(((ROOT / page).parent / link.partition("#")[0]).resolve().relative_to(ROOT))
            for page in ahead
            for link in links(page)
        } & PAGES.keys()
        found |= ahead
    assert {page for page in PAGES if page.startswith("docs/")} <= found


def test_the_glossary():
    """Each term occurs once, is explained in two or three sentences, and is used."""
    page = "docs/glossary.md"
    terms = [title for _, level, title in headings(page) if level == 3]
    assert len(terms) == len(set(terms)) > 30
    others = "\n".join(text for name, text in PAGES.items() if name != page).lower()
    for term in terms:
        assert len(section(page, term).split()) < 60, term
        assert term.lower() in re.sub(r"\s+", " ", others), term


def test_the_troubleshooting():
    """Every message there is one of the code, and every reason is explained."""
    page = "docs/troubleshooting.md"
    code = re.sub(r'"\s*\n\s*f?"', "", "\n".join(sources("kmproxy/**/*.py")))
    code = re.sub(r"\{[^{}]*name\}", "kubelet", code)
    for title in (
        *("The process ends", "A scrape fails", "The kubelet", "An upstream", "The API server"),
    ):
        for row in section(page, title).splitlines():
            if row.startswith("| ") and "`" in row:
                for message in re.findall(r"`(?!kmproxy_|up )([^`]+)`", row.split("|")[1]):
                    for part in message.replace("API server's", "kubelet's").split("…"):
                        assert part.strip() in code, message
    explained = re.findall(r"`(\w+)`", " ".join(
        row.split("|")[1] for row in section(page, "Reasons").splitlines() if row.startswith("| ")
    ))  # fmt: skip
    assert sorted(explained) == sorted({*REASONS, "other"})


def test_the_news():
    """A fragment is named by its kind, and is not empty."""
    kinds = set(re.findall(r"^\| `(\w+)` \|", PAGES["changelog.d/README.md"], re.MULTILINE))
    for page in PAGES:
        if page.startswith("changelog.d/") and not page.endswith("README.md"):
            assert re.fullmatch(rf"changelog\.d/[a-z0-9-]+\.({'|'.join(kinds)})\.md", page)
            assert 5 < len(PAGES[page].split()) < 60


if __name__ == "__main__":
    print("\n".join(rows()))  # noqa: T201 - to be pasted into docs/configuration.md
