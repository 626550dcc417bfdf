"""PaymentEvent: how a change of a payment is told to other services and to those who watch it."""

from payment.v1 import payment_pb2

from services.payment import money
from services.payment.domain import Change


def to_proto(change: Change) -> payment_pb2.PaymentEvent:
    """Returns the event of one step of a payment's life."""
    event = payment_pb2.PaymentEvent(
        payment_id=change.payment_id,
        sequence=change.sequence,
        state=payment_pb2.Payment.State.ValueType(change.state.value),
        state_reason=change.state_reason,
        payer_id=change.payer_id,
        payee_id=change.payee_id,
        amount=money.write(change.amount),
        refunded_amount=money.write(change.refunded),
        invoice_id=change.invoice_id,
    )
    event.create_time.FromDatetime(change.create_time)
    return event
