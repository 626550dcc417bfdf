"""The streaming RPCs of payments: one generator, whichever protocol it leaves in."""

import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, NamedTuple, TypeAlias

import grpc
import structlog
from google.api import httpbody_pb2
from payment.v1 import payment_pb2

from services.payment.streams import sse
from services.payment.streams.domain import Kind, Places, StreamEnded, Topic, position_after
from services.payment.streams.hub import Hub, Watcher
from services.payment.streams.store import Events
from services.payment.visibility import Visibility
from services.runtime import caller, status
from services.runtime.caller import Caller
from services.runtime.errors import Error
from services.runtime.log import failure, in_band
from services.runtime.revocations import Revocations, SessionEnded

Context = grpc.aio.ServicerContext[Any, Any]
Bodies: TypeAlias = AsyncGenerator[httpbody_pb2.HttpBody]

BEAT = sse.comment("still here")
END = sse.event("end", "{}")

_log = structlog.get_logger()


class StreamService:
    """The server-streaming RPCs of proto/payment/v1/payment.proto."""

    def __init__(
        self, visibility: Visibility, events: Events, hub: Hub, revocations: Revocations, places: Places
    ) -> None:
        self._visibility = visibility
        self._events = events
        self._hub = hub
        self._revocations = revocations
        self._places = places

    def stream_payment_status(self, request: payment_pb2.StreamPaymentStatusRequest, context: Context) -> Bodies:
        """Tells browsers what becomes of one payment."""
        return self._bodies(self._status(request, context))

    def stream_payments(self, request: payment_pb2.StreamPaymentsRequest, context: Context) -> Bodies:
        """Tells browsers what becomes of all payments of the caller."""
        return self._bodies(self._payments(request, context))

    async def watch_payment(
        self, request: payment_pb2.WatchPaymentRequest, _: Context
    ) -> AsyncGenerator[payment_pb2.PaymentEvent]:
        """Tells programs what becomes of one payment."""
        self._require_session()
        payment = await self._visibility.payment(request.payment_id, "officer")
        after = position_after("", request.after_sequence, payment.sequence)
        if payment.state.terminal and after == payment.sequence:
            return
        stream = self._open(Asked(Topic(Kind.PAYMENT, payment.id), after, payment.sequence))
        try:
            while not stream.watcher.finished:
                for event in await stream.watcher.more():
                    yield event.message
        finally:
            stream.close()

    async def _status(self, request: payment_pb2.StreamPaymentStatusRequest, context: Context) -> "Asked | None":
        self._require_session()
        payment = await self._visibility.payment(request.payment_id, "officer")
        after = position_after(_last_event_id(context), request.after_sequence, payment.sequence)
        if payment.state.terminal and after == payment.sequence:
            await context.send_initial_metadata((("x-http-code", "204"),))
            return None
        return Asked(Topic(Kind.PAYMENT, payment.id), after, payment.sequence)

    async def _payments(self, request: payment_pb2.StreamPaymentsRequest, context: Context) -> "Asked":
        self._require_session()
        user_id = caller.current().user_id
        latest = await self._events.latest_of_user(user_id)
        after = position_after(_last_event_id(context), request.after_sequence, latest)
        return Asked(Topic(Kind.USER, user_id), after, latest)

    async def _bodies(self, asking: Awaitable["Asked | None"]) -> Bodies:
        """Yields what a browser is told. What goes wrong midway, when HTTP has no other way left, is an event, too."""
        asked = await asking
        if asked is None:
            return
        stream = self._open(asked)
        try:
            yield sse.retry(random.uniform(0.5, 1.5 + self._hub.watchers / 1000))  # noqa: S311  # for all may be cut at once
            while not stream.watcher.finished:
                events = await stream.watcher.more()
                for event in events:
                    yield event.text
                if not events:
                    yield BEAT
            yield END
        except StreamEnded as error:
            in_band.set(error.reason)
            yield sse.retry(error.retry_after)
        except Exception as error:  # the client could not tell a cut stream from a finished one
            if not isinstance(error, Error):
                _log.warning("stream failed", topic=asked.topic.id, **failure(error))
            told = status.told(error)
            in_band.set(told.reason)
            yield sse.event("error", sse.json(status.to_proto(told)))
        finally:
            stream.close()

    def _require_session(self) -> None:
        self._revocations.require_open(_credential(caller.current()))

    def _open(self, asked: "Asked") -> "Stream":
        """Opens a stream of the caller's. Raises TooManyStreams or StreamsBusy."""
        who = caller.current()
        self._places.take(who.user_id)
        watcher = self._hub.open(*asked)
        unwatch = self._revocations.watch(_credential(who), lambda: watcher.end(SessionEnded))

        def close() -> None:
            unwatch()
            self._hub.close(watcher)
            self._places.give_back(who.user_id)

        return Stream(watcher, close)


class Asked(NamedTuple):
    """What somebody wants to watch, and from where on."""

    topic: Topic
    after: int
    latest: int
    """The position of the topic's last event."""


class Stream(NamedTuple):
    """A stream that is open, and what closes it."""

    watcher: Watcher
    close: Callable[[], None]


def _credential(who: Caller) -> str:
    """What a stream ends with: a session or an API key; of the token of an outside issuer, all that its user has."""
    return who.session_id or who.user_id


def _last_event_id(context: Context) -> str:
    return str(dict(context.invocation_metadata() or ()).get("last-event-id", ""))
