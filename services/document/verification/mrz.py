"""Machine-readable zones: ICAO Doc 9303, parts 3, 4 (TD3: passports) and 5 (TD1: cards). No misreading is mended."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

TD3, TD1 = (44, 44), (30, 30, 30)
"""The lengths of their lines."""
FILLER = "<"
LONGEST_VALIDITY_YEARS = 50
"""A year of expiry, of which there are two digits, is at most so far in the future, otherwise of the last century.
Documents are valid for ten years, a few for thirty."""

_VALUES = {FILLER: 0} | {one: value for value, one in enumerate("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")}
_WEIGHTS = (7, 3, 1)


@dataclass(frozen=True, slots=True)
class Field:
    """What a check digit is about."""

    text: str
    digit: str
    """As it was read."""
    numeric: bool = False
    """Whether only digits and fillers can be in it."""
    may_be_filler: bool = False
    """Whether `<` may be the digit of an empty field, in place of 0."""

    @property
    def legible(self) -> bool:
        """Whether everything in it is what can be there: a letter in a date was not printed, but misread."""
        letters = self.numeric and not re.fullmatch("[0-9<]*", self.text)
        return not letters and (self.digit.isdecimal() or self._is_empty)

    @property
    def right(self) -> bool:
        """Whether the check digit is the one that follows from the text."""
        return self.digit == check_digit(self.text) or self._is_empty

    @property
    def _is_empty(self) -> bool:
        return self.may_be_filler and not self.text.strip(FILLER) and self.digit == FILLER


@dataclass(frozen=True, slots=True)
class Zone:
    """What a machine-readable zone says, as far as it is judged."""

    lengths: tuple[int, ...]
    """TD3 or TD1."""
    code: str
    """What kind of document it is, of one or two letters: P, ID."""
    name: str
    """The whole field: the surname, two fillers, the given names, fillers."""
    number: Field
    born: Field
    expires: Field
    optional: Field | None
    """With a check digit in TD3 only."""
    composite: Field

    @property
    def surname(self) -> tuple[str, ...]:
        """The primary identifier, word by word."""
        return _words(self.name.partition(2 * FILLER)[0])

    @property
    def given_names(self) -> tuple[str, ...]:
        """The secondary identifier, word by word."""
        return _words(self.name.partition(2 * FILLER)[2])

    @property
    def name_may_be_cut(self) -> bool:
        """Whether the name fills its field: then parts of it may not be there (part 3, 4.6)."""
        return not self.name.endswith(FILLER)

    @property
    def fields(self) -> dict[str, Field]:
        """What has a check digit, by what people call it."""
        fields = {
            "the document number": self.number,
            "the date of birth": self.born,
            "the date of expiry": self.expires,
            "the personal number or optional data": self.optional,
            "the whole zone (composite)": self.composite,
        }
        return {name: field for name, field in fields.items() if field is not None}

    def expire_date(self, today: date) -> date | None:
        """Returns the last day on which the document is valid; None where none can be read."""
        text = self.expires.text
        if not re.fullmatch("[0-9]{6}", text):
            return None
        year = today.year - today.year % 100 + int(text[:2])
        if year > today.year + LONGEST_VALIDITY_YEARS:
            year -= 100
        elif year <= today.year + LONGEST_VALIDITY_YEARS - 100:
            year += 100
        try:
            return date(year, int(text[2:4]), int(text[4:]))
        except ValueError:
            return None

    def is_born(self, day: date) -> bool:
        """Tells whether a date is the date of birth, as far as it is known: parts of it may be fillers."""
        return all(
            FILLER in one or one == two for one, two in zip(self._born_parts, _pairs(f"{day:%y%m%d}"), strict=True)
        )

    @property
    def birth_is_known(self) -> bool:
        """Whether it says at least the year of birth."""
        return FILLER not in self._born_parts[0]

    @property
    def _born_parts(self) -> tuple[str, ...]:
        return _pairs(self.born.text)


def read(lines: Sequence[str]) -> Zone | None:
    """Returns what the lines of a zone say; None where they are neither of TD3 nor of TD1."""
    match tuple(map(len, lines)):
        case (44, 44):
            return _read_td3(*lines)
        case (30, 30, 30):
            return _read_td1(*lines)
    return None


def check_digit(text: str) -> str:
    """Returns the check digit of a text of A-Z, 0-9 and < (part 3, 4.9)."""
    return str(sum(_VALUES[one] * _WEIGHTS[place % 3] for place, one in enumerate(text)) % 10)


def _read_td3(first: str, second: str) -> Zone:
    return Zone(
        lengths=TD3,
        code=first[:2].rstrip(FILLER),
        name=first[5:],
        number=Field(second[:9], second[9]),
        born=Field(second[13:19], second[19], numeric=True, may_be_filler=True),
        expires=Field(second[21:27], second[27], numeric=True, may_be_filler=True),
        optional=Field(second[28:42], second[42], may_be_filler=True),
        composite=Field(second[:10] + second[13:20] + second[21:43], second[43]),
    )


def _read_td1(first: str, second: str, third: str) -> Zone:
    return Zone(
        lengths=TD1,
        code=first[:2].rstrip(FILLER),
        name=third,
        number=_td1_number(first),
        born=Field(second[:6], second[6], numeric=True, may_be_filler=True),
        expires=Field(second[8:14], second[14], numeric=True, may_be_filler=True),
        optional=None,
        composite=Field(first[5:] + second[:7] + second[8:15] + second[18:29], second[29]),
    )


def _td1_number(first: str) -> Field:
    """A number of more than nine characters goes on in the optional data, with its check digit last (part 5, 4.2.2)."""
    number, digit = first[5:14], first[14]
    rest = first[15:].partition(FILLER)[0]
    if digit == FILLER and FILLER not in number and len(rest) > 1:
        return Field(number + rest[:-1], rest[-1])
    return Field(number, digit)


def _words(identifier: str) -> tuple[str, ...]:
    return tuple(word for word in identifier.split(FILLER) if word)


def _pairs(text: str) -> tuple[str, ...]:
    return text[:2], text[2:4], text[4:]
