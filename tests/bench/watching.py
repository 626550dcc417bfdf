"""Clients of status streams that cost little: each reads one over a plain socket, and comes back when it is cut."""

import asyncio
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from urllib.parse import urlsplit


class Refused(Exception):
    """The answer is not a stream."""


@dataclass
class Watcher:
    """One client, and all that it was told."""

    url: str
    path: str
    token: str
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    last_id: int = 0
    retry: float = 3.0
    """Seconds, as the server last said."""
    first_opened: asyncio.Event = field(default_factory=asyncio.Event)
    ended: bool = False
    opened: int = 0
    refused: list[str] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    delays: list[float] = field(default_factory=list)
    """Seconds from when a change was made until it was here."""

    async def run(self) -> None:
        """Watches until the stream has an end, as a browser's EventSource would if no answer could discourage it."""
        while not self.ended:
            try:
                await self._watch()
            except (OSError, asyncio.IncompleteReadError):
                pass
            except Refused as error:
                self.refused.append(str(error))
            if not self.ended:
                await asyncio.sleep(self.retry)

    @property
    def missed(self) -> int:
        """How many events were left out."""
        return sum(later - earlier - 1 for earlier, later in pairwise(self.ids) if later > earlier)

    @property
    def repeated(self) -> int:
        """How many events came twice, or too late."""
        return sum(later <= earlier for earlier, later in pairwise(self.ids))

    async def _watch(self) -> None:
        address = urlsplit(self.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=8192)
        try:
            lines = [
                f"GET {self.path} HTTP/1.1",
                f"host: {address.netloc}",
                "accept: text/event-stream",
                f"authorization: Bearer {self.token}",
                *([f"last-event-id: {self.last_id}"] if self.last_id else []),
            ]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            status = head.split(" ", 2)[1]
            if status == "204":
                self.ended = True
            elif status != "200":
                raise Refused(status)
            else:
                self.first_opened.set()
                self.opened += 1
                await self._read(reader)
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        text = ""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            text += (await reader.readexactly(size)).decode()
            await reader.readexactly(2)
            *blocks, text = text.split("\n\n")
            for block in blocks:
                self._told(dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":")))
                if self.ended:
                    return

    def _told(self, fields: dict[str, str]) -> None:
        if "retry" in fields:
            self.retry = int(fields["retry"]) / 1000
        if fields.get("event") == "end":
            self.ended = True
        elif fields.get("event") == "error":
            self.refused.append(json.loads(fields["data"])["message"])
        elif "id" in fields:
            self.last_id = int(fields["id"])
            self.ids.append(self.last_id)
            event = json.loads(fields["data"])
            made = datetime.fromisoformat(event["createTime"])
            if event["sequence"] > 1 and made > self.since:  # the first ones are seeded, without a word to anybody
                self.delays.append((datetime.now(UTC) - made).total_seconds())
