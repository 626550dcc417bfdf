"""Whose name stands for somebody on the sanctions list, and whose does not."""

import time
from pathlib import Path

import pytest

import services.compliance
from services.compliance import sdn
from services.compliance.domain import Listed
from services.compliance.watchlist import Watchlist

SAMPLE = Path(services.compliance.__file__).with_name("sanctions_sample.csv")


def individual(name: str, remarks: str = "") -> Listed:
    return Listed(1, name, "individual", "SAMPLE", remarks)


@pytest.mark.parametrize(
    "typed",
    [
        "Torleif Åkervindsson",
        "ÅKERVINDSSON, Torleif",
        "åkervindsson torleif",
        "Torleif Akervindsson",
        "Tórlèif  A\u030akervindsson",  # composed and decomposed
        "Torleif Akervind-sson",
        "Torlief Akervindsson",
        "Torleif Akervindson",
        "Zorleif Åkervindsson",
    ],
)
def test_order_case_accents_punctuation_and_a_typo_hide_nobody(typed: str) -> None:
    assert Watchlist([individual("ÅKERVINDSSON, Torleif")]).match(typed)


@pytest.mark.parametrize("typed", ["Faysal Idris al-Mazrubani", "Al Mazrubani Faysal", "Faysal Almazrubani"])
def test_middle_names_may_be_missing_and_words_joined(typed: str) -> None:
    assert Watchlist([individual("AL-MAZRUBANI, Faysal Idris")]).match(typed)


@pytest.mark.parametrize("typed", ["Strzembonczak Kazimierz", "Kazimierz Strzembończak"])
def test_letters_that_unicode_does_not_take_apart_are_plain_letters_too(typed: str) -> None:
    assert Watchlist([individual("STRZEMBOŃCZAK, Kazimierz")]).match(typed)
    assert Watchlist([individual("THORVÆLDUR, Søren")]).match("Soren Thorvaeldur")


@pytest.mark.parametrize(
    "typed",
    [
        "Jon Smyth",
        "Viktor",
        "Drozhnikev",
        "Viktor Petrov",
        "Anatolyevich Viktor",
        "Viktoria Drozhnik",
        "",
        "!?",
        "维克多",
    ],
)
def test_a_part_of_a_name_or_a_distant_likeness_is_somebody_else(typed: str) -> None:
    assert Watchlist([individual("DROZHNIKEV, Viktor Anatolyevich"), individual("SMITH, John")]).match(typed) is None


def test_the_same_letters_in_another_order_are_somebody_else() -> None:
    assert Watchlist([individual("SALINO, Mariano")]).match("Maniaro Solani") is None


def test_a_short_name_must_be_the_same() -> None:
    watchlist = Watchlist([individual("LI, Wei")])
    assert watchlist.match("Wei Li")
    assert watchlist.match("Mei Li") is None


def test_other_names_in_the_remarks_count_but_a_single_word_of_a_person_does_not() -> None:
    watchlist = Watchlist(
        [
            individual(
                "MORAVENKO, Stepan", "DOB 03 Mar 1963; a.k.a. 'MORAVEN, Stefan'; f.k.a. 'DON VARISTO'; a.k.a. 'CARLOS'."
            )
        ]
    )
    assert watchlist.match("Stefan Moraven")
    assert watchlist.match("Don Varisto")
    assert watchlist.match("Carlos") is None


def test_the_closest_of_several_entries_is_found() -> None:
    near, exact = (
        Listed(1, "KOVALENKA, Artyom", "individual", "", ""),
        Listed(2, "KOVALENKO, Artyom", "individual", "", ""),
    )
    assert Watchlist([near, exact]).match("Artyom Kovalenko") is exact


def test_organisations_are_screened_and_vessels_are_not() -> None:
    watchlist = Watchlist(
        [
            Listed(1, "TARNISH & QUILL EXPORT CO.", "", "SAMPLE", ""),
            Listed(2, "MARIA ESPERANTA", "vessel", "SAMPLE", ""),
        ]
    )
    assert watchlist.match("Tarnish & Quill Export Co")
    assert watchlist.match("Maria Esperanta") is None


def test_everybody_on_the_sample_list_is_found_by_every_spelling_of_the_full_name() -> None:
    entries = sdn.read(SAMPLE.read_bytes())
    watchlist = Watchlist(entries)
    people = [entry for entry in entries if entry.kind == "individual"]
    assert len(entries) == 40
    assert len(people) > 25
    for person in people:
        last, first = person.name.split(", ")
        assert watchlist.match(f"{first} {last}") == person
        assert watchlist.match(f"{last} {first}".title()) == person
        assert watchlist.match(f"{first} {last[:-1]}") == person


def test_a_name_is_found_among_twenty_thousand_in_a_few_milliseconds() -> None:
    syllables = ["ba", "do", "ke", "li", "mu", "na", "po", "ri", "su", "ta"]
    made = ["".join(syllables[int(digit)] for digit in f"{number:05d}") for number in range(20_000)]
    watchlist = Watchlist(individual(f"{name}, {name[::-1]}") for name in made)
    names = [f"Tabelo Komunari{end}" for end in syllables]
    started = time.perf_counter()
    for name in names:
        watchlist.match(name)
    assert (time.perf_counter() - started) / len(names) < 0.02  # measured: 0.4 ms


def test_a_list_that_is_not_of_the_layout_is_refused_with_its_line() -> None:
    good = b'36,"ACME","-0-","SAMPLE",-0-,-0-,-0-,-0-,-0-,-0-,-0-,-0- \r\n'
    assert sdn.read(b"\xef\xbb\xbf" + good + b"\x1a") == [Listed(36, "ACME", "", "SAMPLE", "")]
    with pytest.raises(ValueError, match="line 2"):
        sdn.read(good + b"37,ACME\r\n")
    with pytest.raises(ValueError, match="empty"):
        sdn.read(b"\r\n\x1a")
