"""The revision of the source from which an installed kmproxy was built.

Knows the file that a build leaves beside this one. A checkout has no such file.
"""

from __future__ import annotations

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
