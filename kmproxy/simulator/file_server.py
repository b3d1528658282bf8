"""A file server over a real folder, as Go's `http.FileServer` is one: ranges, indexes, statuses.

Knows paths, ranges and the texts of Go's answers. Must not know which files there are, users, or
anything of the proxy under test.
"""

from __future__ import annotations

import os
import posixpath
import re
from email.utils import formatdate
from html import escape
from pathlib import Path
from urllib.parse import quote, unquote

from aiohttp import web

from kmproxy.simulator.wire import PIECE

_RANGE = re.compile(r"bytes=\s*([0-9]*)-([0-9]*)\s*", re.ASCII)
_PLAIN = "text/plain; charset=utf-8"
_KINDS = {".gz": "application/x-gzip", ".log": _PLAIN, ".html": "text/html; charset=utf-8"}


class FileServer:
    """Serves the files below `root`. Symbolic links are followed, as by Go."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"<FileServer {self.root}>"

    async def serve(self, request: web.Request, path: str) -> web.StreamResponse:
        """Answer a GET of a path below the root, which begins with a slash."""
        name = unquote(path)
        clean = posixpath.normpath("/" + name)
        if "\0" in name:
            return _text(400, "invalid path")
        place = self.root / clean.lstrip("/")
        try:
            if place.is_dir():
                if not name.endswith("/"):
                    return _moved(f"{quote(clean.rpartition('/')[2])}/")
                return _index(place)
            if name.endswith("/"):
                if not place.exists():
                    return _text(404, "404 page not found")
                return _moved(f"../{quote(clean.rpartition('/')[2])}")
            file = os.open(place, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError):
            return _text(404, "404 page not found")
        except PermissionError:
            return _text(403, "403 Forbidden")
        except OSError:
            return _text(500, "500 Internal Server Error")
        try:
            return await _content(request, file, place)
        finally:
            os.close(file)


async def _content(request: web.Request, file: int, place: Path) -> web.StreamResponse:
    """Answer with a file or a range of it. The size is the one at the beginning of the answer."""
    found = os.fstat(file)
    size = found.st_size
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Type": _KINDS.get(place.suffix, _PLAIN),
        "Last-Modified": formatdate(found.st_mtime, usegmt=True),
    }
    status, start, end = 200, 0, size
    given = request.headers.get("Range", "")
    if given and size:  # of an empty file Go answers 200, whatever the range
        span = _span(given, size)
        if span is None:
            refused = _text(416, "invalid range: failed to overlap")
            refused.headers["Content-Range"] = f"bytes */{size}"
            return refused
        start, end = span
        status = 206
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = end - start
    await response.prepare(request)
    while start < end:
        piece = os.pread(file, min(PIECE, end - start), start)
        if not piece:  # truncated meanwhile: the announced length is not reached
            if request.transport is not None:
                request.transport.abort()
            break
        start += len(piece)
        await response.write(piece)
    return response


def _span(text: str, size: int) -> tuple[int, int] | None:
    """The beginning and the end of a range, or None if it does not overlap."""
    match = _RANGE.fullmatch(text)
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return max(0, size - int(match[2])), size
    start = int(match[1])
    if start >= size:
        return None
    return start, min(size, int(match[2]) + 1 if match[2] else size)


def _index(place: Path) -> web.Response:
    """The HTML index of a folder: names only, sorted, with a slash behind a folder's."""
    names = sorted(each.name + ("/" if each.is_dir() else "") for each in os.scandir(place))
    links = "".join(f'<a href="{_href(name)}">{escape(name)}</a>\n' for name in names)
    head = '<!doctype html>\n<meta name="viewport" content="width=device-width">\n'
    body = f"{head}<pre>\n{links}</pre>\n".encode()
    return web.Response(body=body, headers={"Content-Type": "text/html; charset=utf-8"})


def _href(name: str) -> str:
    """A name as the relative URL of a link: with `./` before it if a colon could be a scheme."""
    quoted = quote(name, safe="/:@!$&'()*+,;=~-._")
    return escape(f"./{quoted}" if ":" in name.partition("/")[0] else quoted)


def _moved(where: str) -> web.Response:
    return web.Response(status=301, headers={"Location": where})


def _text(status: int, text: str) -> web.Response:
    headers = {"Content-Type": _PLAIN, "X-Content-Type-Options": "nosniff"}
    return web.Response(status=status, body=f"{text}\n".encode(), headers=headers)
