"""Money, the accounts it is on, and the entries that move it. No I/O."""

from dataclasses import dataclass
from datetime import datetime

from services.runtime.errors import AlreadyExists, FailedPrecondition, NotFound, PreconditionViolation

STARTING_CURRENCY = "EUR"
LARGEST_BALANCE = 10**18
"""In minor units: what a bigint holds, with room for one more payment."""


class AccountNotFound(NotFound):
    """There is no such account."""

    message = "There is no account {account_id}."


class AccountAlreadyExists(AlreadyExists):
    """The user has an account in this currency."""

    message = "There is an account in {currency_code} already."


class CurrencyMismatch(FailedPrecondition):
    """A user has no account that money in this currency could move on."""

    message = "User {user_id} has no account in {currency_code}."


class AccountCurrencyMismatch(FailedPrecondition):
    """The account is in another currency."""

    reason = CurrencyMismatch.reason
    message = "Account {account_id} is not in {currency_code}."


class BalanceLimitExceeded(FailedPrecondition):
    """The account would hold more than an account can."""

    message = "Account {account_id} would hold more than an account can."


class InsufficientFunds(FailedPrecondition):
    """The account has less that can be spent than is to leave it."""

    message = "Account {account_id} has less available than that."

    def __init__(self, account_id: str) -> None:
        description = "Less is available than is to be moved."
        super().__init__(
            account_id=account_id, preconditions=[PreconditionViolation("AVAILABLE_FUNDS", account_id, description)]
        )


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in the currency's smallest unit (ISO 4217): EUR 12.34 is 1234."""

    currency_code: str
    minor: int


@dataclass(frozen=True, slots=True)
class Account:
    """A user's money in one currency."""

    id: str
    owner_id: str
    balance: Money
    reserved: Money
    create_time: datetime

    @property
    def available(self) -> Money:
        """What can be spent."""
        return Money(self.balance.currency_code, self.balance.minor - self.reserved.minor)

    def receives(self, amount: Money) -> None:
        """Raises AccountCurrencyMismatch or BalanceLimitExceeded when the account cannot take this amount."""
        if amount.currency_code != self.balance.currency_code:
            raise AccountCurrencyMismatch(account_id=self.id, currency_code=amount.currency_code)
        if self.balance.minor + amount.minor > LARGEST_BALANCE:
            raise BalanceLimitExceeded(account_id=self.id)

    def gives(self, amount: Money) -> None:
        """Raises InsufficientFunds when less than this amount can be spent."""
        if self.available.minor < amount.minor:
            raise InsufficientFunds(self.id)


@dataclass(frozen=True, slots=True)
class Entry:
    """One movement on an account."""

    id: str
    account_id: str
    amount: Money
    payment_id: str
    kind: str
    create_time: datetime
