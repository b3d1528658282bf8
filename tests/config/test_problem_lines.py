"""Problems with a section of the YAML file name the line of their key."""

from __future__ import annotations

import pytest

from kmproxy.cli.read import read_config, read_logs
from kmproxy.config.yaml_text import key_lines, parse_yaml
from kmproxy.errors import ConfigError

FILE = """\
label: [team]
kubelet:
  tls_config:
    ca_fle: /x
upstreams:
  - name: ksm
    url: ftp://a
  - url: http://user:word@a/metrics
  - name: istio
    tls_config: {insecure: true}
    namespace-labels:
      []
  - {name: nine, url: http://b, format: xml}
  - plain
"""

LINES = {
    "unknown key kubelet.tls_config.ca_fle": 4,
    "upstreams[ksm].url": 7,
    "upstreams[2]: name is missing": 8,
    "upstreams[2].url": 8,
    "unknown key upstreams[istio].tls_config.insecure": 10,
    "upstreams[istio]: url is missing": 9,
    "upstreams[istio].namespace-labels": 11,
    "upstreams[nine].format": 13,
    "upstreams[5]: a mapping": 14,
}
"""The beginning of each problem with FILE, and the line of its key."""


def problems(folder, text, read=read_config):
    """The problems with a configuration, without the path of its file."""
    path = folder / "c.yml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        read([f"--config={path}"])
    return [problem.replace(str(path), "c.yml") for problem in caught.value.problems]


def test_the_line_of_a_key(tmp_path):
    """Each problem is one line of text, and ends with the file and the line of its key."""
    found = problems(tmp_path, FILE)
    for beginning, line in LINES.items():
        (problem,) = [each for each in found if each.startswith(beginning)]
        assert problem.endswith(f" (c.yml, line {line})"), problem
        assert "\n" not in problem
    assert len(found) == len(LINES)


def test_a_name_that_two_entries_have_leads_to_no_line(tmp_path):
    """A wrong line would be worse."""
    entry = "  - {name: a, url: ftp://a}\n"
    found = problems(tmp_path, f"upstreams:\n{entry}{entry}")
    number = '  - {name: "2", url: ftp://a}\n'
    found += problems(tmp_path, f"upstreams:\n{number}  - {{url: http://a}}\n")
    assert len(found) == 5
    assert all(problem.endswith(" (c.yml)") for problem in found)


def test_sections_of_logs(tmp_path):
    """`loki` and `tenants` too."""
    text = "loki-url: http://a/loki/api/v1/push\nloki:\n  tls: {}\ntenants:\n  a: 1\n"
    found = problems(tmp_path, text, read_logs)
    assert [problem.rpartition(" (")[2] for problem in found] == [
        "c.yml, line 3)",
        "c.yml, line 5)",
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a: &x {b: 1}\nc: *x\n", {"a": 1, "a.b": 1, "c": 2}),
        ("a: &x\n  - *x\n  - b: 1\n", {"a": 1, "a[1]": 1, "a[2]": 3, "a[2].b": 3}),
        ("? [k]\n: {a: 1}\nb:\n  'c.d': 2\n", {"b": 3, "b.c.d": 4}),
        ("", {}),
    ],
    ids=["an alias", "an alias of itself", "keys that are no word", "nothing"],
)
def test_the_lines_of_keys(text, lines):
    """Of whatever `parse_yaml` reads, in a time that aliases cannot multiply."""
    if "? " not in text:
        parse_yaml(text)
    assert key_lines(text) == lines


def test_aliases_are_not_multiplied():
    """Each node is visited once."""
    levels = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 30)]
    assert len(key_lines("\n".join(["l0: &l0 {a: 1}", *levels]))) < 600
