"""The format of log lines: text or JSON, one line for each record."""

from __future__ import annotations

import json
import logging
import sys
import time

from kmproxy.config.sections import LogConfig
from kmproxy.errors import one_line


class TextFormatter(logging.Formatter):
    """Formats a log record as one line: time in UTC, level, message."""

    def __init__(self) -> None:
        self.converter = time.gmtime
        super().__init__(
            "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%S"
        )

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the library's name
        """The record as one line, for any content of the message. A traceback follows the line."""
        return one_line(super().formatMessage(record))


class JsonFormatter(logging.Formatter):
    """Formats a log record as one JSON object in one line."""

    def __init__(self) -> None:
        self.converter = time.gmtime
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON. A traceback becomes the value of `exception`."""
        when = self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{record.msecs:03.0f}Z"
        fields = {
            "time": when,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def configure_log(config: LogConfig) -> None:
    """Send log lines to standard error, in the format and from the level that is configured."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if config.format == "json" else TextFormatter())
    logging.basicConfig(level=config.level.upper(), handlers=[handler])
