"""Machine-readable zones, by the examples of ICAO Doc 9303 and by what can be wrong with one."""

from dataclasses import replace
from datetime import date

import pytest

from services.document.verification import mrz
from services.document.verification.mrz import Zone, check_digit

# Doc 9303, part 4, appendix B, and part 5, appendix B.
PASSPORT = ("P<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<<<<<<<<<", "L898902C36UTO7408122F1204159ZE184226B<<<<<10")
CARD = ("I<UTOD231458907<<<<<<<<<<<<<<<", "7408122F1204159UTO<<<<<<<<<<<6", "ERIKSSON<<ANNA<MARIA<<<<<<<<<<")
LONG_NUMBER = ("I<UTOD23145890<7349<<<<<<<<<<<", "3407127M9507122UTO<<<<<<<<<<<2", "STEVENSON<<PETER<JOHN<<<<<<<<<")
TODAY = date(2012, 4, 15)


def read(*lines: str) -> Zone:
    zone = mrz.read(lines)
    assert zone
    return zone


def wrong(zone: Zone) -> list[str]:
    return [name for name, field in zone.fields.items() if not field.right]


@pytest.mark.parametrize(
    ("text", "digit"), [("520727", "3"), ("AB2134<<<", "5"), ("HA672242<658022549601086<<<<<<<<<<<<<<0", "8")]
)
def test_a_check_digit_is_the_one_of_the_standards_examples(text: str, digit: str) -> None:
    assert check_digit(text) == digit


@pytest.mark.parametrize(("lines", "code"), [(PASSPORT, "P"), (CARD, "I")])
def test_the_specimens_of_the_standard_are_read(lines: tuple[str, ...], code: str) -> None:
    zone = read(*lines)
    assert (zone.code, zone.surname, zone.given_names) == (code, ("ERIKSSON",), ("ANNA", "MARIA"))
    assert not zone.name_may_be_cut
    assert (zone.expire_date(TODAY), zone.is_born(date(1974, 8, 12))) == (TODAY, True)
    assert wrong(zone) == []


def test_a_long_number_of_a_card_goes_on_in_the_optional_data() -> None:
    zone = read(*LONG_NUMBER)
    assert (zone.number.text, zone.number.digit) == ("D23145890734", "9")
    assert wrong(zone) == []
    assert wrong(read(LONG_NUMBER[0].replace("7349", "7348"), *LONG_NUMBER[1:])) == [
        "the document number",
        "the whole zone (composite)",
    ]


@pytest.mark.parametrize(
    ("place", "character", "fields"),
    [
        (9, "7", ["the document number", "the whole zone (composite)"]),
        (3, "3", ["the document number", "the whole zone (composite)"]),
        (19, "3", ["the date of birth", "the whole zone (composite)"]),
        (27, "8", ["the date of expiry", "the whole zone (composite)"]),
        (42, "2", ["the personal number or optional data", "the whole zone (composite)"]),
        (43, "1", ["the whole zone (composite)"]),
        (20, "M", []),
    ],
)
def test_a_wrong_character_is_found_by_the_check_digits_that_are_about_it(
    place: int, character: str, fields: list[str]
) -> None:
    second = PASSPORT[1][:place] + character + PASSPORT[1][place + 1 :]
    assert wrong(read(PASSPORT[0], second)) == fields


@pytest.mark.parametrize("digit", ["<", "0"])
def test_a_passport_without_optional_data_may_have_a_filler_for_its_check_digit(digit: str) -> None:
    numbers, dates, rest = "L898902C36", "74081221204159", "<" * 14 + digit
    second = f"{numbers}UTO7408122F1204159{rest}{check_digit(numbers + dates + rest)}"
    assert wrong(read(PASSPORT[0], second)) == []


@pytest.mark.parametrize("place", [13, 19, 24, 9, 43])
def test_a_letter_where_there_are_only_digits_was_misread(place: int) -> None:
    second = PASSPORT[1][:place] + "O" + PASSPORT[1][place + 1 :]
    assert any(not field.legible for field in read(PASSPORT[0], second).fields.values())


@pytest.mark.parametrize(
    "lines",
    [
        (),
        (PASSPORT[0],),
        (PASSPORT[0], PASSPORT[1][:-1]),
        CARD[:2],
        ("I<UTOERIKSSON<<ANNA<MARIA<<<<<<<<<<<", "D231458907UTO7408122F1204159<<<<<<<6"),  # TD2
    ],
)
def test_other_formats_are_not_guessed_at(lines: tuple[str, ...]) -> None:
    assert mrz.read(lines) is None


@pytest.mark.parametrize(
    ("text", "today", "expected"),
    [
        ("301231", date(2026, 11, 21), date(2030, 12, 31)),
        ("991231", date(2026, 11, 21), date(1999, 12, 31)),
        ("760101", date(2026, 11, 21), date(2076, 1, 1)),
        ("050101", date(2095, 11, 21), date(2105, 1, 1)),
        ("240229", date(2026, 11, 21), date(2024, 2, 29)),
        ("230229", date(2026, 11, 21), None),
        ("301301", date(2026, 11, 21), None),
        ("<<<<<<", date(2026, 11, 21), None),
        ("3O1231", date(2026, 11, 21), None),
    ],
)
def test_a_year_of_expiry_of_two_digits_is_one_around_today(text: str, today: date, expected: date | None) -> None:
    zone = read(*CARD)
    assert replace(zone, expires=replace(zone.expires, text=text)).expire_date(today) == expected


@pytest.mark.parametrize(
    ("text", "born", "known"),
    [
        ("740812", date(1974, 8, 12), True),
        ("740812", date(1974, 8, 13), False),
        ("740812", date(1975, 8, 12), False),
        ("7408<<", date(1974, 8, 30), True),
        ("7408<<", date(1974, 9, 12), False),
        ("74<<<<", date(1974, 1, 1), True),
        ("740812", date(1874, 8, 12), True),  # two digits do not tell
    ],
)
def test_a_date_of_birth_is_compared_as_far_as_it_is_known(text: str, born: date, known: bool) -> None:
    zone = read(*CARD)
    assert replace(zone, born=replace(zone.born, text=text)).is_born(born) is known


def test_a_name_that_fills_its_field_may_be_cut() -> None:
    assert read("P<UTONILAVADHANANANDA<<CHAYAPA<DEJTHAMRONG<K", PASSPORT[1]).name_may_be_cut
    assert read(*CARD[:2], "BENNELONG<WOOLOOMOOLO<<DINGO<P").name_may_be_cut
