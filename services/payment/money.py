"""google.type.Money on the outside, the currency's smallest unit on the inside. No float anywhere."""

from functools import cache

from google.type import money_pb2
from iso4217 import Currency

from services.payment.ledger.domain import Money
from services.runtime.errors import FieldViolation, InvalidArgument

LARGEST_UNITS = 10**12
_NANOS = 10**9


class InvalidAmount(InvalidArgument):
    """The amount is not one that can be paid."""

    message = "The amount {problem}."

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(fields=[FieldViolation(field, problem)], problem=problem)


class UnknownCurrency(InvalidArgument):
    """The currency is not one of ISO 4217 that has a smallest unit."""

    message = '"{currency_code}" is not a currency of ISO 4217.'

    def __init__(self, field: str, currency_code: str) -> None:
        super().__init__(fields=[FieldViolation(field, "is not in ISO 4217")], currency_code=currency_code)


@cache
def _decimals(currency_code: str) -> int | None:
    try:
        exponent: int | None = Currency(currency_code).exponent
    except ValueError:
        return None
    return exponent


def require_currency(currency_code: str, field: str) -> int:
    """Returns how many decimals a currency has. Raises UnknownCurrency."""
    decimals = _decimals(currency_code)
    if decimals is None:
        raise UnknownCurrency(field, currency_code)
    return decimals


def read(proto: money_pb2.Money, field: str = "amount") -> Money:
    """Reads an amount to pay: positive, no finer than the currency. Raises InvalidAmount or UnknownCurrency."""
    decimals = require_currency(proto.currency_code, f"{field}.currencyCode")
    if not 0 <= proto.nanos < _NANOS:
        raise InvalidAmount(f"{field}.nanos", "must have nanos from 0 to 999999999")
    if proto.units < 0 or (proto.units == 0 and proto.nanos == 0):
        raise InvalidAmount(f"{field}.units", "must be positive")
    smallest = 10 ** (9 - decimals)
    if proto.nanos % smallest:
        raise InvalidAmount(f"{field}.nanos", f"has more than the {decimals} decimals of {proto.currency_code}")
    money = Money(proto.currency_code, proto.units * 10**decimals + proto.nanos // smallest)
    require_payable(money, f"{field}.units")
    return money


def require_payable(money: Money, field: str) -> None:
    """Raises InvalidAmount for more than can be paid at once."""
    if money.minor > LARGEST_UNITS * 10 ** require_currency(money.currency_code, field):
        raise InvalidAmount(field, f"must be at most {LARGEST_UNITS} units")


def write(money: Money) -> money_pb2.Money:
    """Writes an amount; units and nanos of a negative one are both negative, as google.type.Money says."""
    decimals = require_currency(money.currency_code, "currencyCode")
    sign = -1 if money.minor < 0 else 1
    units, rest = divmod(abs(money.minor), 10**decimals)
    return money_pb2.Money(
        currency_code=money.currency_code, units=sign * units, nanos=sign * rest * 10 ** (9 - decimals)
    )
