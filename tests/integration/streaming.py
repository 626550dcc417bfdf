"""Clients of status streams, and what there is for them to see."""

import asyncio
from typing import Any

import grpc
from payment.v1 import payment_pb2

from services.payment.domain import State, Verdict
from services.runtime.bus import MESSAGE_ID, SESSION
from tests.integration.paying import House
from tests.waiting import eventually

SECONDS = 20


class Browser:
    """Reads a stream of Server-Sent Events."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self._text = ""

    async def next(self, name: str = "payment") -> dict[str, str]:
        """The next event of this name. What has no name has the name "retry"."""
        async with asyncio.timeout(SECONDS):
            while True:
                while "\n\n" not in self._text:
                    body = await self.call.read()
                    assert body is not grpc.aio.EOF, "the stream has ended"
                    assert body.content_type == "text/event-stream"
                    self._text += body.data.decode()
                block, _, self._text = self._text.partition("\n\n")
                fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
                if fields and fields.get("event", "retry") == name:
                    return fields

    async def ids(self, number: int) -> list[int]:
        return [int((await self.next())["id"]) for _ in range(number)]

    async def rest(self) -> bytes:
        text = self._text.encode()
        async with asyncio.timeout(SECONDS):
            while (body := await self.call.read()) is not grpc.aio.EOF:
                text += body.data
        return text


def status(house: House, user: str, payment_id: str, after: int = 0, **metadata: str) -> Browser:
    request = payment_pb2.StreamPaymentStatusRequest(payment_id=payment_id, after_sequence=after)
    return Browser(house.pays(user, **metadata).StreamPaymentStatus(request))


def feed(house: House, user: str, after: int = 0, **metadata: str) -> Browser:
    request = payment_pb2.StreamPaymentsRequest(after_sequence=after)
    return Browser(house.pays(user, **metadata).StreamPayments(request))


def typed(house: House, user: str, payment_id: str, after: int = 0, **metadata: str) -> Any:
    request = payment_pb2.WatchPaymentRequest(payment_id=payment_id, after_sequence=after)
    return house.pays(user, **metadata).WatchPayment(request)


async def in_review(house: House) -> tuple[str, payment_pb2.Payment]:
    """A payer, and a payment that stays where it is until somebody decides."""
    payer, payee = await house.user_with(100), await house.user_with(0)
    house.compliance.verdict = Verdict(State.IN_REVIEW, "RISK_REVIEW", 70)
    return payer, await house.pay(payer, payee, 1)


async def cancel(house: House, payer: str, payment_id: str) -> None:
    await house.pays(payer).CancelPayment(payment_pb2.CancelPaymentRequest(payment_id=payment_id))


async def end_session(house: House, session_id: str) -> None:
    await house.bus.publish(SESSION, f"{SESSION}.{session_id}", b"", {MESSAGE_ID: f"{SESSION}.{session_id}.1"})


async def feed_ids(house: House, user: str, after: int, number: int) -> list[int]:
    browser = feed(house, user, after)
    try:
        return await browser.ids(number)
    finally:
        browser.call.cancel()


async def nobody_watches(house: House) -> None:
    """Waits until no stream is open."""

    async def closed() -> bool:
        return not house.hub.watchers

    await eventually(closed)
