"""HTTP/2 as frames on a socket: what no well-behaved client would send."""

import socket
import struct
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self

import hpack

from tests.edge.contract.edge import AUTHORIZED

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
GET = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/api/v1/accounts")]
GET_AS_USER = [*GET, *AUTHORIZED.items()]

Fields = Iterable[tuple[str | bytes, str | bytes]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Returns the bytes of a frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def block(fields: Fields) -> bytes:
    """Returns a header block that refers to nothing that was sent before."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return encoder.encode([(_bytes(name), _bytes(value)) for name, value in fields], huffman=False)


def request(stream: int, fields: Fields = GET_AS_USER, flags: int = END_STREAM | END_HEADERS) -> bytes:
    """Returns the HEADERS of a request."""
    return frame(HEADERS, flags, stream, block(fields))


class Connection:
    """A connection with the preface sent, of which nothing more is done by itself."""

    def __init__(self, port: int, settings: bytes = b"", seconds: float = 20.0) -> None:
        self.closed = False
        self.sent = 0
        self._decoder = hpack.Decoder()
        self._received = b""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=seconds)
        self.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Sends data. Returns whether the edge takes it: not if it closed the connection, or reads no more for long."""
        try:
            self._socket.sendall(data)
        except (ConnectionError, TimeoutError):
            self.closed = True
        else:
            self.sent += len(data)
        return not self.closed

    def status_of(self, stream: int) -> int | None:
        """Returns the status that a stream is answered with, or None if it is reset or the connection closed."""
        for kind, _, number, payload in self.frames():
            if number == stream and kind == HEADERS:
                return int({str(name): str(value) for name, value in self._decoder.decode(payload)}[":status"])
            if kind == HEADERS:
                self._decoder.decode(payload)
            if (number == stream and kind == RST_STREAM) or kind == GOAWAY:
                return None
        return None

    def is_refused(self, stream: int) -> bool:
        """Reads until a stream is reset or the connection given up. Tells whether either is within the time."""
        refused = any(
            (number == stream and kind == RST_STREAM) or kind == GOAWAY for kind, _, number, _ in self.frames()
        )
        return refused or self.closed

    def is_ended(self) -> bool:
        """Reads until the edge has closed the connection. Tells whether it did within the time."""
        for _ in self.frames():
            pass
        return self.closed

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Reads type, flags, stream and payload of what comes, until the connection is closed or nothing comes."""
        while True:
            while len(self._received) >= 9:
                size = int.from_bytes(self._received[:3], "big")
                if len(self._received) < 9 + size:
                    break
                head, payload = self._received[:9], self._received[9 : 9 + size]
                self._received = self._received[9 + size :]
                yield head[3], head[4], int.from_bytes(head[5:9], "big"), payload
            try:
                received = self._socket.recv(65536)
            except ConnectionError:
                received = b""
            except TimeoutError:
                return
            if not received:
                self.closed = True
                return
            self._received += received


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")
