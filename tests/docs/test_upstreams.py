"""The page about upstreams: its examples are valid, and its keys and numbers are those of the code."""

from __future__ import annotations

import re

import pytest
import yaml

from kmproxy.check.upstreams import USUAL_LABELS
from kmproxy.config.loader import Layer, load
from kmproxy.config.types import File
from kmproxy.config.upstreams import MAX_LABELS, MAX_UPSTREAMS, OWN_KEYS, UpstreamConfig
from kmproxy.discovery.upstreams import UPSTREAMS
from tests.support.documents import blocks, section

PAGE = "docs/upstreams.md"
EXAMPLES = [each.text for each in blocks(PAGE) if each.text.startswith("upstreams:")]


def loaded(text):
    """The upstreams of a YAML text without problems and warnings."""
    config, warnings = load([Layer("docs", "", yaml.safe_load(text))])
    assert warnings == []
    return config.upstreams


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_of_upstreams(text):
    """Each is loaded without a warning."""
    assert loaded(text)


def test_what_the_examples_say():
    """A list, prefixes, and a credential by its file."""
    first, second, third = (loaded(text) for text in EXAMPLES)
    assert first[0].namespace_labels == ("namespace",)
    assert first[1].prefixes == ("source_", "destination_")
    assert second[0].namespace_labels == ("exported_namespace", "namespace")
    token = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    assert third[0].access.credential.credentials == File(token)
    assert isinstance(first[0], UpstreamConfig)


def test_the_scrape_job_of_upstreams():
    """It asks the path that lists the upstreams, and keeps the labels of an exporter."""
    (text,) = [each.text for each in blocks(PAGE) if each.text.startswith("scrape_configs:")]
    (job,) = yaml.safe_load(text)["scrape_configs"]
    assert job["honor_labels"]
    assert [each["url"].endswith(f":8080{UPSTREAMS}") for each in job["http_sd_configs"]] == [True]


def test_the_table_of_keys():
    """Every key of an entry has its row, and the numbers are those of the code."""
    part = section(PAGE, "Keys")
    keys = re.findall(r"^\| `([\w-]+)`(?: \||,)", part, re.MULTILINE)
    assert keys[: len(OWN_KEYS)] == list(OWN_KEYS)
    assert f"at most {MAX_UPSTREAMS} upstreams" in part
    assert f"one to {MAX_LABELS} labels" in section(PAGE, "Namespace labels")


def test_the_usual_names():
    """The preflight looks for every name on the page."""
    part = (
        section(PAGE, "Namespace labels").partition("Usual names are")[2].partition(". `kmproxy")[0]
    )
    named = re.findall(r"`(\w+)`", part)
    assert len(named) > 5
    assert set(named) <= set(USUAL_LABELS)
