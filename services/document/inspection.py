"""Inspection: what is in a file, found out by a decoder that can be stopped. A thread could not be."""

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from services.document.domain import Inspection
from services.document.objects import Objects

AT_ONCE = 2
"""Decoders beside each other: each takes a core, and up to 1 GiB for the pixels of the largest images."""
LONGEST_SECONDS = 30.0

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
    decoder = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.document.decoder", content_type),
        stdin=file,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
        env={},  # it has no need to know what this process knows
    )
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            output, _ = await decoder.communicate()
    finally:
        if decoder.returncode is None:
            decoder.kill()
            await decoder.wait()
    if decoder.returncode in _CAUSED_BY_THE_FILE:
        return Inspection("It cannot be read: it takes too long, or breaks what reads it.")
    if decoder.returncode:
        raise subprocess.CalledProcessError(decoder.returncode, "decoder")
    return Inspection(**json.loads(output))
