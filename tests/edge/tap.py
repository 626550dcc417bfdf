"""A tap between a process and a server of this machine: it can be closed after so many bytes."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PIECE_BYTES = 64 * 1024


class Tap:
    """Passes connections on, from a port of its own."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._left: int | None = None
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.port: int = self._listener.getsockname()[1]

    def close_after(self, size: int) -> None:
        """Lets so many more bytes of answers through, then breaks every connection that is there or comes."""
        self._left = size

    def open(self) -> None:
        """Lets all through again."""
        self._left = None

    def serve(self) -> None:
        """Runs until it is ended."""
        with suppress(OSError):
            while True:
                outer, _ = self._listener.accept()
                self._open.append(outer)
                try:
                    inner = socket.create_connection(("127.0.0.1", self._behind))
                except ConnectionRefusedError:
                    _break(outer)
                    continue
                self._open.append(inner)
                self._start(outer, inner, False)
                self._start(inner, outer, True)

    def end(self) -> None:
        """Breaks all connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            _break(one)
        for thread in self._threads:
            thread.join()
        for one in self._open:
            one.close()

    def _start(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        self._threads.append(threading.Thread(target=self._copy, args=(source, target, counted)))
        self._threads[-1].start()

    def _copy(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with suppress(OSError):
            while self._left != 0 and (data := source.recv(PIECE_BYTES)):
                if counted and self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                target.sendall(data)
        _break(source)
        _break(target)


def _break(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)


@contextmanager
def tapped(behind: int) -> Iterator[Tap]:
    """Runs one."""
    tap = Tap(behind)
    thread = threading.Thread(target=tap.serve)
    thread.start()
    try:
        yield tap
    finally:
        tap.end()
        thread.join()
