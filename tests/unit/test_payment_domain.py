"""Money and payments without a database."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from google.type import money_pb2

from services.payment import money
from services.payment.domain import (
    IllegalTransition,
    NotThePayee,
    NotThePayer,
    OwnPayment,
    Payment,
    PaymentCurrencyMismatch,
    RefundExceedsPayment,
    State,
)
from services.payment.ledger.domain import (
    LARGEST_BALANCE,
    Account,
    AccountCurrencyMismatch,
    BalanceLimitExceeded,
    InsufficientFunds,
    Money,
)
from services.payment.money import InvalidAmount, UnknownCurrency
from services.payment.parties import (
    IdentityDocumentRequired,
    KycRequired,
    Party,
    PayeeNotActive,
    PayeeNotFound,
    PayerNotActive,
    require_identified,
    require_parties,
)
from services.runtime.errors import Error, EtagMismatch

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PAYER, PAYEE = Party("usr_1", "Ada", "DE", active=True), Party("usr_2", "Bob", "FR", active=True)


def proto(currency_code: str, units: int, nanos: int = 0) -> money_pb2.Money:
    return money_pb2.Money(currency_code=currency_code, units=units, nanos=nanos)


@pytest.mark.parametrize(
    ("amount", "minor"),
    [
        (proto("EUR", 12, 340_000_000), 1234),
        (proto("EUR", 0, 10_000_000), 1),
        (proto("JPY", 500), 500),
        (proto("KWD", 1, 1_000_000), 1001),
        (proto("EUR", 10**12), 10**14),
    ],
)
def test_an_amount_is_kept_in_the_currencys_smallest_unit_and_comes_back(amount: money_pb2.Money, minor: int) -> None:
    assert money.read(amount) == Money(amount.currency_code, minor)
    assert money.write(money.read(amount)) == amount


def test_a_negative_amount_has_negative_units_and_nanos() -> None:
    assert money.write(Money("EUR", -1234)) == proto("EUR", -12, -340_000_000)
    assert money.write(Money("EUR", -5)) == proto("EUR", 0, -50_000_000)


@pytest.mark.parametrize(
    ("amount", "error"),
    [
        (proto("EUR", 0), InvalidAmount),
        (proto("EUR", -1), InvalidAmount),
        (proto("EUR", 1, -1), InvalidAmount),
        (proto("EUR", 1, 10**9), InvalidAmount),
        (proto("EUR", 1, 1), InvalidAmount),
        (proto("JPY", 1, 10_000_000), InvalidAmount),
        (proto("EUR", 10**12 + 1), InvalidAmount),
        (proto("", 1), UnknownCurrency),
        (proto("ABC", 1), UnknownCurrency),
        (proto("XAU", 1), UnknownCurrency),
    ],
)
def test_an_amount_that_cannot_be_paid_is_refused(amount: money_pb2.Money, error: type[Error]) -> None:
    with pytest.raises(error):
        money.read(amount)


def test_only_authorized_and_reviewed_payments_hold_money() -> None:
    assert [state for state in State if state.holds_money] == [State.AUTHORIZED, State.IN_REVIEW]
    assert {state for state in State if not state.terminal} == {State.AUTHORIZED, State.IN_REVIEW}


def test_an_account_takes_its_own_currency_up_to_its_limit() -> None:
    account = Account("acc_1", "usr_1", Money("EUR", LARGEST_BALANCE - 5), Money("EUR", 3), NOW)
    account.receives(Money("EUR", 5))
    assert account.available == Money("EUR", LARGEST_BALANCE - 8)
    with pytest.raises(BalanceLimitExceeded):
        account.receives(Money("EUR", 6))
    with pytest.raises(AccountCurrencyMismatch):
        account.receives(Money("USD", 1))


def test_an_account_gives_no_more_than_can_be_spent() -> None:
    account = Account("acc_1", "usr_1", Money("EUR", 10), Money("EUR", 3), NOW)
    account.gives(Money("EUR", 7))
    with pytest.raises(InsufficientFunds) as caught:
        account.gives(Money("EUR", 8))
    assert [one.subject for one in caught.value.preconditions] == ["acc_1"]


def payment(state: State, refunded: int = 0) -> Payment:
    return Payment(
        id="pay_1",
        payer_id="usr_1",
        payee_id="usr_2",
        payer_account_id="acc_1",
        payee_account_id="acc_2",
        amount=Money("EUR", 1000),
        description="",
        invoice_id="",
        state=state,
        state_reason="",
        risk_score=0,
        sequence=2,
        create_time=NOW,
        update_time=NOW,
        refunded_minor=refunded,
        review_expire_time=NOW if state is State.IN_REVIEW else None,
    )


STEPS: dict[str, tuple[Callable[[Payment], Payment], dict[State, State]]] = {
    "cancelled": (
        lambda one: one.cancelled("usr_1", "", NOW),
        {State.AUTHORIZED: State.CANCELLED, State.IN_REVIEW: State.CANCELLED},
    ),
    "approved": (lambda one: one.approved("usr_o", "", NOW), {State.IN_REVIEW: State.AUTHORIZED}),
    "refused": (lambda one: one.refused("usr_o", "", NOW), {State.IN_REVIEW: State.DECLINED}),
    "expired": (lambda one: one.expired(NOW), {State.IN_REVIEW: State.DECLINED}),
    "settled": (lambda one: one.settled(NOW), {State.AUTHORIZED: State.SETTLED}),
    "failed": (lambda one: one.failed("SETTLEMENT_FAILED", NOW), {State.AUTHORIZED: State.FAILED}),
    "refunded": (lambda one: refund(one, None), {State.SETTLED: State.REFUNDED}),
}


def refund(one: Payment, minor: int | None, user_id: str = "usr_2", etag: str = "") -> Payment:
    amount = None if minor is None else Money("EUR", minor)
    return one.refund(user_id, admin=False, etag=etag, amount=amount, now=NOW)


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", STEPS)
def test_a_payment_takes_a_step_only_from_where_it_leads_on(step: str, state: State) -> None:
    take, leads = STEPS[step]
    before = payment(state)
    if state not in leads:
        with pytest.raises(IllegalTransition) as caught:
            take(before)
        assert caught.value.metadata["state"] == state.name
        return
    after = take(before)
    assert (after.state, after.sequence, after.etag) == (leads[state], 3, "3")
    assert after.review_expire_time is None


def test_refunds_add_up_to_the_payment_and_no_further() -> None:
    once = refund(payment(State.SETTLED), 999)
    assert (once.state, once.refunded) == (State.SETTLED, Money("EUR", 999))
    with pytest.raises(RefundExceedsPayment):
        refund(once, 2)
    assert (refund(once, 1).state, refund(once, None).refunded) == (State.REFUNDED, Money("EUR", 1000))
    with pytest.raises(PaymentCurrencyMismatch):
        once.refund("usr_2", admin=False, etag="", amount=Money("USD", 1), now=NOW)


def test_who_may_is_asked_before_the_etag_and_that_before_the_state() -> None:
    cancelled = payment(State.CANCELLED)
    with pytest.raises(NotThePayer):
        cancelled.cancelled("usr_2", "1", NOW)
    with pytest.raises(EtagMismatch):
        cancelled.cancelled("usr_1", "1", NOW)
    with pytest.raises(NotThePayee):
        refund(cancelled, None, user_id="usr_1", etag="1")
    with pytest.raises(EtagMismatch):
        refund(cancelled, None, etag="1")
    with pytest.raises(OwnPayment):
        cancelled.approved("usr_2", "1", NOW)
    with pytest.raises(EtagMismatch):
        cancelled.refused("usr_o", "1", NOW)


def test_both_parties_must_be_there_and_active() -> None:
    assert require_parties(PAYER, PAYEE, "usr_1", "usr_2") == (PAYER, PAYEE)
    with pytest.raises(PayeeNotFound):
        require_parties(PAYER, None, "usr_1", "usr_2")
    with pytest.raises(PayerNotActive):
        require_parties(None, PAYEE, "usr_1", "usr_2")
    with pytest.raises(PayeeNotActive):
        require_parties(PAYER, Party("usr_2", "Bob", "FR", active=False), "usr_1", "usr_2")


def test_all_that_is_missing_about_the_payer_is_named_at_once() -> None:
    require_identified("usr_1", kyc_passed=True, has_document=True)
    with pytest.raises(KycRequired) as caught:
        require_identified("usr_1", kyc_passed=False, has_document=False)
    assert [one.type for one in caught.value.preconditions] == ["KYC_REQUIRED", "IDENTITY_DOCUMENT_REQUIRED"]
    with pytest.raises(IdentityDocumentRequired):
        require_identified("usr_1", kyc_passed=True, has_document=False)
