"""What makes a payment risky."""

from decimal import Decimal

import pytest

from services.compliance.domain import Amount, Decision, Verdict, judge


def verdict(
    amount: str = "10.00", currency: str = "EUR", countries: tuple[str, ...] = ("DE", "FR"), **found: bool
) -> Verdict:
    facts = {"listed": False, "over_velocity": False, **found}
    return judge(Amount(currency, Decimal(amount)), frozenset(countries), **facts)


def test_an_everyday_payment_is_allowed_without_a_reason() -> None:
    assert verdict() == Verdict(Decision.ALLOW, 0, ())


def test_a_listed_party_is_declined_for_sanctions_whatever_else_is_found() -> None:
    assert verdict(listed=True) == Verdict(Decision.DECLINE, 100, ("SANCTIONS_HIT",))
    all_found = verdict("50000", countries=("IR", "MM"), listed=True, over_velocity=True)
    assert all_found.reasons == (
        "SANCTIONS_HIT",
        "PROHIBITED_COUNTRY",
        "AMOUNT_OVER_THRESHOLD",
        "VELOCITY_OVER_LIMIT",
        "HIGH_RISK_COUNTRY",
    )
    assert all_found.score == 100


@pytest.mark.parametrize("countries", [("KP", "DE"), ("DE", "IR")], ids=["payer", "payee"])
def test_a_prohibited_country_on_either_side_is_too_risky(countries: tuple[str, str]) -> None:
    assert verdict(countries=countries) == Verdict(Decision.DECLINE, 90, ("RISK_TOO_HIGH", "PROHIBITED_COUNTRY"))


@pytest.mark.parametrize(
    ("below", "at", "currency"),
    [
        ("9999.99", "10000.00", "EUR"),
        ("9999.99", "10000", "USD"),
        ("1649999", "1650000", "JPY"),
        ("3299.999", "3300.000", "KWD"),
        ("9999.99", "10000", "XYZ"),
    ],
)
def test_an_officer_looks_at_an_amount_from_the_threshold_of_its_currency_on(
    below: str, at: str, currency: str
) -> None:
    assert verdict(below, currency).decision is Decision.ALLOW
    assert verdict(at, currency) == Verdict(Decision.REVIEW, 60, ("AMOUNT_OVER_THRESHOLD",))


def test_a_payer_in_a_hurry_is_reviewed() -> None:
    assert verdict(over_velocity=True) == Verdict(Decision.REVIEW, 60, ("RISK_REVIEW", "VELOCITY_OVER_LIMIT"))


def test_a_risky_country_alone_is_allowed_but_adds_to_the_score() -> None:
    assert verdict(countries=("MM", "VE")) == Verdict(Decision.ALLOW, 25, ())
    large = verdict("20000", countries=("MM", "DE"))
    assert large == Verdict(Decision.REVIEW, 85, ("AMOUNT_OVER_THRESHOLD", "HIGH_RISK_COUNTRY"))


def test_a_large_payment_in_a_hurry_is_too_risky() -> None:
    hurried = verdict("20000", over_velocity=True)
    assert hurried.decision is Decision.DECLINE
    assert hurried.reasons == ("RISK_TOO_HIGH", "AMOUNT_OVER_THRESHOLD", "VELOCITY_OVER_LIMIT")
