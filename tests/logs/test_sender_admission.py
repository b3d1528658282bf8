"""A sender that has to be admitted to each push: that of events, by its Lease."""

import asyncio

from tests.support.log_endpoint import line
from tests.support.loki import until


async def test_a_push_waits_for_its_admission(shipping):
    """No byte is sent before, however long the lines wait."""
    await shipping.start()
    admission = asyncio.Event()
    shipping.sender.admitted = admission.wait
    shipping.add(line("one"))
    await asyncio.sleep(0.1)
    assert shipping.endpoint.headers == []
    admission.set()
    await until(lambda: shipping.reader.left == 0)
    assert shipping.texts == {"one": 1}
