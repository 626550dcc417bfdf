"""The streaming RPCs of payments: one generator, whichever protocol it leaves in."""

import random
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

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
from services.runtime.log import failure
from services.runtime.revocations import Revocations, SessionEnded

Context = grpc.aio.ServicerContext[Any, Any]

BEAT = sse.comment("still here")
END = sse.event("end", "{}")

_log = structlog.get_logger()


class StreamService:
    """The server-streaming RPCs of proto/payment/v1/payment.proto."""

    def __init__(
        self, visibility: Visibility, events: Events, hub: Hub, revocations: Revocations, streams_per_user: int
    ) -> None:
        self._visibility = visibility
        self._events = events
        self._hub = hub
        self._revocations = revocations
        self._places = Places(streams_per_user)

    async def stream_payment_status(
        self, request: payment_pb2.StreamPaymentStatusRequest, context: Context
    ) -> AsyncGenerator[httpbody_pb2.HttpBody]:
        """Tells browsers what becomes of one payment."""
        self._require_session()
        payment = await self._visibility.payment(request.payment_id, "officer")
        after = position_after(_last_event_id(context), request.after_sequence, payment.sequence)
        if payment.state.terminal and after == payment.sequence:
            await context.send_initial_metadata((("x-http-code", "204"),))
            return
        with self._watching(Topic(Kind.PAYMENT, payment.id), after, payment.sequence) as watcher:
            async with aclosing(self._told(watcher)) as bodies:
                async for body in bodies:
                    yield body

    async def stream_payments(
        self, request: payment_pb2.StreamPaymentsRequest, context: Context
    ) -> AsyncGenerator[httpbody_pb2.HttpBody]:
        """Tells browsers what becomes of all payments of the caller."""
        self._require_session()
        user_id = caller.current().user_id
        latest = await self._events.latest_of_user(user_id)
        after = position_after(_last_event_id(context), request.after_sequence, latest)
        with self._watching(Topic(Kind.USER, user_id), after, latest) as watcher:
            async with aclosing(self._told(watcher)) as bodies:
                async for body in bodies:
                    yield body

    async def watch_payment(
        self, request: payment_pb2.WatchPaymentRequest, _: Context
    ) -> AsyncGenerator[payment_pb2.PaymentEvent]:
        """Tells programs what becomes of one payment."""
        self._require_session()
        payment = await self._visibility.payment(request.payment_id, "officer")
        after = position_after("", request.after_sequence, payment.sequence)
        if payment.state.terminal and after == payment.sequence:
            return
        with self._watching(Topic(Kind.PAYMENT, payment.id), after, payment.sequence) as watcher:
            async with aclosing(watcher.events()) as events:
                async for event in events:
                    if event is not None:
                        yield event.message

    def _require_session(self) -> None:
        self._revocations.require_open(caller.current().session_id)

    @contextmanager
    def _watching(self, topic: Topic, after: int, latest: int) -> Iterator[Watcher]:
        """Opens a stream of the caller's. Raises TooManyStreams."""
        who = caller.current()
        with self._places.taken(who.user_id), self._hub.watching(topic, after, latest) as watcher:
            unwatch = self._revocations.watch(who.session_id, lambda: watcher.end(SessionEnded))
            try:
                yield watcher
            finally:
                unwatch()

    async def _told(self, watcher: Watcher) -> AsyncGenerator[httpbody_pb2.HttpBody]:
        """Yields what a browser is told. What goes wrong midway, when HTTP has no other way left, is an event, too."""
        yield sse.retry(random.uniform(0.5, 1.5 + self._hub.watchers / 1000))  # noqa: S311  # all may come back at once
        try:
            async with aclosing(watcher.events()) as events:
                async for event in events:
                    yield event.text if event else BEAT
            yield END
        except StreamEnded as error:
            yield sse.retry(error.retry_after)
        except Exception as error:  # the client could not tell a cut stream from a finished one
            _log.warning("stream failed", **failure(error))
            yield sse.event("error", sse.json(status.to_proto(status.told(error))))


def _last_event_id(context: Context) -> str:
    return str(dict(context.invocation_metadata() or ()).get("last-event-id", ""))
