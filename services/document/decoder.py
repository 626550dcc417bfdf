"""Opens files, each in a process of its own: one that is made to crash, fill memory or never end hurts only itself.

Usage: python -m services.document.decoder < socket. It forks a process for each file, after it has loaded what reads
documents: that takes longer than to read one. Each request comes with two descriptors: the file, and a socket on which
the Inspection is told as JSON, and then how the process ended. When that socket is closed, the process is killed; when
the socket of requests is closed, all are. What such a process can reach: see isolation.py.
"""

import dataclasses
import gc
import json
import os
import resource
import selectors
import signal
import socket
import sys
import traceback
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, BinaryIO, NoReturn

from services.document import isolation
from services.document.domain import PDF, Inspection
from services.document.reader.picture import MOST_PIXELS, TooManyPixels, open_image, open_pdf

if TYPE_CHECKING:
    from services.document.reader.models import Models

REQUEST_BYTES = 64
BROKEN = 70
"""The exit code of a process in which reading has failed."""
CPU_SECONDS = 20
MEMORY_BYTES = 3 << 29
"""1.5 GiB of addresses: what is loaded takes 400 MiB of them, and is shared."""


def request(content_type: str, *, read: bool) -> bytes:
    """Returns what asks for a file to be opened."""
    return f"{content_type} {read:d}".encode().ljust(REQUEST_BYTES)


def inspect(file: BinaryIO, content_type: str, *, read: bool = False) -> Inspection:
    """Opens a file and looks at it whole (an image) or at its first page (a PDF). Reads its zone when asked to."""
    try:
        shorter, picture = (
            open_pdf(file, read=read) if content_type == PDF else open_image(file, content_type, read=read)
        )
    except TooManyPixels:
        return Inspection(f"It has more than {MOST_PIXELS // 10**6} million pixels.")
    except Exception:  # whatever the libraries make of a broken file
        return Inspection(f"It cannot be read as {content_type}.")
    if picture is None:
        return Inspection(shorter_side=shorter)
    from services.document.reader.zone import read_zone  # noqa: PLC0415  # only for those who read

    zone = read_zone(_models(), picture)
    return Inspection(shorter_side=shorter, mrz=zone.lines, mrz_found=zone.found)


@cache
def _models() -> "Models":
    from services.document.reader.models import load  # noqa: PLC0415

    return load()


class _Server:
    """Forks a process for each request, and waits for its end."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._running: dict[int, socket.socket] = {}
        self._selector = selectors.DefaultSelector()
        self._woken, waker = socket.socketpair()
        for one in (self._woken, waker):
            one.setblocking(False)
        self._waker = waker
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker.fileno())
        self._selector.register(requests, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def serve(self) -> None:
        """Serves until the other end of the socket of requests is closed."""
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._requests:
                    if not self._take():
                        return
                elif key.fileobj is self._woken:
                    self._woken.recv(4096)
                    self._reap()
                elif key.data in self._running:  # whoever asked wants it no more
                    self._selector.unregister(key.fileobj)
                    os.kill(key.data, signal.SIGKILL)

    def end(self) -> None:
        """Ends all that still run."""
        for pid in self._running:
            os.kill(pid, signal.SIGKILL)

    def _take(self) -> bool:
        data, descriptors, *_ = socket.recv_fds(self._requests, REQUEST_BYTES, 2)
        if not data:
            return False
        content_type, read = data.decode().split()
        if read == "1":
            _models()  # once, for all that are forked from now on
        answer = socket.socket(fileno=descriptors[1])
        server, pid = os.getpid(), os.fork()
        if not pid:
            _open(server, descriptors[0], answer, content_type, read=read == "1")
        os.close(descriptors[0])
        self._running[pid] = answer
        self._selector.register(answer, selectors.EVENT_READ, pid)
        return True

    def _reap(self) -> None:
        for pid in list(self._running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                answer = self._running.pop(pid)
                with suppress(KeyError):  # whoever asked may have gone
                    self._selector.unregister(answer)
                with suppress(BrokenPipeError):
                    answer.sendall(f"\n{os.waitstatus_to_exitcode(status)}".encode())
                answer.close()


def _open(server: int, descriptor: int, answer: socket.socket, content_type: str, *, read: bool) -> NoReturn:
    """Opens a file, in the process that was forked for it."""
    exit_code = BROKEN
    try:
        signal.set_wakeup_fd(-1)
        isolation.confine(server, sys.stderr.fileno(), descriptor, answer.fileno())
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        with os.fdopen(descriptor, "rb") as file:
            answer.sendall(json.dumps(dataclasses.asdict(inspect(file, content_type, read=read))).encode())
        exit_code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(exit_code)


if __name__ == "__main__":
    isolation.keep_to_itself()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: whoever started it ends it
    gc.freeze()
    server = _Server(socket.socket(fileno=sys.stdin.fileno()))
    try:
        server.serve()
    finally:
        server.end()
