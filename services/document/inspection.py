"""Inspection: what is in a file, found out by a decoder that can be stopped. A thread could not be."""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import structlog

from services.document.domain import Inspection
from services.document.objects import Objects

AT_ONCE = 2
"""Decoders beside each other: each takes a core, and up to 1 GiB for the pixels of the largest images."""
LONGEST_SECONDS = 30.0

_log = structlog.get_logger()

_ROOT = Path(__file__).parents[2]
_CAUSED_BY_THE_FILE = {-signal.SIGXCPU, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT}


class Inspector:
    """Opens files, a few at a time."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def inspect(self, document_id: str, content_type: str) -> Inspection:
        """Reads a file back and opens it. Raises DocumentNotFound. Cancelled, it leaves no decoder behind."""
        async with self._turn:
            with tempfile.TemporaryFile() as file:
                async for piece in await self._objects.read(document_id):
                    file.write(piece)
                file.seek(0)
                return await _decode(file, content_type)


async def _decode(file: BinaryIO, content_type: str) -> Inspection:
    # Not asyncio's: uvloop forks, and gRPC's handlers of a fork abort the child now and then. This one is a vfork.
    decoder = subprocess.Popen(  # noqa: ASYNC220, S603  # it takes a millisecond, and every argument is ours
        [sys.executable, "-m", "services.document.decoder", content_type],
        stdin=file,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
        env={},  # it has no need to know what this process knows
    )
    ending = asyncio.ensure_future(asyncio.to_thread(decoder.communicate))
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            output, _ = await asyncio.shield(ending)
    except BaseException:  # a cancelled inspection, too
        decoder.kill()
        await ending
        raise
    if decoder.returncode in _CAUSED_BY_THE_FILE:
        _log.warning("decoder broken by a file", signal=-decoder.returncode, content_type=content_type)
        return Inspection("It cannot be read: it takes too long, or breaks what reads it.")
    if decoder.returncode:
        raise subprocess.CalledProcessError(decoder.returncode, "decoder")
    return Inspection(**json.loads(output))
