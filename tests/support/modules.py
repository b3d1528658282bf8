"""The modules and folders of the package."""

from __future__ import annotations

from pathlib import Path

import kmproxy

PACKAGE = Path(kmproxy.__file__).parent


MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


PLAIN = [name for name in MODULES if not name.endswith("__init__")]


FOLDERS = sorted({name.split(".")[0] for name in PLAIN if "." in name})
