"""Inspection: what is in a file, found out by a process that can be stopped. A thread could not be."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from typing import BinaryIO

import structlog

from services.document import decoder
from services.document.domain import Inspection
from services.document.objects import Objects

AT_ONCE = 2
"""Files beside each other: each takes a core, and up to 1 GiB for the pixels of the largest images."""
LONGEST_SECONDS = 60.0
"""On a busy machine. Processor time is limited more closely: see decoder.py."""

_log = structlog.get_logger()

_ROOT = Path(__file__).parents[2]
_BREAKING = (signal.SIGXCPU, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE)
_CAUSED_BY_THE_FILE = {*(-one for one in _BREAKING), decoder.BROKEN}


class Inspector:
    """Opens files, a few at a time. What it starts ends with it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._decoder: _Decoder | None = None

    async def inspect(self, document_id: str, content_type: str, *, read: bool = False) -> Inspection:
        """Reads a file back and opens it; with read, looks for a machine-readable zone and reads that.

        Cancelled, it leaves no process behind. Raises DocumentNotFound, and ChildProcessError or
        TimeoutError when that was no fault of the file's.
        """
        async with self._turn:
            with tempfile.TemporaryFile() as file:
                async for piece in await self._objects.read(document_id):
                    file.write(piece)
                file.seek(0)
                if not (self._decoder and self._decoder.alive):
                    self._decoder = _Decoder()
                return await self._decoder.inspect(file, content_type, read=read)


class _Decoder:
    """The process that forks one for each file: see decoder.py. It knows nothing of what this process knows.

    This process cannot fork: gRPC's handlers of a fork abort the child now and then. Popen's is a vfork.
    """

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services.document.decoder"],
                stdin=theirs.fileno(),
                cwd=_ROOT,
                env={"OPENBLAS_NUM_THREADS": "1"},  # what has threads cannot be forked
            )
        weakref.finalize(self, _end, self._process, self._requests)

    @property
    def alive(self) -> bool:
        """Whether it still takes files."""
        return self._process.poll() is None

    async def inspect(self, file: BinaryIO, content_type: str, *, read: bool) -> Inspection:
        """Opens a file. Cancelled, it waits until the process for it has ended."""
        answer, theirs = socket.socketpair()
        with answer:
            answer.setblocking(False)
            with theirs:
                try:
                    socket.send_fds(
                        self._requests, [decoder.request(content_type, read=read)], [file.fileno(), theirs.fileno()]
                    )
                except BrokenPipeError as error:
                    raise ChildProcessError from error
            ending = asyncio.create_task(_all_of(answer))
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    output = await asyncio.shield(ending)
            except BaseException:  # a cancelled inspection, too
                answer.shutdown(socket.SHUT_WR)
                await ending
                raise
        return _inspection(output.decode(), content_type)


def _end(process: "subprocess.Popen[bytes]", requests: socket.socket) -> None:
    requests.close()
    process.wait()


async def _all_of(answer: socket.socket) -> bytes:
    output = b""
    while piece := await asyncio.get_running_loop().sock_recv(answer, 4096):
        output += piece
    return output


def _inspection(output: str, content_type: str) -> Inspection:
    found, told, exit_code = output.rpartition("\n")
    if not told:
        raise ChildProcessError
    if int(exit_code) in _CAUSED_BY_THE_FILE:
        _log.warning("decoder broken by a file", signal=-int(exit_code), content_type=content_type)
        return Inspection("It cannot be read: it takes too long, or breaks what reads it.")
    if int(exit_code):
        raise ChildProcessError(exit_code)
    fields = json.loads(found)
    return Inspection(**{**fields, "mrz": tuple(fields["mrz"])})
