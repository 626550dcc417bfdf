"""The rules: what makes a user's KYC pass, and what makes a payment risky. No I/O, no float."""

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum

from services.runtime.errors import NotFound

LEGAL_AGE = 18

# After the Financial Action Task Force's lists of October 2025, by ISO 3166-1: the countries it calls for
# countermeasures against; and Myanmar, which needs enhanced due diligence, with those under increased monitoring.
PROHIBITED_COUNTRIES = {"IR": "Iran", "KP": "North Korea"}
HIGH_RISK_COUNTRIES = {
    "AO": "Angola",
    "BG": "Bulgaria",
    "BO": "Bolivia",
    "CD": "the Democratic Republic of the Congo",
    "CI": "Côte d'Ivoire",
    "CM": "Cameroon",
    "DZ": "Algeria",
    "HT": "Haiti",
    "KE": "Kenya",
    "LA": "Laos",
    "LB": "Lebanon",
    "MC": "Monaco",
    "MM": "Myanmar",
    "NA": "Namibia",
    "NP": "Nepal",
    "SS": "South Sudan",
    "SY": "Syria",
    "VE": "Venezuela",
    "VG": "the British Virgin Islands",
    "VN": "Vietnam",
    "YE": "Yemen",
}

AMOUNT_THRESHOLD = 10_000
"""From how many units on an officer looks at a payment: of EUR, and of every currency that is not below."""
# Roughly 10,000 EUR in other currencies: fixed and rounded, so that people can know them by heart.
_AMOUNT_THRESHOLDS = {
    "AUD": 17_500,
    "BHD": 4_000,
    "CAD": 16_000,
    "CHF": 9_500,
    "CNY": 80_000,
    "CZK": 245_000,
    "DKK": 75_000,
    "GBP": 8_500,
    "HUF": 4_000_000,
    "IDR": 180_000_000,
    "INR": 950_000,
    "ISK": 1_450_000,
    "JPY": 1_650_000,
    "KRW": 16_000_000,
    "KWD": 3_300,
    "NOK": 115_000,
    "PLN": 43_000,
    "SEK": 110_000,
    "USD": 10_000,
    "VND": 290_000_000,
}

# What each finding adds to the risk of a payment, weightiest first.
_POINTS = {
    "SANCTIONS_HIT": 100,
    "PROHIBITED_COUNTRY": 90,
    "AMOUNT_OVER_THRESHOLD": 60,
    "VELOCITY_OVER_LIMIT": 60,
    "HIGH_RISK_COUNTRY": 25,
}
_HIGHEST_SCORE = 100
_DECLINE_FROM = 90
_REVIEW_FROM = 60


class KycNotFound(NotFound):
    """Nothing is known about the user."""

    message = "There is no KYC record of user {user_id}."


class Outcome(Enum):
    """How a check came out. The values are those of compliance.v1.KycCheck.Outcome."""

    PASSED = 1
    FAILED = 2
    FLAGGED = 3


class State(Enum):
    """Where a user's KYC stands. The values are those of compliance.v1.Kyc.State."""

    PENDING = 1
    VERIFIED = 2
    REJECTED = 3


class Decision(Enum):
    """What to do with a payment. The values are those of compliance.v1.ScreenPaymentResponse.Decision."""

    ALLOW = 1
    REVIEW = 2
    DECLINE = 3


@dataclass(frozen=True, slots=True)
class Profile:
    """What KYC needs to know about a user."""

    user_id: str
    sequence: int
    """That of the event it came with."""
    display_name: str
    country: str
    date_of_birth: date | None
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Listed:
    """An entry of the sanctions list."""

    number: int
    name: str
    """As listed; of an individual, LAST, First."""
    kind: str
    """individual, vessel, aircraft, or empty for an organisation."""
    program: str
    remarks: str
    """Clauses between semicolons, names it is also known by among them."""


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a user's identity."""

    name: str
    outcome: Outcome
    detail: str = ""
    """Why, in a sentence; empty when passed."""


@dataclass(frozen=True, slots=True)
class Kyc:
    """Where a user's KYC stands, and why."""

    state: State
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Amount:
    """Money in the currency's main unit."""

    currency_code: str
    value: Decimal


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about a payment, and why."""

    decision: Decision
    score: int
    """From 0 (no risk) to 100."""
    reasons: tuple[str, ...]
    """The one that decided, then what else was found, weightiest first; empty when allowed."""


def assess(profile: Profile, listed: Listed | None, today: date) -> Kyc:
    """Checks a profile, given the entry of the sanctions list that its name stands for, if any.

    Being listed does not reject a user: it declines their payments, so that each attempt is on record.
    """
    checks = (_complete(profile), _of_age(profile, today), _unlisted(listed), _from_good_country(profile))
    failed = any(check.outcome is Outcome.FAILED for check in checks)
    return Kyc(State.REJECTED if failed else State.VERIFIED, checks)


def _complete(profile: Profile) -> Check:
    facts = {
        "name": profile.display_name,
        "country of residence": profile.country,
        "date of birth": profile.date_of_birth,
    }
    missing = [fact for fact, value in facts.items() if not value]
    if missing:
        return Check("PROFILE_COMPLETE", Outcome.FAILED, f"The profile lacks the {' and the '.join(missing)}.")
    return Check("PROFILE_COMPLETE", Outcome.PASSED)


def _of_age(profile: Profile, today: date) -> Check:
    born = profile.date_of_birth
    if born is None:
        return Check("LEGAL_AGE", Outcome.FAILED, "The date of birth is unknown.")
    age = today.year - born.year - ((today.month, today.day) < (born.month, born.day))
    if age < LEGAL_AGE:
        return Check("LEGAL_AGE", Outcome.FAILED, f"The user is not {LEGAL_AGE} yet.")
    return Check("LEGAL_AGE", Outcome.PASSED)


def _unlisted(listed: Listed | None) -> Check:
    if listed is not None:
        return Check(
            "SANCTIONS", Outcome.FLAGGED, f"The name is like that of entry {listed.number} of the sanctions list."
        )
    return Check("SANCTIONS", Outcome.PASSED)


def _from_good_country(profile: Profile) -> Check:
    country = profile.country
    if country in PROHIBITED_COUNTRIES:
        return Check(
            "COUNTRY", Outcome.FLAGGED, f"Payments from and to {PROHIBITED_COUNTRIES[country]} are prohibited."
        )
    if country in HIGH_RISK_COUNTRIES:
        return Check(
            "COUNTRY", Outcome.FLAGGED, f"Payments from and to {HIGH_RISK_COUNTRIES[country]} are of high risk."
        )
    return Check("COUNTRY", Outcome.PASSED)


def judge(amount: Amount, countries: frozenset[str], *, listed: bool, over_velocity: bool) -> Verdict:
    """Weighs a payment, given its parties' countries, whether one is on the sanctions list, and the payer's hurry."""
    applies = {
        "SANCTIONS_HIT": listed,
        "PROHIBITED_COUNTRY": not countries.isdisjoint(PROHIBITED_COUNTRIES),
        "AMOUNT_OVER_THRESHOLD": amount.value >= _AMOUNT_THRESHOLDS.get(amount.currency_code, AMOUNT_THRESHOLD),
        "VELOCITY_OVER_LIMIT": over_velocity,
        "HIGH_RISK_COUNTRY": not countries.isdisjoint(HIGH_RISK_COUNTRIES),
    }
    found = [finding for finding in _POINTS if applies[finding]]
    score = min(sum(_POINTS[finding] for finding in found), _HIGHEST_SCORE)
    decision, reason = _decide(found, score)
    if decision is Decision.ALLOW:
        return Verdict(decision, score, ())
    return Verdict(decision, score, (reason, *(finding for finding in found if finding != reason)))


def _decide(found: list[str], score: int) -> tuple[Decision, str]:
    """Returns the decision and the reason that the payment will state for it."""
    if "SANCTIONS_HIT" in found:
        return Decision.DECLINE, "SANCTIONS_HIT"
    if score >= _DECLINE_FROM:
        return Decision.DECLINE, "RISK_TOO_HIGH"
    if "AMOUNT_OVER_THRESHOLD" in found:
        return Decision.REVIEW, "AMOUNT_OVER_THRESHOLD"
    if score >= _REVIEW_FROM:
        return Decision.REVIEW, "RISK_REVIEW"
    return Decision.ALLOW, ""
