"""The formats in which a kubelet exposes metrics: plain text and protobuf.

Must not know the metrics.
"""

from __future__ import annotations

TEXT = "text/plain; charset=utf-8"
METRICS = "text/plain; version=0.0.4; charset=utf-8; escaping="
PLAIN = METRICS + "underscores"
PROTOBUF = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; "
    "encoding=delimited; escaping=underscores"
)
PROTOBUF_BODY = b'\x15\n\x02up\x12\x04help\x18\x01"\x07\x12\x05\t' + bytes(8)


def content_type(accept: str) -> str:
    """Return the Content-Type of a metrics endpoint for this Accept."""
    if "application/vnd.google.protobuf" in accept.partition(",")[0]:
        return PROTOBUF
    utf8 = "escaping=allow-utf-8" in accept.replace(" ", "")
    return METRICS + ("allow-utf-8" if utf8 else "underscores")
