"""Authorization: from a request to pay to a payment that is AUTHORIZED, IN_REVIEW or DECLINED."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from services.payment.clients import Compliance, Documents, Users
from services.payment.domain import Payment, PaymentToSelf, State
from services.payment.invoices.domain import ToPay
from services.payment.ledger.domain import Account, CurrencyMismatch, Money
from services.payment.ledger.store import Ledger
from services.payment.parties import require_identified, require_parties
from services.payment.store import Payments
from services.runtime.idempotency import Answer
from services.runtime.ids import new_id


class Authorization:
    """Asks all who must be asked, in parallel where they do not depend on each other, then reserves the money."""

    def __init__(
        self,
        users: Users,
        compliance: Compliance,
        documents: Documents,
        ledger: Ledger,
        payments: Payments,
        settlement_delay: timedelta,
        review_expire: timedelta,
    ) -> None:
        self._users = users
        self._compliance = compliance
        self._documents = documents
        self._ledger = ledger
        self._payments = payments
        self._settlement_delay = settlement_delay
        self._review_expire = review_expire

    async def authorize(
        self,
        payer_id: str,
        payee_id: str,
        amount: Money,
        description: str,
        answer: Callable[[Payment], Answer],
        invoice: ToPay | None = None,
    ) -> Answer:
        """Takes a payment and returns `answer` of it, recorded with the request's idempotency key.

        Raises PaymentToSelf, PayeeNotFound, PayerNotActive, PayeeNotActive, KycRequired, IdentityDocumentRequired or
        CurrencyMismatch, and for the invoice that it is to pay what Invoice.require_free does. They leave nothing
        behind.
        """
        if payer_id == payee_id:
            raise PaymentToSelf
        parties, kyc_passed, has_document = await asyncio.gather(
            self._users.parties(payer_id, payee_id),
            self._compliance.kyc_passed(payer_id),
            self._documents.has_identity(payer_id),
        )
        payer, payee = require_parties(parties.get(payer_id), parties.get(payee_id), payer_id, payee_id)
        require_identified(payer_id, kyc_passed=kyc_passed, has_document=has_document)

        payment_id, now = new_id("pay"), datetime.now(UTC)
        accounts = await self._ledger.accounts_in(amount.currency_code, (payer_id, payee_id), now)
        payer_account = _require(accounts, payer_id, amount)
        payee_account = _require(accounts, payee_id, amount)
        verdict = await self._compliance.screen(payment_id, payer, payee, amount)
        payment = Payment(
            id=payment_id,
            payer_id=payer_id,
            payee_id=payee_id,
            payer_account_id=payer_account.id,
            payee_account_id=payee_account.id,
            amount=amount,
            description=description,
            invoice_id=invoice.invoice_id if invoice else "",
            state=verdict.state,
            state_reason=verdict.state_reason,
            risk_score=verdict.risk_score,
            sequence=1,
            create_time=now,
            update_time=now,
            review_expire_time=now + self._review_expire if verdict.state is State.IN_REVIEW else None,
        )
        return await self._payments.add(payment, now + self._settlement_delay, answer, invoice)

    async def approve(self, payment_id: str, officer_id: str, etag: str) -> Payment:
        """Lets a payment in review go on: reviews take days, so both parties are asked for again.

        Raises PaymentNotFound, what Payment.approved does, PayerNotActive or PayeeNotActive.
        """

        def approved(payment: Payment) -> Payment:
            return payment.approved(officer_id, etag, datetime.now(UTC))

        payment = await self._payments.get(payment_id)
        approved(payment)  # what is refused anyway bothers nobody
        payer_id, payee_id = payment.payer_id, payment.payee_id
        parties = await self._users.parties(payer_id, payee_id)
        require_parties(parties.get(payer_id), parties.get(payee_id), payer_id, payee_id)
        return await self._payments.change(payment_id, approved)


def _require(accounts: dict[str, Account], owner_id: str, amount: Money) -> Account:
    account = accounts.get(owner_id)
    if account is None:
        raise CurrencyMismatch(user_id=owner_id, currency_code=amount.currency_code)
    return account
