"""One event of a topic, encoded once for however many watch it."""

from dataclasses import dataclass
from functools import cached_property

from google.api import httpbody_pb2
from payment.v1 import payment_pb2

from services.payment import events
from services.payment.domain import Change
from services.payment.streams import sse


@dataclass(frozen=True)
class Event:
    """A change of a payment, at its place in a topic."""

    position: int
    change: Change

    @cached_property
    def message(self) -> payment_pb2.PaymentEvent:
        """How programs are told."""
        return events.to_proto(self.change)

    @cached_property
    def text(self) -> httpbody_pb2.HttpBody:
        """How browsers are told."""
        return sse.event("payment", sse.json(self.message), self.position)
