"""Money and payments without a database."""

from datetime import UTC, datetime

import pytest
from google.type import money_pb2

from services.payment import money
from services.payment.domain import State
from services.payment.ledger.domain import (
    LARGEST_BALANCE,
    Account,
    AccountCurrencyMismatch,
    BalanceLimitExceeded,
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
from services.runtime.errors import Error

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
