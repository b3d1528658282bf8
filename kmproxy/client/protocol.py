"""Reads one response for each request on a connection, and takes no other bytes.

Knows aiohttp's reader of responses. Must not know requests, or the use of a response.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError

if TYPE_CHECKING:
    import asyncio

    from aiohttp.http import RawResponseMessage
    from aiohttp.streams import StreamReader

SLICE = 1 << 14
"""Bytes that are parsed at once. They may hold hundreds of responses of a hostile server."""

MAX_INTERIM = 16
"""Interim responses (1xx) to one request, at most. No server of kmproxy's sends any."""


class Responses(ResponseHandler):
    """aiohttp's reader of responses, which ends the connection if the server sends too many.

    aiohttp alone would keep every response that arrives after the one to a request, also on an idle
    connection, in any number.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._interim = 0
        self._final: StreamReader | None = None  # the body of the response to the last request

    def set_response_params(self, **options: object) -> None:
        """Begin to read the response to a request."""
        self._interim, self._final = 0, None
        super().set_response_params(**options)  # type: ignore[arg-type] # as aiohttp passes them

    def data_received(self, data: bytes) -> None:
        """Receive bytes of the server."""
        if data and self._final is not None and self._final.is_eof():
            self._refuse()
            return
        if len(data) <= SLICE:
            super().data_received(data)
            return
        for start in range(0, len(data), SLICE):
            if self.transport is None or self.transport.is_closing():
                return
            super().data_received(data[start : start + SLICE])

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        """Take a response whose head was parsed."""
        message, body = data
        interim = 100 <= message.code < 200 and message.code != 101
        self._interim += interim
        if self._final is not None or self._interim > MAX_INTERIM:
            self._refuse()
            return
        if not interim:
            self._final = body
        super().feed_data(data, size)

    def _refuse(self) -> None:
        """End the connection. A response that is whole stays so."""
        if self.transport is not None:
            self.transport.abort()
        if self._exception is None:
            self.set_exception(HttpProcessingError(message="more responses than requests"))
