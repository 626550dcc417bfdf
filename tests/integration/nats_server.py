"""A NATS server of a test's own, which can be killed, wiped, and cut off."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from scripts.stack import nats, ports
from scripts.stack.folder import RunFolder
from tests.waiting import wait_until


class Server:
    """A NATS server of the test's own."""

    def __init__(self, folder: RunFolder, certificates: Path) -> None:
        self._folder = folder
        shutil.copytree(certificates, folder.certificates, dirs_exist_ok=True)
        [self.port] = ports.free(1)
        nats.prepare(folder, self.port)
        self.url = nats.url(self.port)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it greets."""
        with (self._folder.logs / "nats").open("ab") as log:
            self._process = subprocess.Popen(nats.command(self._folder), stdout=log, stderr=log)
        wait_until(lambda: nats.ready(self.port), "NATS does not start")

    def kill(self) -> None:
        """Kills it, as the machine may."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def wipe(self) -> None:
        """Takes the disk of a killed server."""
        shutil.rmtree(self._folder.data / "nats")


class Gate:
    """Passes connections on to a port of this machine while it is open."""

    def __init__(self, behind: int) -> None:
        self._behind = behind
        self._writers: set[asyncio.StreamWriter] = set()
        self.open = True

    def close(self) -> None:
        """Breaks all connections, and those to come until it is open again."""
        self.open = False
        for writer in self._writers:
            writer.transport.abort()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Serves on a free port, which it yields."""
        async with await asyncio.start_server(self._pass, "127.0.0.1") as server:
            yield server.sockets[0].getsockname()[1]
            self.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError):
            inner_reader, inner = await asyncio.open_connection("127.0.0.1", self._behind)
            self._writers.add(inner)
            if self.open:
                await asyncio.gather(self._copy(reader, inner), self._copy(inner_reader, writer))
            inner.transport.abort()
        writer.transport.abort()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.transport.abort()
