"""The revision of the source from which kmproxy was built, or that a checkout of it holds.

Knows the file that a build leaves beside this one, and git in a checkout.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_REVISION = re.compile(r"[0-9A-Za-z._-]{1,64}")


def revision() -> str:
    """Returns the revision that the build was given, such as a commit's hash; empty without one."""
    try:
        text = Path(__file__).with_name("REVISION").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if _REVISION.fullmatch(text) else ""


def checkout_revision() -> str:
    """Returns the commit of the checkout that this file is in; empty without git.

    `-dirty` follows if files differ from the commit. An installation inside the work tree of
    something else is no checkout.
    """
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists() or not (checkout / "pyproject.toml").exists():
        return ""
    import subprocess  # noqa: PLC0415 - the daemon starts no program

    command = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(  # noqa: S603 - the command is fixed
            command, cwd=checkout, env=environment, capture_output=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    text = done.stdout.decode("ascii", "replace").strip()
    return text if _REVISION.fullmatch(text) else ""
