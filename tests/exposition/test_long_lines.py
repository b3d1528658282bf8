"""Lines of a megabyte: the same result as for short ones, and little memory, meanwhile and after."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from kmproxy.exposition import sample_editor, selector
from tests.support import general_lines, lines, pipeline_cases
from tests.support.documents import ROOT
from tests.support.long_lines import OPTIONS


@pytest.mark.parametrize("seed", range(4))
def test_short_lines_read_as_long_ones(monkeypatch, seed):
    """The way of the pure engine for long lines gives the same bytes and counts as the usual one."""
    rng = random.Random(seed)
    for _ in range(150):
        text = rng.randbytes(3) + b"\n" + lines.random_text(rng, rng.randrange(1, 40))
        recipe, cuts, text = pipeline_cases.pipeline_case(text)
        wanted = pipeline_cases.reading("pure", recipe, cuts, text)
        with monkeypatch.context() as patch:
            patch.setattr(sample_editor, "_LONG", 0)
            patch.setattr(selector, "_LONG", 0)
            assert pipeline_cases.reading("pure", recipe, cuts, text) == wanted, (recipe, text)


@pytest.mark.parametrize("seed", range(2))
def test_names_that_come_again_and_again(monkeypatch, seed):
    """The same for samples with many pairs of few names, of which some are to be added."""
    monkeypatch.setattr(sample_editor, "_LONG", 0)
    rng = random.Random(seed)
    readings = set()
    for _ in range(300):
        names = rng.choices([b"team", b'"tier"', b"tier", b"x", b"namespace"], k=rng.randrange(30))
        names = [n for n in names if n != b"namespace" or rng.random() < 0.1]
        pairs = [b'%b="%b"' % (name, rng.choice([b"web", b"", b"\\n"])) for name in names]
        pairs.insert(rng.randrange(len(pairs) + 1), b'exported_namespace="shop"')
        text = b"m{%b} 1\n" % b",".join(pairs)
        for setting, overwrite in product(("a list", "prefixes"), (False, True)):
            text = text.replace(b"team", b"e_team") if setting == "prefixes" else text
            options = {"setting": general_lines.SETTINGS[setting], "overwrite": overwrite}
            wanted = general_lines.by_reference(text, **options)
            assert general_lines.by_engine(text, **options) == wanted, (text, options)
            readings.add(wanted[1:])
    assert len(readings) == 5


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_label_that_names_the_namespace_and_is_added(monkeypatch, overwrite):
    """Its pair gets a new value, and other labels behind it."""
    monkeypatch.setattr(sample_editor, "_LONG", 0)
    options = {
        "labels": {b"shop": [(b"exported_namespace", b'"new"'), (b"team", b'"x"')]},
        "setting": general_lines.SETTINGS["a list"],
        "overwrite": overwrite,
    }
    text = b'm{a="1",exported_namespace="shop",b="2"} 1\n'
    wanted = general_lines.by_reference(text, **options)
    assert wanted.output.count(b'="new",team="x",b="2"}') == overwrite
    assert general_lines.by_engine(text, **options) == wanted


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="no /proc")
@pytest.mark.parametrize("option", OPTIONS)
def test_their_memory(engine, option):
    """A line takes up to 32 times its length for a moment. Hardly anything stays for each of them."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.long_lines", engine, option],
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=60,
    )
    found = json.loads(done.stdout)
    assert max(found["peaks"].values()) < 32, found
    assert found["kept"] < 1, found
