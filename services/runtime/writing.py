"""Messages of streams on their way to clients, which may be slow, but not for ever."""

import asyncio
from typing import Any

import grpc
from google.protobuf.message import Message

from services.runtime.errors import ResourceExhausted

WRITE_SECONDS = 60.0
"""How long a message may wait for its client, unless a server says otherwise."""


class SlowReader(ResourceExhausted):
    """The client did not take what a stream had for it."""

    message = "The client did not read for {seconds} s."


async def write(context: grpc.aio.ServicerContext[Any, Any], message: Message, seconds: float) -> None:
    """Writes as soon as the client takes it. Raises SlowReader when that takes longer than `seconds`."""
    try:
        async with asyncio.timeout(seconds) as limit:
            await context.write(message)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise SlowReader(seconds=seconds) from error
