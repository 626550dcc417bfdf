"""What may stand where in a machine-readable zone: ICAO 9303, part 4 (TD3, passports) and part 5 (TD1, cards)."""

from services.document.reader.models import ALPHABET

LETTERS = "<ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "<0123456789"
_SEX = "<FMX"
Layout = tuple[tuple[str, ...], ...]
"""For each line, and each of its cells: the characters that may be there."""


def _cells(*fields: tuple[str, int]) -> tuple[str, ...]:
    return tuple(characters for characters, length in fields for _ in range(length))


_NUMBER = ((ALPHABET, 9), (DIGITS, 1))
_DATES = ((DIGITS, 7), (_SEX, 1), (DIGITS, 7))

TD3 = (
    _cells((LETTERS, 44)),
    _cells(*_NUMBER, (LETTERS, 3), *_DATES, (ALPHABET, 14), (DIGITS, 2)),
)
TD1 = (
    _cells((LETTERS, 5), *_NUMBER, (ALPHABET, 15)),
    _cells(*_DATES, (LETTERS, 3), (ALPHABET, 11), (DIGITS, 1)),
    _cells((LETTERS, 30)),
)
CHECKED = {ALPHABET, DIGITS}
"""What may be in cells that check digits are about. There are none for names, states and sexes."""
