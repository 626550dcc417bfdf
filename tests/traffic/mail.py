"""An SMTP server beside a test that is not asynchronous."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from threading import Thread

from tests.integration.mailbox import Mailbox, mailbox


@contextmanager
def mailing() -> Iterator[Mailbox]:
    """Runs a server on this machine that keeps what it takes."""
    opened: Queue[tuple[Mailbox, asyncio.AbstractEventLoop, asyncio.Event]] = Queue()

    async def serve() -> None:
        over = asyncio.Event()
        async with mailbox() as box:
            opened.put((box, asyncio.get_running_loop(), over))
            await over.wait()

    thread = Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    box, loop, over = opened.get(timeout=30)
    try:
        yield box
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
