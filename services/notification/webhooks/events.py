"""What webhooks hear of payments."""

import json

from google.protobuf.json_format import MessageToDict
from payment.v1 import payment_pb2

from services.notification import events
from services.notification.delivery.domain import WEBHOOK, Message
from services.notification.delivery.store import Deliveries
from services.notification.webhooks.store import Webhooks
from services.runtime.postgres import Connection


class Announcements:
    """Has every event of a payment posted to the webhooks of its payer and its payee."""

    def __init__(self, webhooks: Webhooks, deliveries: Deliveries) -> None:
        self._webhooks = webhooks
        self._deliveries = deliveries

    async def tell(self, connection: Connection, event: payment_pb2.PaymentEvent) -> None:
        """Writes what is to be posted in the transaction that handles the event."""
        change = events.read(event)
        subscribed = await self._webhooks.subscribed(connection, [event.payer_id, event.payee_id], change.event_type)
        users = {user_id for _, user_id in subscribed}
        bodies = {user_id: body(change.event_type, _as_seen_by(user_id, event)) for user_id in users}
        messages = [
            Message(
                user_id=user_id,
                channel=WEBHOOK,
                webhook_id=webhook_id,
                event_id=change.event_id,
                event_type=change.event_type,
                payment_id=event.payment_id,
                body=bodies[user_id],
            )
            for webhook_id, user_id in subscribed
        ]
        await self._deliveries.add(connection, messages)


def _as_seen_by(user_id: str, event: payment_pb2.PaymentEvent) -> payment_pb2.PaymentEvent:
    """Returns an event without what is only the payer's business: why the payment was declined."""
    if event.state != payment_pb2.Payment.DECLINED or user_id == event.payer_id:
        return event
    seen = payment_pb2.PaymentEvent()
    seen.CopyFrom(event)
    seen.ClearField("state_reason")
    return seen


def body(event_type: str, event: payment_pb2.PaymentEvent) -> str:
    """Returns what is posted: the event in JSON as REST clients know it, with all of its fields but unset messages."""
    data = MessageToDict(event, always_print_fields_with_no_presence=True)
    envelope = {"type": event_type, "timestamp": data["createTime"], "data": data}
    return json.dumps(envelope, separators=(",", ":"), ensure_ascii=False)
