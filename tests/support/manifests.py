"""Every overlay, alone and with its components, as parameters; and objects by name."""

from __future__ import annotations

import pytest

from tests.support.overlays import OVERLAYS, pairs


def by_name(objects):
    """The objects by what identifies them."""
    return {(one["apiVersion"], one["kind"], one["metadata"]["name"]): one for one in objects}


every_pair = pytest.mark.parametrize(
    ("overlay", "components"),
    [pytest.param(*pair, id="+".join([pair[0], *pair[1]])) for pair in pairs()],
)
every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)
