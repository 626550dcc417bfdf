"""What makes a user's KYC pass."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from services.compliance.domain import Listed, Outcome, Profile, State, assess

TODAY = date(2026, 11, 21)
NOW = datetime(2026, 11, 21, tzinfo=UTC)
ADA = Profile("usr_ada", 1, "Ada Byron", "DE", date(1990, 1, 1), NOW, NOW)
LISTED = Listed(7, "BYRON, Ada", "individual", "SAMPLE", "")


def outcomes(profile: Profile, listed: Listed | None = None, today: date = TODAY) -> dict[str, Outcome]:
    return {check.name: check.outcome for check in assess(profile, listed, today).checks}


def test_a_complete_profile_of_an_adult_is_verified_and_says_nothing_more() -> None:
    kyc = assess(ADA, None, TODAY)
    assert kyc.state is State.VERIFIED
    assert [(check.name, check.outcome, check.detail) for check in kyc.checks] == [
        (name, Outcome.PASSED, "") for name in ("PROFILE_COMPLETE", "LEGAL_AGE", "SANCTIONS", "COUNTRY")
    ]


@pytest.mark.parametrize(
    "lacking", [replace(ADA, display_name=""), replace(ADA, country=""), replace(ADA, date_of_birth=None)]
)
def test_an_incomplete_profile_is_rejected(lacking: Profile) -> None:
    assert outcomes(lacking)["PROFILE_COMPLETE"] is Outcome.FAILED
    assert assess(lacking, None, TODAY).state is State.REJECTED


def test_what_is_missing_is_named() -> None:
    [complete, *_] = assess(replace(ADA, country="", date_of_birth=None), None, TODAY).checks
    assert complete.detail == "The profile lacks the country of residence and the date of birth."


@pytest.mark.parametrize(
    ("born", "state"),
    [(date(2008, 11, 21), State.VERIFIED), (date(2008, 11, 22), State.REJECTED)],
    ids=["on the eighteenth birthday", "a day before it"],
)
def test_one_is_of_age_from_the_eighteenth_birthday_on(born: date, state: State) -> None:
    assert assess(replace(ADA, date_of_birth=born), None, TODAY).state is state


def test_who_was_born_on_a_leap_day_is_of_age_on_the_first_of_march() -> None:
    leaper = replace(ADA, date_of_birth=date(2008, 2, 29))
    assert outcomes(leaper, today=date(2026, 2, 28))["LEGAL_AGE"] is Outcome.FAILED
    assert outcomes(leaper, today=date(2026, 3, 1))["LEGAL_AGE"] is Outcome.PASSED


def test_a_listed_name_is_flagged_but_not_rejected() -> None:
    kyc = assess(ADA, LISTED, TODAY)
    assert kyc.state is State.VERIFIED
    assert outcomes(ADA, LISTED)["SANCTIONS"] is Outcome.FLAGGED


@pytest.mark.parametrize("country", ["KP", "MM"])
def test_a_prohibited_or_risky_country_is_flagged_but_not_rejected(country: str) -> None:
    profile = replace(ADA, country=country)
    assert outcomes(profile)["COUNTRY"] is Outcome.FLAGGED
    assert assess(profile, None, TODAY).state is State.VERIFIED
