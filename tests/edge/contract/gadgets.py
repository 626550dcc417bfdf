"""Requests that two readers may read differently: framing, spelling and targets that HTTP/1.1 forbids, or nearly so.

Many have a lure, a request that is in the bytes only for who reads them wrongly. An honest request is to follow each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from tests.edge.contract.raw import CREDENTIAL

Outcome = Literal["refused", "length", "chunked", "empty", "served"]
"""How it is read: not at all, with the body that Content-Length says, with chunks, without a body, as a GET."""

NUMBER = b"@@@"
"""Stands in each gadget where a number goes, by which to know it again behind the edge."""
LURE = "lure"

_REFUSED: frozenset[Outcome] = frozenset({"refused"})
_NUMBERED = CREDENTIAL + b"Idempotency-Key: " + NUMBER + b"\r\n"
_UPLOAD = b"POST /api/v1/documents/upload HTTP/1.1\r\nHost: x\r\n" + _NUMBERED
_GET = b"GET /api/v1/accounts HTTP/1.1\r\n"
_LURE = b"GET /api/v1/accounts?pageToken=lure HTTP/1.1\r\nHost: x\r\n" + CREDENTIAL + b"\r\n"
_BODY = b"hello"
_CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Gadget:
    """Bytes of one request, and which readings of it are right."""

    name: str
    data: bytes
    right: frozenset[Outcome]
    body: bytes = b""
    """What Content-Length would make the body."""


def gadgets() -> list[Gadget]:
    """Returns all, each with another name."""
    every = [*_two_lengths(), *_transfer_encodings(), *_lengths(), *_chunkings(), *_header_lines(), *_request_lines()]
    return list({gadget.name: gadget for gadget in every}.values())


_TE = b"Transfer-Encoding"
_CHUNKED = [
    *(_TE + b": chunked", b"transfer-encoding: chunked", b"TRANSFER-ENCODING: CHUNKED", _TE + b": cHuNkEd"),
    *(_TE + b":chunked", _TE + b":  chunked", _TE + b": chunked ", _TE + b":\tchunked", _TE + b": chunked\t"),
    # By RFC 9112, 2.2 and 5.2, one may refuse these, or read LF as an end of line, a lone CR and a fold as a space.
    *(b"X: x\nTransfer-Encoding: chunked", b"X: x\r\r\nTransfer-Encoding: chunked", _TE + b":\n chunked"),
    *(_TE + b":\r\n chunked", _TE + b":\r\nTransfer-Encoding: chunked"),
]
# Those that some readers take for chunked.
_NOT_QUITE_CHUNKED = [
    *(_TE + b" : chunked", _TE + b"\t: chunked", _TE + b"\x00: chunked", _TE + b"\xa0: chunked", _TE + b" chunked"),
    *(b"Transfer\x00-Encoding: chunked", b"Transfer Encoding: chunked", _TE + b"= chunked", _TE + b"\r\n: chunked"),
    *(
        _TE + b": " + value
        for value in (
            *(b"\x00chunked", b"chunked\x00", b"\x0bchunked", b"chunked\x0b", b"\x0cchunked", b"chunked\x0c", b"\xff"),
            *(b"\x7fchunked", b"\xa0chunked", b"chunked\xa0", b"xchunked", b"chunkedx", b"chunk", b"'chunked'", b""),
            *(b'"chunked"', b"[chunked]", b"chunked;q=1", b"chunked; x=y", b"chunked-false", b"chunked, identity"),
            *(b"identity, chunked", b"chunked, chunked", b"chunked, cow", b"cow, chunked", b"gzip, chunked", b"cow"),
            *(b"chunked, gzip", b"gzip", b"deflate", b"identity", b",chunked", b"chunked,", b",", b"chunked chunked"),
            *(b"chunked\r\nTransfer-Encoding: cow", b"cow\r\nTransfer-Encoding: chunked", b"chun\r\n ked", b"chun ked"),
            *(b"chunked\r\nTransfer-Encoding: identity", b"identity\r\nTransfer-Encoding: chunked", b"c\xcc\xb6hunked"),
            *(b"chunked\r\nTransfer-Encoding: chunked", b"chu\xc5\x8bked", b"*"),
        )
    ),
]
# Other headers, and values of them, that only look as if they were.
_NOT_AT_ALL = [
    *(b"Transfer_Encoding: chunked", b"TransferEncoding: chunked", b"Transfer-Encodin: chunked", b"TE: chunked"),
    *(b"X-Transfer-Encoding: chunked", b"Transfer-Encoding-: chunked", b"TE: trailers, chunked", b"Trailer: X"),
    *(b"Content-Encoding: chunked", b"Trailer: Transfer-Encoding", b"X: x\r\n Transfer-Encoding: chunked"),
    *(
        b"X: x\r\n\tTransfer-Encoding: chunked",
        b"X:\r\n Transfer-Encoding: chunked",
        b"X: x\r Transfer-Encoding: chunked",
    ),
    *(
        b"X: x\rTransfer-Encoding: chunked",
        b"X: Transfer-Encoding: chunked",
        _TE + b": chunked\r\nTransfer-Encoding:",
        b"Connection: Transfer-Encoding",
    ),
]


def _two_lengths() -> Iterator[Gadget]:
    """Content-Length beside each Transfer-Encoding: right, too short and too long by a request."""
    bodies = {
        "whole": (_CHUNKS, len(_CHUNKS)),
        "short": (b"%x\r\n%s\r\n0\r\n\r\n" % (len(_LURE), _LURE), len(b"%x\r\n" % len(_LURE))),
        "long": (b"0\r\n\r\n" + _LURE, len(b"0\r\n\r\n" + _LURE)),
    }
    for line in (*_CHUNKED, *_NOT_QUITE_CHUNKED):
        for name, (body, length) in bodies.items():
            said = b"Content-Length: %d" % length
            for order, lines in (("before", (said, line)), ("after", (line, said))):
                data = _UPLOAD + b"\r\n".join(lines) + b"\r\n\r\n" + body
                yield Gadget(f"length {order} {name} {line!r}", data, _REFUSED)
    for line in _NOT_AT_ALL:
        body, length = bodies["long"]
        data = _UPLOAD + b"Content-Length: %d\r\n" % length + line + b"\r\n\r\n" + body
        yield Gadget(f"length and {line!r}", data, frozenset({"length", "refused"}), body)


def _transfer_encodings() -> Iterator[Gadget]:
    """Transfer-Encoding alone."""
    for line in _CHUNKED:
        yield Gadget(f"alone {line!r}", _UPLOAD + line + b"\r\n\r\n" + _CHUNKS, frozenset({"chunked", "refused"}))
    for line in _NOT_QUITE_CHUNKED:
        yield Gadget(f"alone {line!r}", _UPLOAD + line + b"\r\n\r\n" + _CHUNKS, _REFUSED)
    for line in _NOT_AT_ALL:
        yield Gadget(f"alone {line!r}", _UPLOAD + line + b"\r\n\r\n", frozenset({"empty", "refused"}))


def _lengths() -> Iterator[Gadget]:
    """Content-Length in all spellings."""
    for spelled in (
        *(b"5", b"5 ", b"  5", b"\t5", b"5\t", b"5\r", b"5\r\n\t", b"\r\n 5", b"05", b"0005", b"5,5", b"5, 5"),
        *(b"5\r\nContent-Length: 5", b"5\r\ncontent-length: 5", b"5\r\nConnection: Content-Length"),
    ):
        data = _UPLOAD + b"Content-Length: " + spelled + b"\r\n\r\n" + _BODY
        yield Gadget(f"length {spelled!r}", data, frozenset({"length", "refused"}), _BODY)
    for spelled in (
        *(b"+5", b"-5", b"0x5", b"5.0", b"5e0", b"5L", b"5 5", b"5;5", b"5_0", b"five", b"", b",", b"5,", b",5"),
        *(b"'5'", b'"5"', b"5\x00", b"\x005", b"5\x0b", b"\x0c5", b"\xa05", b"\xd9\xa5", b"5, 6", b"6, 5", b"0, 5"),
        *(b"5, 0", b"5\r\nContent-Length: 0", b"0\r\nContent-Length: 5", b"5\r\nContent-Length: 6", b"-1", b"5#"),
        *(b"6\r\nContent-Length: 5", b"18446744073709551621", b"99999999999999999999999999", b"0b101", b"0o5", b"5%"),
        *(b"5\r\n Content-Length: 5", b"5\nContent-Length: 0", b"5\r\n 6", b"5/2", b"NaN", b"1e400", b"\xef\xbc\x95"),
    ):
        yield Gadget(f"length {spelled!r}", _UPLOAD + b"Content-Length: " + spelled + b"\r\n\r\n" + _BODY, _REFUSED)
    for line in (b"Content-Length : 5", b"Content-Length\t: 5", b"Content-Length\x00: 5", b"Content-Length 5"):
        yield Gadget(f"length {line!r}", _UPLOAD + line + b"\r\n\r\n" + _BODY, _REFUSED)
    for line in (b"Content_Length: 5", b"ContentLength: 5", b"Content-Lengt: 5", b"X-Content-Length: 5"):
        yield Gadget(f"no length {line!r}", _UPLOAD + line + b"\r\n\r\n", frozenset({"empty", "refused"}))


def _chunkings() -> Iterator[Gadget]:
    """What is between the chunks, and after them."""
    head = _UPLOAD + _TE + b": chunked\r\n\r\n"
    for size in (
        *(b"5", b"05", b"0005", b"5;x", b"5;x=y", b'5;x="y"', b"5 ;x=y", b"5; x = y", b"5;;;", b"5 ", b"5 5", b"5\t"),
        *(b"5;" + b"x" * 1000, b"5;x=\x00", b"5;Transfer-Encoding: chunked", b"1\r\nh\r\n1\r\ne\r\n3\r\nllo\r\n0"),
    ):
        whole = size + b"\r\nhello\r\n0\r\n\r\n" if not size.endswith(b"0") or size == b"0005" else size + b"\r\n\r\n"
        yield Gadget(f"chunks {size[:60]!r}", head + whole, frozenset({"chunked", "refused"}))
    for trailer in (
        *(b"X: y", b"X-User-Id: usr_2", b"Content-Length: 99", b"Transfer-Encoding: chunked", b"Host: y", b"X:"),
        *(b"Authorization: Bearer x", b"X-User-Rpc: /x\r\nX-Envoy-Original-Path: /y", b"Grpc-Timeout: 1n"),
    ):
        data = head + b"5\r\nhello\r\n0\r\n" + trailer + b"\r\n\r\n"
        yield Gadget(f"trailer {trailer!r}", data, frozenset({"chunked", "refused"}))
    for size in (
        *(b"+5", b"-5", b"0x5", b"5h", b" 5", b"\t5", b"", b"g", b"5\x00", b"5_", b"5.0", b"5,", b"\xd9\xa5", b"5\r\r"),
        *(b"10000000000000005", b"fffffffffffffffff", b"5:5", b"5=5", b"five", b"5\r", b"5;x\r" + _LURE[:20]),
    ):
        yield Gadget(f"chunks {size[:60]!r}", head + size + b"\r\nhello\r\n0\r\n\r\n\r\n", _REFUSED)
    for chunks in (
        *(b"5\nhello\n0\n\n", b"5\nhello\r\n0\r\n\r\n", b"5\r\nhello\n0\r\n\r\n", b"5\rhello\r\n0\r\n\r\n"),
        *(b"5\r\nhello0\r\n\r\n", b"5\r\nhelloX\r\n0\r\n\r\n", b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhello\r\r\n0\r\n\r\n"),
        *(b"5;x\nhello\r\n0\r\n\r\n", b"5;\nhello\r\n0\r\n\r\n", b"2;\nxx\r\n5d\r\n0\r\n\r\n" + _LURE),
        *(b"0\r\n X: y\r\n\r\n", b"0\r\nX : y\r\n\r\n", b"0\r\nX\r\n\r\n", b"0\r\nX: \x00\r\n\r\n"),
    ):
        yield Gadget(f"chunks {chunks[:60]!r}", head + chunks + b"\r\n", _REFUSED)


def _header_lines() -> Iterator[Gadget]:
    """Lines among the headers of a GET."""
    host = b"Host: x\r\n" + _NUMBERED
    h2c = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"
    for lines in (
        *(b"X: y", b"X:", b"X:y", b"X: \t y \t", b"X: \xe9", b"Content-Length: 0", b"X: y;z,", b"TE: gzip", h2c),
        *(b"X: y\r\n z", b"X: y\r\n\tz", b"X: y\rz", b"X: y\r", b"Connection: Host", b"Connection: content-length"),
        *(
            b"Connection: transfer-encoding",
            b"Connection: ",
            b"Connection: ,,",
            b"Connection: upgrade",
            b"TE: trailers",
        ),
        *(b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"Expect: 100-continue", b"Expect: lunch"),
        *(b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /x", b"X-Rewrite-URL: /x", b"Upgrade: h2c"),
    ):
        yield Gadget(f"header {lines!r}", _GET + host + lines + b"\r\n\r\n", frozenset({"served", "refused"}))
    for lines in (
        *(b"X : y", b": y", b"X", b"X y: z", b"X: \x00", b"X\x00: y", b"X\x7f: y", b"X\xe9: y", b"X(: y", b'"X": y'),
        *(b"X: y\nContent-Length: 5\n", b"Host: y", b"Host: x", b"X: \x01", b"X: \x1b[0m", b"X: y\r\n\x00", b"X@: y"),
        *(b":authority: y", b":path: /x", b":method: POST", b"X/Y: z", b"{X}: y", b"X: y\r\n:"),
        *(b"Transfer-Encoding: chunked\r\nContent-Length: 0", b"Upgrade: websocket\r\nConnection: Upgrade"),
    ):
        yield Gadget(f"header {lines!r}", _GET + host + lines + b"\r\n\r\n", _REFUSED)
    for name in (b"", b"Host:", b"Host: ", b"Host: x y", b"Host: x\x00", b"Host: x/y", b"Host: x@y", b"Host: x,y"):
        yield Gadget(f"host {name!r}", _GET + _NUMBERED + name + b"\r\n" * (2 if name else 1), _REFUSED)
    for name in (
        b"Host: x:99999999",
        b"Host: x:y",
        b"Host: [::1",
        b"Host: \xe9",
        b"Host: x?y",
        b"Host: x#y",
        b"Host : x",
    ):
        yield Gadget(f"host {name!r}", _GET + _NUMBERED + name + b"\r\n\r\n", _REFUSED)


def _request_lines() -> Iterator[Gadget]:
    """First lines."""
    headers = b"\r\nHost: x\r\n" + _NUMBERED + b"\r\n"
    path = b"/api/v1/accounts"
    for line in (
        *(b"GET http://x" + path + b" HTTP/1.1", b"GET http://other" + path + b" HTTP/1.1", b"\r\n" + _GET[:-2]),
        *(b"GET /" + path + b" HTTP/1.1", b"GET /." + path + b" HTTP/1.1", b"GET /api/.." + path + b" HTTP/1.1"),
        *(
            b"GET https://x" + path + b" HTTP/1.1",
            b"GET http://x:y@x" + path + b" HTTP/1.1",
            b"GET /%61pi/v1/accounts HTTP/1.1",
            b"GET /%61%70i/v1/accounts HTTP/1.1",
        ),
        # RFC 9112, 3: words may be split at any white space.
        *(b"GET  " + path + b" HTTP/1.1", b"GET " + path + b"  HTTP/1.1", b"GET\t" + path + b" HTTP/1.1"),
        *(b"GET " + path + b" HTTP/1.1 ", b" GET " + path + b" HTTP/1.1", b"GET " + path + b"\tHTTP/1.1"),
    ):
        yield Gadget(f"line {line!r}", line + headers, frozenset({"served", "refused"}))
    for version in (
        *(b"HTTP/1.0", b"HTTP/0.9", b"", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3", b"http/1.1", b"HTTP/1.11", b"HTTP/01.1"),
        *(
            b"HTTP/1,1",
            b"HTTP/1.1x",
            b"HTTPS/1.1",
            b"x HTTP/1.1",
            b"HTTP/1",
            b"HTTP/-1.1",
            b"HTTP/1.\x31\x00",
            b"FTP/1.1",
        ),
    ):
        yield Gadget(f"version {version!r}", b"GET " + path + b" " + version + headers, _REFUSED)
    for target in (
        *(path + b"\x00", path + b"\x0b", b"api/v1/accounts", b"x:80", b"*", path + b"#x", b"?", b"ftp://x" + path),
        *(
            b"/api/v1/\r/accounts",
            path + b"%2f",
            b"/api%2fv1/accounts",
            path + b"%00",
            b"\\api\\v1\\accounts",
            b"http://",
        ),
        *(b"http:///api/v1/accounts", path + b"\xe9", path + b"?x=\xe9", path + b"%5c", b"//"),
        *(b"/..;" + path, b"/x/..;a=b" + path, b"/.;" + path, b"/%2e%2e;" + path, b"/x;" + path, path + b";x=1"),
    ):
        yield Gadget(f"target {target!r}", b"GET " + target + b" HTTP/1.1" + headers, _REFUSED)
    for verb in (
        *(
            b"get",
            b"GETS",
            b"TRACE",
            b"TRACK",
            b"CONNECT",
            b"OPTIONS",
            b"SSTP_DUPLEX_POST",
            b"G@T",
            b"G\x00ET",
            b"DEBUG",
        ),
        *(b"PRIS", b"\xff", b"GET,POST", b"POST GET", b'"GET"', b"Get", b"QUERY", b"M-SEARCH", b"PURGE"),
    ):
        yield Gadget(f"verb {verb!r}", verb + b" " + path + b" HTTP/1.1" + headers, _REFUSED)
    for start in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x00", b"GET", b"\x80\x00", b"\r\r\n\n", b"QUIT"):
        yield Gadget(f"start {start!r}", start + headers, _REFUSED)
