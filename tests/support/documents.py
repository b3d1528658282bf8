"""The documents: README.md and others, docs/ and changelog.d/, as a code host shows them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
README = "README.md"

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^(#+) (.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+)\)")


def read():
    """Every document by its path from the root, with its text."""
    paths = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("changelog.d/*.md")]
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in sorted(paths)}


PAGES = read()
ALL = "\n".join(PAGES.values())


class Block(NamedTuple):
    """A block of code: the document it is in, its language, and its text without indentation."""

    page: str
    language: str
    text: str


def blocks(page=None):
    """The blocks of code of a document, or of all."""
    for name, whole in PAGES.items():
        if page in {None, name}:
            for fence in _FENCE.finditer(whole):
                yield Block(name, fence[2], textwrap.dedent(fence[3]))


def block(start):
    """The code block with this beginning. If several documents have it, they are equal."""
    (found,) = {each.text for each in blocks() if each.text.startswith(start)}
    return found


def prose(page):
    """A document without its blocks of code."""
    return _FENCE.sub("", PAGES[page])


def section(page, title):
    """A document from a heading to the next one of its level or above."""
    whole = PAGES[page]
    (begin,) = [found for found in headings(page) if found[2] == title]
    later = [at for at, level, _ in headings(page) if at > begin[0] and level <= begin[1]]
    return whole[begin[0] : later[0] if later else len(whole)]


def headings(page):
    """The headings of a document: where each begins, its level, its text."""
    code = [found.span() for found in _FENCE.finditer(PAGES[page])]
    return [
        (found.start(), len(found[1]), found[2])
        for found in _HEADING.finditer(PAGES[page])
        if not any(start <= found.start() < end for start, end in code)
    ]


def anchors(page):
    """The possible link anchors of a document: its headings as a code host spells them."""
    known = []
    for _, _, title in headings(page):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        before = sum(re.fullmatch(rf"{re.escape(slug)}(-\d+)?", each) is not None for each in known)
        known.append(f"{slug}-{before}" if before else slug)
    return set(known)


def links(page):
    """The targets of a document's relative links, as they are written."""
    targets = _LINK.findall(prose(page))
    return [each for each in targets if not re.match(r"[a-z]+:", each)]


def is_a_test(module, name):
    """Whether a test file of this name, in any folder, has the test."""
    definition = re.compile(rf"^(?:async )?def {name}\(", re.MULTILINE)
    files = (ROOT / "tests").rglob(f"{module}.py")
    return any(definition.search(file.read_text("utf-8")) for file in files)
