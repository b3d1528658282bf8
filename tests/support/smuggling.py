"""Requests that a careless server reads as two."""

from __future__ import annotations

GET = b"GET /metrics/probes HTTP/1.1\r\nHost: x\r\n"


POST = b"POST /metrics/probes HTTP/1.1\r\nHost: x\r\n"


CHUNKED = b"Transfer-Encoding: chunked\r\n"


SMUGGLING = {
    "CL and TE": POST + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "TE and CL": POST + CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n",
    "two lengths": GET + b"Content-Length: 0\r\nContent-Length: 45\r\n\r\n",
    "the same length twice": GET + b"Content-Length: 0\r\nContent-Length: 0\r\n\r\n",
    "a list of lengths": GET + b"Content-Length: 0, 0\r\n\r\n",
    "a signed length": GET + b"Content-Length: +0\r\n\r\n",
    "a negative length": GET + b"Content-Length: -1\r\n\r\n",
    "a hexadecimal length": GET + b"Content-Length: 0x0\r\n\r\n",
    "an empty length": GET + b"Content-Length: \r\n\r\n",
    "an endless length": POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "a space before the colon of CL": GET + b"Content-Length : 0\r\n\r\n",
    "a space before the colon of TE": GET + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": GET + b"Transfer-Encoding: xchunked\r\n\r\n",
    "a vertical tab before the coding": GET + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunked is not the last coding": GET
    + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": GET + CHUNKED * 2 + b"\r\n0\r\n\r\n",
    "gzip and chunked": GET + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE in HTTP/1.0": b"GET /metrics HTTP/1.0\r\nHost: x\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "chunks on GET": GET + CHUNKED + b"\r\n0\r\n\r\n",
    "a length on GET": GET + b"Content-Length: 3\r\n\r\nabc",
    "bare LF": b"GET /metrics HTTP/1.1\nHost: x\n\n",
    "bare LF in a header": GET + b"X: y\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "bare CR in a header": GET + b"X: y\r" + CHUNKED + b"\r\n0\r\n\r\n",
    "obs-fold": GET + b"X: y\r\n " + CHUNKED + b"\r\n0\r\n\r\n",
    "obs-fold of TE": GET + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "NUL in a value": GET + b"X: a\0b\r\n\r\n",
    "NUL in a name": GET + b"X\0: a\r\n\r\n",
    "NUL in the target": b"GET /metrics\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "NUL in the method": b"GET\0 /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "two hosts": GET + b"Host: y\r\n\r\n",
    "no host": b"GET /metrics HTTP/1.1\r\n\r\n",
    "a header before the first": b"GET /metrics HTTP/1.1\r\n Host: x\r\n\r\n",
    "a space in the target": b"GET /metrics /pods HTTP/1.1\r\nHost: x\r\n\r\n",
    "a header without a colon": GET + b"nonsense\r\n\r\n",
    "an empty name": GET + b": x\r\n\r\n",
    "a PROXY line": b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + GET + b"\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS on the plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "WebSocket": GET
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
    "h2c": GET
    + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
    "absolute form": b"GET http://127.0.0.1/metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "absolute form of elsewhere": b"GET https://kubernetes.default/api HTTP/1.1\r\nHost: x\r\n\r\n",
    "authority form": b"CONNECT 127.0.0.1:10250 HTTP/1.1\r\nHost: x\r\n\r\n",
    "asterisk form": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "no slash": b"GET metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "a backslash": b"GET \\metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "an endless request line": b"GET /metrics?" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "an endless header": GET + b"X: " + b"a" * 17_000 + b"\r\n\r\n",
    "an endless name": GET + b"X" * 17_000 + b": a\r\n\r\n",
    "endless headers": GET + b"".join(b"X%d: y\r\n" % n for n in range(100)) + b"\r\n",
}
