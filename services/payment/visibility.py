"""Who may see a payment."""

from services.payment.domain import NotAParty, Payment
from services.payment.store import Payments
from services.runtime import caller


class Visibility:
    """Payments as the caller may see them."""

    def __init__(self, payments: Payments) -> None:
        self._payments = payments

    async def payment(self, payment_id: str, *roles: str) -> Payment:
        """Returns a payment to its parties and callers with one of these roles.

        Raises PaymentNotFound and NotAParty.
        """
        payment = await self._payments.get(payment_id)
        who = caller.current()
        if not payment.has_party(who.user_id) and not who.sees_as(*roles):
            raise NotAParty(payment_id=payment.id)
        return payment
