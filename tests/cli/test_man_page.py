"""The man page, which has the texts of `--help`."""

import os
import re
import subprocess

import pytest

from kmproxy.cli.flags import COMMANDS, flags_of
from tests.support.man_page import man_page


@pytest.mark.program("groff")
def test_the_man_page():
    """Groff reads it without a warning, and it shows every command and flag with its help."""
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-rHY=0"], input=man_page(), check=True,
        capture_output=True, text=True, env=os.environ | {"GROFF_NO_SGR": "1"}, timeout=60,
    )  # fmt: skip
    assert done.stderr == ""
    shown = " ".join(re.sub("(.)\b\\1|_\b", r"\1", done.stdout).split())
    for name, (what, _) in COMMANDS.items():
        assert f"{name} {what}" in shown
        for spec, _ in flags_of(name):
            assert f"--{spec.name} {spec.metavar}".rstrip() in shown
            assert " ".join(spec.help.split()) in shown
