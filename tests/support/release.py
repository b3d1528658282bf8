"""What `make release` checks, and what `make version` writes: one version in all its places.

The version of `kmproxy/__init__.py` counts. The other places are in `PLACES`. At a release the
fragments of changelog.d become a section of CHANGELOG.md.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

VERSION = re.compile(r"\d+\.\d+\.\d+(?:rc\d+)?")

KINDS = {
    "breaking": "Breaking",
    "security": "Security",
    "added": "Added",
    "changed": "Changed",
    "fixed": "Fixed",
}
"""The kinds of fragments, in the order of a section, each with its heading."""


class Place(NamedTuple):
    """Files that name the version: the group of the pattern. With `must`, at least one does."""

    files: str
    pattern: str
    must: bool = True


_V = r"(\d+\.\d+\.\d+(?:rc\d+)?)"
PLACES = (
    Place("kmproxy/__init__.py", rf'^__version__ = "{_V}"$'),
    Place("pyproject.toml", rf'"kmproxy-demo=={_V}"'),
    Place("demo/pyproject.toml", rf'"kmproxy=={_V}"'),
    Place("manifests/chart/Chart.yaml", rf"^version: {_V}$"),
    Place("manifests/chart/Chart.yaml", rf'^appVersion: "{_V}"$'),
    Place("manifests/**/*.yaml", rf"^ *(?:- )?image: kmproxy:{_V}$"),
    Place("README.md", rf"registry\.example\.com/kmproxy:{_V}"),
    Place("docs/*.md", rf"registry\.example\.com/kmproxy:{_V}"),
)


def places(root: Path) -> Iterator[tuple[Path, re.Match[str], Place]]:
    """Each mention of the version, with its file."""
    for place in PLACES:
        pattern = re.compile(place.pattern, re.MULTILINE)
        for path in sorted(root.glob(place.files)):
            for found in pattern.finditer(path.read_text("utf-8")):
                yield path, found, place


def fragments(root: Path) -> dict[str, list[Path]]:
    """The fragments by kind, in order. Raises ValueError for a file of another name."""
    found: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for path in sorted((root / "changelog.d").iterdir()):
        if path.name == "README.md":
            continue
        match = re.fullmatch(r"[a-z0-9-]+\.(\w+)\.md", path.name)
        if match is None or match[1] not in KINDS:
            raise ValueError(f"changelog.d/{path.name}: the kinds are {', '.join(KINDS)}")
        found[match[1]].append(path)
    return found


def section(root: Path) -> str:
    """What the fragments say, by kind, as a part of CHANGELOG.md."""
    parts = []
    for kind, paths in fragments(root).items():
        if paths:
            items = [path.read_text("utf-8").strip().replace("\n", "\n  ") for path in paths]
            parts.append(f"### {KINDS[kind]}\n\n" + "".join(f"- {item}\n" for item in items))
    return "\n".join(parts)


def notes(root: Path) -> str:
    """The section of the version in CHANGELOG.md, without its heading. Raises ValueError without it."""
    version = next(places(root))[1][1]
    pattern = rf"^## {re.escape(version)} - [^\n]*\n(.*?)(?=^## |\Z)"
    text = (root / "CHANGELOG.md").read_text("utf-8")
    if (found := re.search(pattern, text, re.MULTILINE | re.DOTALL)) is None:
        raise ValueError(f"CHANGELOG.md: there is no section of {version}")
    return found[1].strip() + "\n"


def write_version(root: Path, version: str, date: str) -> None:
    """Write a version to all places, and the fragments to CHANGELOG.md. Removes the fragments.

    Raises ValueError if the version is none or has been released.
    """
    if VERSION.fullmatch(version) is None:
        raise ValueError(f"{version!r} is no version such as 0.2.0 or 0.2.0rc1")
    changelog = root / "CHANGELOG.md"
    text, news = changelog.read_text("utf-8"), section(root)
    if re.search(rf"^## {re.escape(version)} - \d", text, re.MULTILINE):
        raise ValueError(f"CHANGELOG.md: {version} has been released")
    heading = f"## {version} - {date}\n"
    head, first, rest = re.split(r"^(## .*\n)", text, maxsplit=1, flags=re.MULTILINE)
    if first == f"## {version} - not released yet\n":
        own, old, older = re.split(r"(^## |\Z)", rest, maxsplit=1, flags=re.MULTILINE)
        text = f"{head}{heading}{own.rstrip()}\n\n{news}" + (f"\n{old}{older}" if old else "")
    else:
        text = f"{head}{heading}\n{news}\n{first}{rest}"
    changelog.write_text(text, "utf-8")
    for paths in fragments(root).values():
        for path in paths:
            path.unlink()
    for place in PLACES:
        pattern = re.compile(place.pattern, re.MULTILINE)
        for path in root.glob(place.files):
            old = path.read_text("utf-8")
            new = pattern.sub(lambda found: found[0].replace(found[1], version), old)
            if new != old:
                path.write_text(new, "utf-8")


def problems(root: Path, tag: str = "") -> list[str]:
    """Why this tree is no release: a line each. `tag` is the tag it is built for, if there is one."""
    mentions = list(places(root))
    version = mentions[0][1][1]
    found = [
        f"{place.files}: the version is not found: {place.pattern}"
        for place in PLACES
        if place.must and not any(each[2] is place for each in mentions)
    ]
    for path, match, _ in mentions:
        if match[1] != version:
            line = path.read_text("utf-8").count("\n", 0, match.start(1)) + 1
            where = f"{path.relative_to(root)}:{line}"
            found.append(f"{where}: {match[1]}, but kmproxy/__init__.py has {version}")
    found += [
        f"{path.relative_to(root)}: the image has no version"
        for path in sorted(root.glob("manifests/**/*.yaml"))
        if "image: kmproxy:latest" in path.read_text("utf-8")
    ]
    if tag and tag != f"v{version}":
        found.append(f"the tag is {tag}, but kmproxy/__init__.py has {version}")
    return [*found, *_changelog_problems(root, version), *_git_problems(root, f"v{version}")]


def _changelog_problems(root: Path, version: str) -> Iterator[str]:
    """Why the changelog is not that of a version: its first section, or fragments that are left."""
    headings = re.findall(r"^## (.*)$", (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    if re.fullmatch(rf"{re.escape(version)} - \d{{4}}-\d\d-\d\d", headings[0]) is None:
        yield f"CHANGELOG.md: begins with {headings[0]!r}, not with {version} and its date"
    try:
        if left := sum(map(len, fragments(root).values())):
            yield f"changelog.d: {left} fragments are not in CHANGELOG.md: make version NEW={version}"
    except ValueError as error:
        yield str(error)


def _git_problems(root: Path, tag: str) -> list[str]:
    """What git says against a release: changes that are not committed, or another commit's tag."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
        return done.stdout.strip()

    if not (head := git("rev-parse", "HEAD")):
        return []
    found = []
    if git("status", "--porcelain"):
        found.append("git: there are changes that are not committed")
    if (tagged := git("rev-list", "-n1", tag, "--")) not in {"", head}:
        found.append(f"git: the tag {tag} is on another commit, {tagged[:12]}")
    return found


def main(arguments: list[str]) -> int:
    """Run one of the commands. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="tests.support.release", description=__doc__)
    parser.add_argument("command", choices=["check", "write", "news", "notes"])
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--version", default="")
    parser.add_argument("--tag", default="")
    parser.add_argument("--date", default=dt.datetime.now(dt.UTC).date().isoformat())
    given = parser.parse_args(arguments)
    try:
        if given.command == "write":
            write_version(given.root, given.version, given.date)
        elif given.command == "news":
            print(section(given.root), end="")
        elif given.command == "notes":
            print(notes(given.root), end="")
        elif found := problems(given.root, given.tag):
            print("\n".join(found), file=sys.stderr)
            return 1
        else:
            print(f"{given.root} is a release")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
