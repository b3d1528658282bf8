"""Which revision of the source an installed kmproxy was built from.

Knows the file that a build leaves beside this one; in a checkout there is none.
"""

from __future__ import annotations

import re
from pathlib import Path

_REVISION = re.compile(r"[0-9A-Za-z._-]{1,64}")


def revision() -> str:
    """As the build was told, such as a commit's hash; empty where nobody said."""
    try:
        text = Path(__file__).with_name("REVISION").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return text if _REVISION.fullmatch(text) else ""
