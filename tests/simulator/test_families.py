"""The tables of families are readable, and have no duplicates."""

import re

import pytest

from kmproxy.simulator.families import LABELS, SHAPES, TABLES

VALUE = re.compile(
    r"\+[\d.]+s?|\+[\d.]+[:%][\d.]+|~[\d.e]+p?|=-?[\d.]+(e\+\d+)?|=\+Inf|@[a-z_]+",
)
GROUPS = {"root", "host", "inner", "pods", "sandboxes", "containers", "limited", "claims"}
ROWS = [(endpoint, line) for endpoint, table in TABLES.items() for line in table.splitlines()]


@pytest.mark.parametrize(("endpoint", "line"), ROWS)
def test_a_family_has_name_shape_value_and_help(endpoint, line):
    """Each family has all four, and a known shape."""
    name, shape, value, text = line.split(" ", 3)
    assert re.fullmatch(r"\.?[a-z][a-z_0-9]*", name)
    assert shape.removeprefix("!") in {each.split()[0] for each in SHAPES.splitlines()}
    assert VALUE.fullmatch(value)
    assert text.strip() == text


@pytest.mark.parametrize("endpoint", TABLES)
def test_no_family_occurs_twice(endpoint):
    """A name occurs once in the table of an endpoint."""
    names = [line.split(" ")[0] for line in TABLES[endpoint].splitlines()]
    assert len(names) == len(set(names))


def test_every_shape_is_used():
    """Each shape has a family."""
    used = {line.split(" ")[1].removeprefix("!") for _, line in ROWS}
    assert {line.split()[0] for line in SHAPES.splitlines()} == used


@pytest.mark.parametrize("line", SHAPES.splitlines())
def test_a_shape_has_groups_and_labels(line):
    """Its control groups are known, and no label is both kept and added."""
    _, groups, kept, *added = line.split()
    assert set(groups.split("+")) <= GROUPS
    names = list({"*": LABELS, "-": ()}.get(kept, kept.split(",")))
    names += [pair.partition("=")[0] for pair in added]
    assert len(names) == len(set(names))
    assert all("=" in pair for pair in added)
