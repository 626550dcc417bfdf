"""The connection to NATS JetStream: a stream per service, one of sessions that ended, and one for dead letters."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api

from services.runtime.errors import Unavailable
from services.runtime.log import brief
from services.runtime.tls import Identity

RECONNECT_SECONDS = 0.25
DUPLICATE_SECONDS = 120.0
"""How long a service's stream drops what has the id of something it has."""
DEADLETTER = "deadletter"
SESSION = "session"
"""Which sessions, API keys and signing keys ended before their time; the user service publishes it."""
PASSWORD = "password"  # noqa: S105  # the stream's name
"""What happened to passwords; the user service publishes it."""
MESSAGE_ID = "Nats-Msg-Id"
TRACEPARENT = "traceparent"

_HOUR_SECONDS = 3600.0
_DAY_SECONDS = 24 * _HOUR_SECONDS
_KEPT_SECONDS = {DEADLETTER: 30 * _DAY_SECONDS, SESSION: _HOUR_SECONDS, PASSWORD: _DAY_SECONDS}
"""Others are kept for 7 days. The end of a session need only outlive its access tokens."""
_CONFIGURED_OTHERWISE = 10058
_HEADERS_BYTES = 4096
"""More than the headers of an event take: the server hangs up on whom sends more than it said, headers included."""
_NEVER = (
    nats.errors.MaxPayloadError,
    nats.errors.BadSubjectError,
    nats.errors.BadHeaderError,
    nats.js.errors.BadRequestError,
)

_log = structlog.get_logger()


class BusUnavailable(Unavailable):
    """NATS cannot be reached. Events wait in the outbox."""

    message = "The service cannot reach the message bus right now."


class EventRefused(Exception):
    """JetStream does not take an event, and would not the next time either: it is too large, say."""


class Bus:
    """The connection to NATS, made in the background and remade whenever it is lost."""

    def __init__(self, url: str, tls: Callable[[], ssl.SSLContext]) -> None:
        """`tls` is asked before every connection, so that renewed certificates are taken up."""
        self._url = url
        self._tls = tls
        self._client = Client()
        self._connected = asyncio.Event()
        self._streams: set[str] = set()
        self._reconnected: list[Callable[[], None]] = []

    async def connect(self) -> None:
        """Connects, however long that takes."""
        await self._client.connect(
            self._url,
            tls=self._tls(),
            disconnected_cb=self._renew_tls,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RECONNECT_SECONDS,  # type: ignore[arg-type]  # fractions work
            error_cb=_log_error,
            reconnected_cb=self._tell_of_reconnection,
        )
        self._connected.set()

    async def _renew_tls(self) -> None:
        with suppress(OSError):  # SSLError is one, too: the files may be replaced one by one
            self._client.options["tls"] = self._tls()

    async def connected(self) -> None:
        """Waits for the first connection."""
        await self._connected.wait()

    @property
    def is_connected(self) -> bool:
        """Whether NATS can be reached right now, whatever becomes of a stream of it."""
        return self._client.is_connected

    def when_reconnected(self, tell: Callable[[], None]) -> None:
        """Calls `tell` whenever NATS can be reached again: what was published meanwhile was not heard."""
        self._reconnected.append(tell)

    async def close(self) -> None:
        """Closes the connection."""
        await self._client.close()

    async def stream(self, name: str) -> JetStreamContext:
        """Returns JetStream with the stream of a service, SESSION or DEADLETTER, in place. Raises BusUnavailable."""
        if not self.is_connected:
            raise BusUnavailable
        jetstream = self._client.jetstream()
        if name not in self._streams:
            try:
                await jetstream.add_stream(_wanted(name))
            except nats.errors.Error as error:
                if getattr(error, "err_code", None) != _CONFIGURED_OTHERWISE:
                    raise BusUnavailable from error
                _log.warning("stream is configured otherwise", stream=name)  # an operator gave it more replicas, say
            self._streams.add(name)
        return jetstream

    def forget(self, name: str) -> None:
        """Has the stream looked for again before its next use: it may be gone with its server."""
        self._streams.discard(name)

    async def publish(self, stream: str, subject: str, payload: bytes, headers: Mapping[str, str]) -> None:
        """Publishes and waits until it is stored; again under the same id, it is stored once.

        Raises EventRefused, and BusUnavailable when it may be stored or not.
        """
        try:
            if len(payload) + _HEADERS_BYTES > self._client.max_payload:
                raise nats.errors.MaxPayloadError
            jetstream = await self.stream(stream)
            await jetstream.publish(subject, payload, headers=dict(headers))
        except _NEVER as error:
            raise EventRefused(str(error)) from error
        except nats.errors.Error as error:
            self.forget(stream)
            raise BusUnavailable from error

    async def _tell_of_reconnection(self) -> None:
        for tell in self._reconnected:
            tell()

    async def listen(self, subject: str, heard: Callable[[str, bytes], None]) -> None:
        """Calls `heard` with the subject and payload of every event as it is published, at most once.

        Waits for the connection.
        """
        await self.connected()

        async def on_message(message: Msg) -> None:
            heard(message.subject, message.data)

        await self._client.subscribe(subject, cb=on_message)


def _wanted(name: str) -> api.StreamConfig:
    return api.StreamConfig(
        name,
        subjects=[f"{name}.>"],
        max_age=_KEPT_SECONDS.get(name, 7 * _DAY_SECONDS),
        duplicate_window=_DAY_SECONDS if name == DEADLETTER else DUPLICATE_SECONDS,
    )


async def _log_error(error: Exception) -> None:
    _log.warning("bus", error=brief(error))


@asynccontextmanager
async def open_bus(url: str, identity: Identity) -> AsyncIterator[Bus]:
    """Opens the bus without waiting for it, so that a service starts while NATS is away."""
    bus = Bus(url, identity.context)
    connecting = asyncio.create_task(bus.connect())
    try:
        yield bus
    finally:
        connecting.cancel()
        await bus.close()
