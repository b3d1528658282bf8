"""The header of basic authentication."""

from __future__ import annotations

import base64


def basic(text):
    """The Authorization header of a user and a password."""
    return "Basic " + base64.b64encode(text.encode()).decode()
