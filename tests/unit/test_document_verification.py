"""What decides whether a document is accepted, by its kind and what was read."""

from dataclasses import replace
from datetime import date

import pytest

from services.document.domain import Inspection, Kind, Outcome, State
from services.document.verification.domain import CHECKS, CHECKS_OF_ZONE, Facts, Identity, Verdict, judge
from services.document.verification.mrz import check_digit

TODAY, BORN, EXPIRES = date(2026, 11, 21), date(1974, 8, 12), date(2031, 4, 15)
NAME = "ERIKSSON<<ANNA<MARIA"
_ALL_UNREADABLE = dict.fromkeys(CHECKS_OF_ZONE, "UNREADABLE")


def passport(code: str = "P<", name: str = NAME, born: str = "740812", expires: str = "310415") -> tuple[str, ...]:
    """The zone of a passport, whose check digits are right whatever is in it."""
    numbers = "L898902C3" + check_digit("L898902C3")
    dates = born + check_digit(born), expires + check_digit(expires)
    rest = "<" * 15
    second = f"{numbers}UTO{dates[0]}F{dates[1]}{rest}{check_digit(numbers + dates[0] + dates[1] + rest)}"
    return f"{code}UTO{name}".ljust(44, "<"), second


def card(code: str = "I<", name: str = NAME) -> tuple[str, ...]:
    first = f"{code}UTOD231458907".ljust(30, "<")
    dates = "7408122", "310415" + check_digit("310415")
    composite = check_digit(first[5:] + dates[0] + dates[1] + "<" * 11)
    return first, f"{dates[0]}F{dates[1]}UTO".ljust(29, "<") + composite, name.ljust(30, "<")


def changed(lines: tuple[str, ...], line: int, place: int, character: str) -> tuple[str, ...]:
    text = lines[line]
    return (*lines[:line], text[:place] + character + text[place + 1 :], *lines[line + 1 :])


def facts(kind: Kind, lines: tuple[str, ...], name: str = "Anna Maria Eriksson", born: date = BORN) -> Facts:
    inspection = Inspection(shorter_side=900, mrz=lines, mrz_found=True)
    return Facts(kind=kind, content_type="image/png", today=TODAY, inspection=inspection, identity=Identity(name, born))


def problems(verdict: Verdict) -> dict[str, str]:
    return {one.name: one.outcome.name for one in verdict.checks if one.outcome is not Outcome.PASSED}


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        (Kind.PASSPORT, passport()),
        (Kind.PASSPORT, passport(code="PD")),
        (Kind.ID_CARD, card()),
        (Kind.ID_CARD, card("AC")),
        (Kind.ID_CARD, card("C<")),
        (Kind.DRIVING_LICENCE, card("D1")),
        (Kind.DRIVING_LICENCE, card("ID")),
    ],
)
def test_a_document_is_verified_when_all_checks_of_its_kind_pass(kind: Kind, lines: tuple[str, ...]) -> None:
    verdict = judge(facts(kind, lines))
    assert (verdict.state, problems(verdict), verdict.expire_date) == (State.VERIFIED, {}, EXPIRES)
    assert [one.name for one in verdict.checks] == [*CHECKS, *CHECKS_OF_ZONE]


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        (Kind.PASSPORT, card()),
        (Kind.PASSPORT, passport(code="V<")),
        (Kind.ID_CARD, passport()),
        (Kind.ID_CARD, card("D<")),
        (Kind.DRIVING_LICENCE, passport()),
        (Kind.DRIVING_LICENCE, card("C<")),
        (Kind.PASSPORT, passport(code="<<")),
        (Kind.ID_CARD, card("<<")),
        (Kind.DRIVING_LICENCE, card("<<")),
    ],
)
def test_a_document_of_another_kind_is_rejected(kind: Kind, lines: tuple[str, ...]) -> None:
    assert problems(judge(facts(kind, lines))) == {"DOCUMENT_TYPE": "FAILED"}


@pytest.mark.parametrize(
    ("inspection", "expected"),
    [
        (Inspection(shorter_side=200), {}),
        (Inspection(shorter_side=199), {"USEFUL_SIZE": "FAILED"}),
        (Inspection("It is broken."), {"READABLE": "FAILED", "USEFUL_SIZE": "UNREADABLE"}),
    ],
)
def test_a_proof_of_address_has_the_checks_of_any_file(inspection: Inspection, expected: dict[str, str]) -> None:
    of_file = replace(facts(Kind.PROOF_OF_ADDRESS, ()), inspection=inspection)
    assert problems(judge(of_file)) == expected
    assert problems(judge(replace(of_file, of_another_user=True))) == expected | {"NOT_ANOTHER_USERS": "FAILED"}


def test_a_small_picture_is_of_use_when_its_zone_can_be_read() -> None:
    small = facts(Kind.PASSPORT, passport())
    small = replace(small, inspection=replace(small.inspection, shorter_side=120))
    assert problems(judge(small)) == {}


@pytest.mark.parametrize(("points", "expected"), [(100, {}), (99.9, {"USEFUL_SIZE": "FAILED"})])
def test_a_pdf_is_measured_in_points(points: float, expected: dict[str, str]) -> None:
    of_file = replace(facts(Kind.PROOF_OF_ADDRESS, ()), content_type="application/pdf")
    assert problems(judge(replace(of_file, inspection=Inspection(shorter_side=points)))) == expected


@pytest.mark.parametrize(
    ("lines", "found", "words"),
    [
        ((), False, "No machine-readable zone"),
        ((), True, "could not be read"),
        (("A" * 36, "A" * 36), True, "another format"),
    ],
)
def test_without_a_zone_that_can_be_read_nobody_can_tell(lines: tuple[str, ...], found: bool, words: str) -> None:
    inspection = Inspection(shorter_side=900, mrz=lines, mrz_found=found)
    verdict = judge(replace(facts(Kind.PASSPORT, ()), inspection=inspection))
    assert (verdict.state, problems(verdict)) == (State.REJECTED, _ALL_UNREADABLE)
    assert words in next(one.detail for one in verdict.checks if one.name == "MRZ_FOUND")


def test_what_could_not_be_read_time_and_again_is_not_called_broken() -> None:
    given_up = replace(facts(Kind.PASSPORT, ()), inspection=Inspection(), given_up=True)
    assert problems(judge(given_up)) == {"READABLE": "UNREADABLE", "USEFUL_SIZE": "UNREADABLE"} | _ALL_UNREADABLE


@pytest.mark.parametrize(
    ("place", "what"),
    [(9, "document number"), (19, "date of birth"), (27, "date of expiry"), (42, "optional data"), (43, "whole zone")],
)
def test_a_wrong_check_digit_is_named_and_is_all_that_is_wrong(place: int, what: str) -> None:
    lines = passport()
    digit = str((int(lines[1][place].replace("<", "0")) + 1) % 10)
    verdict = judge(facts(Kind.PASSPORT, changed(lines, 1, place, digit)))
    assert problems(verdict) == {"CHECK_DIGITS": "FAILED"}
    [detail] = [one.detail for one in verdict.checks if one.detail]
    assert what in detail


def test_what_cannot_be_where_it_was_read_was_misread_and_is_not_called_wrong() -> None:
    verdict = judge(facts(Kind.PASSPORT, changed(passport(), 1, 13, "T")))
    assert problems(verdict) == {"CHECK_DIGITS": "UNREADABLE", "DATE_OF_BIRTH_MATCHES": "UNREADABLE"}


@pytest.mark.parametrize(
    ("place", "check"), [(14, "DATE_OF_BIRTH_MATCHES"), (21, "NOT_EXPIRED")], ids=["birth", "expiry"]
)
def test_a_date_with_a_wrong_check_digit_disproves_nothing(place: int, check: str) -> None:
    verdict = judge(facts(Kind.PASSPORT, changed(passport(), 1, place, "1")))
    assert problems(verdict) == {"CHECK_DIGITS": "FAILED", check: "UNREADABLE"}


@pytest.mark.parametrize(
    ("expires", "expected"),
    [
        ("261121", {}),
        ("261120", {"NOT_EXPIRED": "FAILED"}),
        ("991231", {"NOT_EXPIRED": "FAILED"}),
        ("<<<<<<", {"NOT_EXPIRED": "UNREADABLE"}),
        ("310231", {"NOT_EXPIRED": "UNREADABLE"}),
    ],
)
def test_a_document_is_valid_through_its_last_day(expires: str, expected: dict[str, str]) -> None:
    assert problems(judge(facts(Kind.PASSPORT, passport(expires=expires)))) == expected


@pytest.mark.parametrize(
    ("born", "expected"),
    [
        ("7408<<", {}),
        ("74<<<<", {}),
        ("<<<<<<", {"DATE_OF_BIRTH_MATCHES": "UNREADABLE"}),
        ("740813", {"DATE_OF_BIRTH_MATCHES": "FAILED"}),
        ("7409<<", {"DATE_OF_BIRTH_MATCHES": "FAILED"}),
    ],
)
def test_a_date_of_birth_is_compared_as_far_as_the_document_has_it(born: str, expected: dict[str, str]) -> None:
    assert problems(judge(facts(Kind.PASSPORT, passport(born=born)))) == expected


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Anna Berg", "surname"),
        ("Berta Eriksson", "given names"),
        ("Anna Berta Eriksson", "lacks"),
        ("田中太郎", "cannot be compared"),
    ],
)
def test_another_name_fails_and_the_reason_does_not_tell_the_documents(name: str, words: str) -> None:
    verdict = judge(facts(Kind.PASSPORT, passport(), name))
    assert problems(verdict) == {"NAME_MATCHES": "FAILED"}
    [detail] = [one.detail for one in verdict.checks if one.detail]
    assert words in detail
    assert "MARIA" not in detail.upper()


@pytest.mark.parametrize("name", ["Mariam Livingstone", "Vladimir Mario Lipatov Putin"])
def test_a_card_whose_name_fills_its_line_is_nobody_elses(name: str) -> None:
    lines = card(name="LI<<ALEXANDRINA<ELISABETH<MARI")
    assert judge(facts(Kind.ID_CARD, lines, "Alexandrina Elisabeth Maria Li")).state is State.VERIFIED
    assert problems(judge(facts(Kind.ID_CARD, lines, name))) == {"NAME_MATCHES": "FAILED"}


@pytest.mark.parametrize("name", ["<<ANNA", "ER1KSSON<<ANNA"])
def test_a_name_that_was_misread_is_not_called_wrong(name: str) -> None:
    assert problems(judge(facts(Kind.PASSPORT, passport(name=name)))) == {"NAME_MATCHES": "UNREADABLE"}


def test_a_wrong_last_day_is_not_kept() -> None:
    assert judge(facts(Kind.PASSPORT, changed(passport(), 1, 27, "7"))).expire_date is None
