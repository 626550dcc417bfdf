"""Inspection: what is in a file, found out by a process that can be stopped. A thread could not be."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import weakref
from pathlib import Path
from typing import BinaryIO

import structlog

from services.document import decoder
from services.document.domain import Inspection
from services.document.objects import Objects
from services.document.spool import spooling
from services.runtime.errors import Unavailable

LONGEST_SECONDS = 60.0
"""What a busy machine takes, and no file: its processor time is limited more closely, see decoder.py."""
STOP_SECONDS = 5.0
"""How soon a process is ended that nobody waits for any more."""

_log = structlog.get_logger()

_ROOT = Path(__file__).parents[2]
_BREAKING = (signal.SIGXCPU, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGFPE)
_CAUSED_BY_THE_FILE = {*(-one for one in _BREAKING), decoder.BROKEN}


class DecoderUnavailable(Unavailable):
    """What opens files cannot be started, has ended or hangs. That is no fault of the file's."""


class Inspector:
    """Opens files. What it starts ends with it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._decoder: _Decoder | None = None

    async def inspect(self, document_id: str, content_type: str, *, read: bool = False) -> Inspection:
        """Reads a file back and opens it; with read, looks for a machine-readable zone and reads that.

        Cancelled, it leaves no process behind. Raises DocumentNotFound; ObjectStoreUnavailable, NoScratchSpace or
        DecoderUnavailable; and ChildProcessError when the process for this file was killed, which it may have caused.
        """
        async with spooling() as spool:
            async for piece in await self._objects.read(document_id):
                await spool.add(piece, spool.file.write)
            await spool.rewind()
            try:
                if not (self._decoder and self._decoder.alive):
                    self._decoder = _Decoder()
                output = await self._decoder.inspect(spool.file, content_type, read=read)
            except OSError as error:
                raise DecoderUnavailable from error
        return _inspection(output.decode(), content_type)


class _Decoder:
    """The process that forks one for each file: see decoder.py. It knows nothing of what this process knows.

    This process cannot fork: gRPC's handlers of a fork abort the child now and then. Popen's is a vfork.
    """

    def __init__(self) -> None:
        self._requests, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "services.document.decoder"],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    cwd="/",
                    env={"PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1"},  # what has threads cannot be forked
                )
            except OSError:
                self._requests.close()
                raise
        weakref.finalize(self, _end, self._process, self._requests)

    @property
    def alive(self) -> bool:
        """Whether it still takes files."""
        return self._process.poll() is None

    async def inspect(self, file: BinaryIO, content_type: str, *, read: bool) -> bytes:
        """Opens a file. Returns what is told of it. Cancelled, it waits until the process for it has ended.

        Raises OSError, TimeoutError among them.
        """
        answer, theirs = socket.socketpair()
        with answer:
            answer.setblocking(False)
            with theirs:
                request = decoder.request(content_type, read=read)
                socket.send_fds(self._requests, [request], [file.fileno(), theirs.fileno()])
            ending = asyncio.create_task(_all_of(answer))
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    return await asyncio.shield(ending)
            except BaseException:  # a cancelled inspection, too
                answer.shutdown(socket.SHUT_WR)
                await asyncio.wait([ending], timeout=STOP_SECONDS)
                if not ending.done():
                    self._process.kill()  # and with it, all that it has forked
                    await asyncio.wait([ending])
                raise


def _end(process: "subprocess.Popen[bytes]", requests: socket.socket) -> None:
    requests.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def _all_of(answer: socket.socket) -> bytes:
    output = b""
    while piece := await asyncio.get_running_loop().sock_recv(answer, 4096):
        output += piece
    return output


def _inspection(output: str, content_type: str) -> Inspection:
    found, told, exit_code = output.rpartition("\n")
    if not told:
        raise DecoderUnavailable
    if int(exit_code) in _CAUSED_BY_THE_FILE:
        _log.warning("decoder broken by a file", signal=-int(exit_code), content_type=content_type)
        return Inspection("It cannot be read: it takes too long, or breaks what reads it.")
    if int(exit_code):
        raise ChildProcessError(exit_code)
    fields = json.loads(found)
    return Inspection(**{**fields, "mrz": tuple(fields["mrz"])})
