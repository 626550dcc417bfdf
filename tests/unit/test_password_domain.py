"""How long guessing takes, and codes, without a database."""

from datetime import UTC, datetime, timedelta

import pytest

from services.user.passwords import domain
from services.user.passwords.codes import Codes
from services.user.passwords.domain import Limits, Reset, TooManyAttempts, code, same_code

RESET = Reset("pwd_1", "usr_1", "ada@example.com", datetime(2026, 1, 1, tzinfo=UTC))


def test_the_wait_begins_at_the_last_free_failure_and_doubles_up_to_a_quarter_of_an_hour() -> None:
    waits = [wait.total_seconds() for wait in Limits(failures_per_account=5).waits]
    assert waits == [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900]
    assert Limits(failures_per_account=1).waits[0] == timedelta(seconds=1)


@pytest.mark.parametrize(("seconds", "told"), [(-1.0, 1), (0.2, 1), (1.0, 1), (1.2, 2), (900.0, 900)])
def test_whoever_has_to_wait_is_told_whole_seconds_after_which_they_need_not(seconds: float, told: int) -> None:
    error = TooManyAttempts(seconds)
    assert (error.retry_after, error.metadata, error.reason) == (told, {"seconds": str(told)}, "TOO_MANY_ATTEMPTS")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("2001:DB8::1", "2001:db8:0:0::2"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_addresses_that_one_household_has_are_one(one: str, other: str) -> None:
    assert domain.origin(one) == domain.origin(other)


def test_other_addresses_accounts_and_what_else_is_counted_are_not() -> None:
    addresses = ["", "192.0.2.1", "192.0.2.2", "2001:db8:1:2::", "2001:db8:1:3::", "::ffff:192.0.2.3", "::1"]
    counted = [domain.origin(one) for one in addresses]
    counted += [
        domain.account("a@b.c"),
        domain.resets_of("a@b.c"),
        domain.account("b@b.c"),
        domain.account("192.0.2.1"),
    ]
    assert len(set(counted)) == len(counted)
    assert domain.account("Ada@Example.COM") == domain.account("ada@example.com")


def test_an_account_is_the_same_in_upper_and_lower_case_and_another_with_what_only_looks_alike() -> None:
    for key in (domain.account, domain.resets_of):
        assert key("KATE@example.com") == key("kate@Example.com")
        assert key("\N{KELVIN SIGN}ate@example.com") != key("kate@example.com")
        assert key("\u00c4da@example.com") != key("\u00e4da@example.com")  # nor are they one to the database


def test_a_code_has_50_bits_of_crockfords_base32_in_two_halves() -> None:
    assert code(b"key", RESET) == code(b"key", RESET)
    codes = {code(b"key", Reset(f"pwd_{number}", "usr_1", "", RESET.expire_time)) for number in range(500)}
    assert len(codes) == 500
    assert {len(one) for one in codes} == {11} and {one[5] for one in codes} == {"-"}
    assert set("".join(codes)) == set("0123456789ABCDEFGHJKMNPQRSTVWXYZ-")


def test_a_code_belongs_to_one_reset_of_one_user_and_one_secret() -> None:
    other = Reset("pwd_1", "usr_2", "ada@example.com", RESET.expire_time)
    codes = [Codes("one secret").of(RESET), Codes("one secret").of(other), Codes("another secret").of(RESET)]
    assert len(set(codes)) == 3
    assert Codes("one secret").match(codes[0], RESET)
    assert not Codes("another secret").match(codes[0], RESET)


def test_nobody_has_no_code() -> None:
    nobody = Reset("pwd_1", "", "ada@example.com", RESET.expire_time)
    codes = Codes("one secret")
    assert not codes.match(codes.of(nobody), nobody)


@pytest.mark.parametrize("given", ["ABCDE-0123J", "abcde0123j", " abcde - o12 3j", "ABCDEOI23J", "abcdeol23j"])
def test_a_code_is_the_same_however_it_is_typed(given: str) -> None:
    assert same_code(given, "ABCDE-0123J")


@pytest.mark.parametrize("given", ["", "-", "ABCDE-0123", "ABCDE-0123J0", "ABCDE-01234", "ÄBCDE-0123J", "ABCDE\t0123J"])
def test_others_are_not(given: str) -> None:
    assert not same_code(given, "ABCDE-0123J")
