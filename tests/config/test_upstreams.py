"""The `upstreams` section: what its keys mean, and every problem with its own line."""

from __future__ import annotations

import pytest

from kmproxy.cli.read import read_config
from kmproxy.config.http_options import Access, Authorization
from kmproxy.config.loader import Layer, load
from kmproxy.config.types import File
from kmproxy.config.upstreams import MAX_UPSTREAMS, OWN_KEYS, read_upstreams
from kmproxy.errors import ConfigError

KSM = {"name": "ksm", "url": "http://ksm.monitoring.svc:8080/metrics"}


def read(**more):
    """One entry, changed, without problems."""
    (entry,), problems = read_upstreams([KSM | more], "upstreams")
    assert problems == []
    return entry


def wrong(**more):
    """What is wrong with one entry."""
    document = {key: value for key, value in (KSM | more).items() if value is not ...}
    return read_upstreams([document], "upstreams")[1]


def loaded(tmp_path, text, *flags):
    """The configuration with a YAML file."""
    path = tmp_path / "config.yaml"
    path.write_text(text)
    return read_config([f"--config={path}", *flags])


def refused(tmp_path, text, *flags):
    """The problems of a YAML file, without the file's name."""
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text, *flags)
    return [each.rpartition(" (")[0] or each for each in raised.value.problems]


def test_the_least_entry():
    """A name and a URL: the label `namespace`, text, no credential."""
    entry = read()
    assert (entry.name, entry.url) == ("ksm", "http://ksm.monitoring.svc:8080/metrics")
    assert (entry.namespace_labels, entry.prefixes) == (("namespace",), ())
    assert not entry.openmetrics
    assert entry.access == Access()


def test_every_key(tmp_path):
    """An entry of a file, with the keys of the HTTP client beside its own."""
    config, warnings = loaded(
        tmp_path,
        """
        upstreams:
          - name: istio
            url: HTTPS://Istiod.istio-system.svc:15014/metrics?x=Y
            namespace-labels: {source_workload_namespace: source_, destination: destination_}
            format: openmetrics
            authorization: {credentials_file: /token}
            tls_config: {ca_file: /ca.crt, server_name: istiod}
            http_headers: {X-Scope-OrgID: me}
            follow_redirects: false
        """,
    )
    (entry,) = config.upstreams
    assert warnings == []
    assert entry.url == "https://istiod.istio-system.svc:15014/metrics?x=Y"
    assert entry.shown == "https://istiod.istio-system.svc:15014/metrics"
    assert entry.namespace_labels == ("source_workload_namespace", "destination")
    assert entry.prefixes == ("source_", "destination_")
    assert entry.openmetrics
    assert entry.access.credential == Authorization(File("/token"), "authorization")
    assert entry.access.tls.ca == File("/ca.crt")


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://ksm/metrics", "ksm:80"),
        ("https://ksm/metrics", "ksm:443"),
        ("https://[fd00::1]/metrics", "[fd00::1]:443"),
        ("http://127.0.0.1:9100", "127.0.0.1:9100"),
        ("http://localhost:9100/", "localhost:9100"),
        ("http://169.254.1.1:9100/", "169.254.1.1:9100"),
    ],
)
def test_the_place_of_a_url(url, place):
    """Its host and port, or the scheme's own. A literal loopback or link-local address is meant."""
    assert read(url=url).place == place


def test_a_query_is_not_shown():
    """It may hold a key."""
    entry = read(url="http://ksm:8080/metrics?token=hunter2")
    assert "hunter2" not in repr(entry) + entry.shown + entry.place


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "a" * 64, 7, None, "a\n"]
)
def test_bad_names(name):
    """A name is a part of a path and a value of a label."""
    (problem,) = wrong(name=name)
    assert "name: the value is not [a-z0-9]([-a-z0-9]*[a-z0-9])?" in problem


@pytest.mark.parametrize("name", ["a", "0", "a-b", "a" * 63])
def test_good_names(name):
    """What a DNS label may be."""
    assert read(name=name).name == name


@pytest.mark.parametrize("name", ["kubelet", "apiserver"])
def test_names_of_our_own_upstreams(name):
    """The metric `kmproxy_upstream_errors_total` has them already."""
    (problem,) = wrong(name=name)
    assert problem.startswith(f"upstreams[{name}].name: {name!r} is the name of another upstream")


@pytest.mark.parametrize(
    "url",
    [
        *("", "ksm:8080", "//ksm/metrics", "ftp://ksm/metrics", "http://", "http:///metrics"),
        *("http://ksm:0/", "http://ksm:99999/", "http://ksm:x/", "http://k sm/", "http://k\tsm/"),
        *("http://ksm\\@evil/", "http://k\u00e4se/", "http://[::1", "http://[fe80::1%25eth0]/"),
        *("http://a,b/", 8080, None, ["http://ksm/"]),
    ],
)
def test_bad_urls(url):
    """The value is not shown, as it may hold a password."""
    (problem,) = wrong(url=url)
    assert problem.startswith("upstreams[ksm].url: the value is not a URL such as http://")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://me:hunter2@ksm/metrics", "the URL must not contain a user or a password"),
        ("http://me@ksm/metrics", "the URL must not contain a user or a password"),
        ("http://ksm/metrics#x", "the URL must not contain a fragment (#)"),
        ("http://ksm/metrics#", "the URL must not contain a fragment (#)"),
        ("http://0.0.0.0/", "an address that no exporter can have"),
        ("http://[::]/", "an address that no exporter can have"),
        ("http://224.0.0.1/", "an address that no exporter can have"),
        ("http://127.1/", "neither a host name nor an IP address"),
        ("http://2130706433/", "neither a host name nor an IP address"),
        ("http://0x7f.1/", "neither a host name nor an IP address"),
        ("http://a.0x7f/", "neither a host name nor an IP address"),
    ],
)
def test_urls_that_are_not_taken(url, why):
    """Each says why, and none is repeated."""
    (problem,) = wrong(url=url)
    assert why in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ([], "the value is empty"),
        ({}, "the value is empty"),
        ("namespace", "a list of labels is expected"),
        (None, "a list of labels is expected"),
        (["name space"], "'name space' is not a label name"),
        ([""], "'' is not a label name"),
        (["__name__"], "begins with two underscores"),
        ([7], "a label is one text"),
        (["namespace", "namespace"], "the list repeats 'namespace'"),
        ([f"l{number}" for number in range(17)], "17 labels, at most 16"),
        ({"a": ""}, "the prefix of a is not"),
        ({"a": None}, "the prefix of a is not"),
        ({"a": "1_"}, "the prefix of a is not"),
        ({"a": "a-"}, "the prefix of a is not"),
        ({"a": "\u00e4_"}, "the prefix of a is not"),
        ({"a": "__a"}, "begins with two underscores"),
        ({"a": "x_", "b": "x_"}, "a and b have the same prefix 'x_'"),
    ],
)
def test_bad_namespace_labels(labels, why):
    """Names of labels, and with prefixes those, each of their own."""
    (problem,) = wrong(**{"namespace-labels": labels})
    assert problem.startswith("upstreams[ksm].namespace-labels: ")
    assert why in problem


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"url": ...}, "upstreams[ksm]: url is missing"),
        ({"name": ...}, "upstreams[1]: name is missing"),
        (
            {"format": "protobuf"},
            "upstreams[ksm].format: the value is neither 'text' nor 'openmetrics'",
        ),
        (
            {"formt": "text"},
            "unknown key upstreams[ksm].formt, did you mean upstreams[ksm].format?",
        ),
        (
            {"namespace_labels": ["a"]},
            (
                "unknown key upstreams[ksm].namespace_labels, "
                "did you mean upstreams[ksm].namespace-labels?"
            ),
        ),
        ({"label": ["team"]}, "unknown key upstreams[ksm].label"),
        (
            {"basic_auth": {"username": "u"}, "url": "https://ksm/"},
            "upstreams[ksm].basic_auth: password or password_file is missing",
        ),
        (
            {"follow_redirects": True},
            (
                "upstreams[ksm].follow_redirects: no redirect of an upstream is followed: "
                "write the URL that it leads to"
            ),
        ),
        (
            {"bearer_token": "hunter2"},
            (
                "upstreams[ksm].url: no credential and none of http_headers is sent over plain http: "
                "write an https URL, or leave them out"
            ),
        ),
        (
            {"http_headers": {"X-Key": "hunter2"}},
            (
                "upstreams[ksm].url: no credential and none of http_headers is sent over plain http: "
                "write an https URL, or leave them out"
            ),
        ),
        (
            {"tls_config": {"ca_file": "/ca.crt"}},
            "upstreams[ksm].tls_config: plain http has no certificate to verify",
        ),
    ],
)
def test_other_problems(more, problem):
    """Each has one line that names the entry and the key."""
    assert wrong(**more) == [problem]


@pytest.mark.parametrize(
    "document", [{}, [], None, "http://ksm/", {"name": "a", "url": "http://a/"}]
)
def test_what_is_no_list(document):
    """A mapping without dashes is a usual mistake."""
    assert read_upstreams(document, "upstreams") == (
        (),
        ["upstreams: a list of upstreams is expected here, each with name and url"],
    )


def test_an_entry_that_is_no_mapping():
    """It says which keys are expected."""
    _, (problem,) = read_upstreams([KSM, "ksm"], "upstreams")
    assert problem.startswith("upstreams[2]: a mapping with these keys is expected: name, url, ")


def test_how_many():
    """Each may have as many scrapes under way as kubelets have."""
    many = [{"name": f"u{n}", "url": "http://u/"} for n in range(MAX_UPSTREAMS)]
    assert read_upstreams(many, "upstreams")[1] == []
    _, (problem,) = read_upstreams([*many, KSM], "upstreams")
    assert problem == "upstreams: 65 upstreams, at most 64"


def test_all_problems_at_once(tmp_path):
    """Those of each entry, of the entries together and of other keys."""
    assert refused(
        tmp_path,
        """
        labels: [team]
        upstreams:
          - name: one
            url: http://one:99999/
            formatt: text
          - name: Two
            url: http://two/
            namespace-labels: []
          - name: one
            url: http://three/
          - url: http://four/
        """,
    ) == [
        "unknown key labels, did you mean label?",
        "unknown key upstreams[one].formatt, did you mean upstreams[one].format?",
        (
            "upstreams[one].url: the value is not a URL such as "
            "http://kube-state-metrics.monitoring.svc:8080/metrics"
        ),
        "upstreams[2].name: the value is not [a-z0-9]([-a-z0-9]*[a-z0-9])? of at most 63 characters",
        "upstreams[2].namespace-labels: the value is empty: leave the key out, or name a label",
        "upstreams[one].name: entries 1 and 3 have this name",
        "upstreams[4]: name is missing",
    ]


MESH = """
upstreams:
  - name: mesh
    url: http://mesh/
    namespace-labels: {source_ns: source_, dst: destination_}
"""


@pytest.mark.parametrize(
    ("text", "flags", "what"),
    [
        (MESH, ["--label=k=ns"], "'source_' before 'ns' makes 'source_ns', which is a namespace label"),
        (
            MESH,
            ["--label=team", "--label=k=source_team"],
            ("'source_' before 'team' makes 'source_team', which is the label of the rule for "
            "'source_team'"),
        ),
        (
            MESH.replace("destination_}", "source_x_}"),
            ["--label=k=x_team", "--label=team"],
            ("'source_x_' before 'team' makes 'source_x_team', which is made by 'source_' before "
            "'x_team', too"),
        ),
        (MESH.replace("source_ns: source_", "a: name"), ["--label=k=space"],
         "'name' before 'space' makes 'namespace', which is a namespace label"),
        (MESH.replace("source_ns: source_", "a: _"), ["--label=k=_x"],
         ("'_' before '_x' makes '__x', which begins with two underscores, "
         "which Prometheus keeps for itself")),
        (
            MESH.replace("destination_}", "source_x_}"),
            ["--label=*"],
            ("with '*', labels of 'source_' and of 'source_x_' may have one name: "
            "let no prefix begin with another"),
        ),
        (
            "upstreams: [{name: mesh, url: 'http://m/', namespace-labels: [exported_namespace]}]",
            ["--label=k=exported_namespace"],
            "a rule makes 'exported_namespace', which is a namespace label",
        ),
    ],
)  # fmt: skip
def test_labels_that_collide(tmp_path, text, flags, what):
    """No sample may get a label twice, and none may lose the label that names its namespace."""
    assert refused(tmp_path, text, *flags) == [f"upstreams[mesh].namespace-labels: {what}"]


def test_labels_that_do_not_collide(tmp_path):
    """Several rules and prefixes, and the key `*`."""
    config, _ = loaded(tmp_path, MESH, "--label=team", "--label=*", "--annotation=a=cost")
    assert config.upstreams[0].prefixes == ("source_", "destination_")


def test_only_in_yaml(tmp_path):
    """A flag of that name is unknown, and a variable is ignored with a warning."""
    with pytest.raises(ConfigError, match="unknown flag --upstreams"):
        read_config(["--upstreams=http://ksm/"])
    _, (warning,) = read_config([], {"KMPROXY_UPSTREAMS": "x"})
    assert "KMPROXY_UPSTREAMS names no setting and is ignored" in warning


def test_own_keys_are_none_of_a_client():
    """The `kubelet` section does not take them."""
    with pytest.raises(ConfigError) as raised:
        load([Layer("f", "", {"kubelet": dict.fromkeys(OWN_KEYS, "x")})])
    assert len(raised.value.problems) == len(OWN_KEYS)
