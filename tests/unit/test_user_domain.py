"""Profiles, updates and the turns of signing keys, without a database."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from services.runtime.errors import Error, EtagMismatch, InvalidRequest
from services.user.domain import (
    KEY_AGE,
    KEY_NOTICE,
    AdminOnlyField,
    InvalidDateOfBirth,
    Profile,
    SigningKey,
    State,
    UnknownCountry,
    User,
    missing_turns,
    outlived,
    require_may_change,
    signing,
    whole_date,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TODAY = NOW.date()
COUNTRIES = frozenset({"DE", "GB"})
PROFILE = Profile("Ada Byron", "GB", date(1990, 2, 28), "1 Square")
USER = User.new("usr_1", "ada@example.com", PROFILE, frozenset({"customer"}), NOW)
LATER = NOW + timedelta(days=1)


def key(kid: str, sign_from: datetime) -> SigningKey:
    return SigningKey(kid, b"", sign_from)


@pytest.mark.parametrize(
    ("profile", "error"),
    [
        (replace(PROFILE, display_name="  "), InvalidRequest),
        (replace(PROFILE, display_name="Ada\x1b[31m"), InvalidRequest),
        (replace(PROFILE, display_name="Ada\nByron"), InvalidRequest),
        (replace(PROFILE, address="a\x00b"), InvalidRequest),
        (replace(PROFILE, country="ZZ"), UnknownCountry),
        (replace(PROFILE, country=""), UnknownCountry),
        (replace(PROFILE, date_of_birth=TODAY), InvalidDateOfBirth),
        (replace(PROFILE, date_of_birth=date(1899, 12, 31)), InvalidDateOfBirth),
    ],
)
def test_a_profile_that_cannot_be_is_refused(profile: Profile, error: type[Error]) -> None:
    with pytest.raises(error):
        profile.checked(COUNTRIES, TODAY)


def test_a_profile_is_kept_without_outer_blanks_and_an_address_with_its_lines() -> None:
    profile = replace(PROFILE, display_name=" Ada Byron\t", address="\n1 Square\nLondon ")
    assert profile.checked(COUNTRIES, TODAY) == replace(PROFILE, address="1 Square\nLondon")


def test_someone_may_be_born_on_the_first_day_of_1900_and_yesterday() -> None:
    for born in (date(1900, 1, 1), TODAY - timedelta(days=1)):
        assert replace(PROFILE, date_of_birth=born).checked(COUNTRIES, TODAY).date_of_birth == born


@pytest.mark.parametrize("parts", [(1990, 2, 0), (1990, 0, 0), (0, 2, 28), (1990, 2, 29), (-1, 1, 1), (10000, 1, 1)])
def test_a_date_of_birth_is_a_whole_date_that_exists(parts: tuple[int, int, int]) -> None:
    with pytest.raises(InvalidDateOfBirth):
        whole_date(*parts)


def test_roles_and_state_are_for_admins_to_change() -> None:
    require_may_change(frozenset({"roles", "state"}), admin=True)
    require_may_change(frozenset({"address"}), admin=False)
    with pytest.raises(AdminOnlyField, match="roles"):
        require_may_change(frozenset({"roles", "address"}), admin=False)


def test_only_what_identifies_a_user_is_an_event() -> None:
    moved = USER.with_changes({"address": "2 Square"}, COUNTRIES, LATER)
    assert (moved.version, moved.event_sequence, moved.update_time) == (2, 1, LATER)
    suspended = moved.with_changes({"state": State.SUSPENDED}, COUNTRIES, LATER)
    assert (suspended.version, suspended.event_sequence) == (3, 1)
    renamed = suspended.with_changes({"display_name": "Ada Lovelace"}, COUNTRIES, LATER)
    assert (renamed.version, renamed.event_sequence) == (4, 2)


def test_an_update_that_changes_nothing_leaves_the_version() -> None:
    assert USER.with_changes({"display_name": " Ada Byron "}, COUNTRIES, LATER) is USER


def test_an_update_may_be_based_on_the_current_version_or_on_none() -> None:
    USER.require_etag("")
    USER.require_etag("1")
    with pytest.raises(EtagMismatch):
        USER.require_etag("2")


def test_the_first_key_signs_at_once_and_the_next_after_its_age() -> None:
    assert missing_turns([], NOW) == [NOW, NOW + KEY_AGE]
    assert missing_turns([key("a", NOW), key("b", NOW + KEY_AGE)], NOW) == []


def test_the_key_after_the_next_is_made_at_the_rotation_and_never_signs_unannounced() -> None:
    keys = [key("a", NOW - KEY_AGE), key("b", NOW)]
    assert missing_turns(keys, NOW) == [NOW + KEY_AGE]
    long_after = NOW + KEY_AGE * 3
    assert missing_turns(keys, long_after) == [long_after + KEY_NOTICE]


def test_the_newest_key_whose_turn_has_come_signs() -> None:
    keys = [key("next", LATER), key("old", NOW - KEY_AGE), key("active", NOW)]
    assert signing(keys, NOW).kid == "active"
    assert signing(keys, LATER).kid == "next"


def test_a_key_is_published_while_a_token_signed_with_it_may_live() -> None:
    keys = [key("old", NOW - KEY_AGE), key("active", NOW), key("next", NOW + KEY_AGE)]
    assert outlived(keys, NOW + timedelta(minutes=11)) == []
    assert [gone.kid for gone in outlived(keys, NOW + timedelta(minutes=12))] == ["old"]
