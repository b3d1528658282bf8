"""The memory of a tenant's filter, for samples that name many namespaces at once."""

from __future__ import annotations

import random
import tracemalloc

from kmproxy.auth.tenant_filter import TenantFilter
from kmproxy.exposition.namespace_labels import NamespaceLabels

LABELS = [b"n%d" % number for number in range(16)]


def test_namespaces_are_remembered_not_their_combinations():
    """A sample may name 16 of 200 namespaces: no two samples name the same ones."""
    rng = random.Random(1)
    spaces = NamespaceLabels(tuple(LABELS), tuple(b"p%d_" % number for number in range(16)))
    narrowed = TenantFilter(lambda _: True, max_line=1 << 20, namespace_labels=spaces)
    held = passed = 0
    tracemalloc.start()
    try:
        for _ in range(30):
            lines = []
            for _ in range(100):
                pairs = [b'%b="%057d"' % (name, rng.randrange(200)) for name in LABELS]
                lines.append(b"m{%b} 1\n" % b",".join(pairs))
            asked = narrowed.feed(b"".join(lines))
            narrowed.decide(dict.fromkeys(asked, True))
            passed += narrowed.take().count(b"\n")
            held = max(held, tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert passed == 3000
    assert held < 1 << 20, f"{held} bytes are held"
