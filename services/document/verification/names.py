"""Names as people write them, and as machine-readable zones have them (ICAO Doc 9303, part 3, 4.6 and section 6).

A letter may be transliterated in several ways, states cut names differently, and profiles give them in any order.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import chain

Letters = tuple[str, ...]
"""The ways to write one letter."""
Word = tuple[Letters, ...]

MOST_JOINED = 5
"""How many words of one name may be one word of the other: Dos Santos, De La Cruz."""

_DROPPED = "'’‘ʼʻʾʿʹʺ`´′.·"
"""ICAO omits apostrophes; other scripts' signs that are none in Latin are dropped, too."""

_LATIN = """
    Ä AE A   Å AA A   Æ AE   Ð D DH   Đ D DJ   Ł L   Ñ N NXX   Ö OE O   Ø OE O   Œ OE   Ü UE UXX U   Þ TH   ß SS
    ẞ SS   Ħ H   ı I   İ I   Ĳ IJ   ĸ Q K   Ŀ L   ŉ N   Ŋ N NG   Ŧ T   ſ S   Ə E A   Ș S   Ț T   Ɖ D   Ɓ B   Ɗ D
    Ƙ K   Ɛ E   Ɔ O"""
# ICAO's table first, then what states use for their own languages, now or before.
_CYRILLIC = """
    А A   Б B   В V   Г G H   Ґ G   Ѓ G GJ   Д D   Ђ D DJ   Ѐ E   Ё E IO YO   Е E YE   Є IE YE E   Ж ZH Z   З Z
    Ѕ DZ   И I Y   Ѝ I   І I   Ї I YI   Й I Y   Ј J   К K   Ќ K KJ   Л L   Љ LJ   М M   Н N   Њ NJ   О O   П P
    Р R   С S   Т T   Ћ C   У U   Ў U   Ф F   Х KH H   Ц TS C   Ч CH C   Џ DZ DJ   Ш SH S   Щ SHCH SHT   Ъ IE A
    Ы Y   Ь I Y   Э E   Ю IU YU   Я IA YA   Ѣ IE E   Ѫ U A   Ѳ F   Ѵ I Y"""
_SILENT = "ЪЬ"
_GREEK = """
    Α A   Β V   Γ G N   Δ D   Ε E   Ζ Z   Η I   Θ TH   Ι I   Κ K   Λ L   Μ M   Ν N   Ξ X   Ο O   Π P   Ρ R   Σ S
    ς S   Τ T   Υ Y U V F   Φ F   Χ CH   Ψ PS   Ω O   ΜΠ B MP   ΝΤ NT D   ΓΚ GK NK"""  # ELOT 743


def _table(text: str) -> dict[str, Letters]:
    table: dict[str, Letters] = {}
    key = ""
    for one in text.split():
        if one.isascii():
            table[key] = (*table[key], one)
        else:
            key, table[one] = one, ()
    return table


_WAYS: Mapping[str, Letters] = {
    **_table(_LATIN + _CYRILLIC + _GREEK),
    **{one: (one,) for one in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
}
_OR_NOTHING: Mapping[str, Letters] = {one: (*_WAYS[one], "") for one in _SILENT}


class NotTransliterable(Exception):
    """A name has a letter of a script for which there is no table, or a digit."""


def words(name: str) -> tuple[Word, ...]:
    """Returns the words of a name as people write it. Raises NotTransliterable."""
    found: list[list[Letters]] = [[]]
    text = unicodedata.normalize("NFC", name)
    place = 0
    while place < len(text):
        pair = text[place : place + 2].upper()
        if len(pair) == 2 and pair in _WAYS:
            found[-1].append(_WAYS[pair])
            place += 2
            continue
        one = text[place]
        place += 1
        if one in _DROPPED or unicodedata.category(one) in ("Mn", "Cf"):
            continue
        if unicodedata.category(one)[0] in "LN":
            found[-1].extend(_letters(one))
        elif found[-1]:
            found.append([])
    return tuple(tuple(word) for word in found if word)


def _letters(one: str) -> list[Letters]:
    for key in (one, one.upper()):
        if key in _OR_NOTHING:
            return [_OR_NOTHING[key]]
        if key in _WAYS:
            return [_WAYS[key]]
    bare = [base for base in unicodedata.normalize("NFKD", one.upper()) if not unicodedata.combining(base)]
    if not bare or any(base not in _WAYS for base in bare):
        raise NotTransliterable
    return [_WAYS[base] for base in bare]


def surname_is_in(profile: Sequence[Word], surname: Sequence[str], *, cut: bool) -> bool:
    """Tells whether every word of a surname is in a name, or all of it, divided into words otherwise."""
    each = [[_covers(word, one, cut=cut) for word in profile] for one in surname]
    return _all_placed(each) or bool(_runs(profile, surname, cut=cut))


def given_name_is_in(profile: Sequence[Word], given: Sequence[str], *, cut: bool) -> bool:
    """Tells whether a given name is in a name."""
    return any(_covers(_joined(profile[run]), one, cut=cut) for run in _neighbours(profile) for one in given) or any(
        _covers(word, "".join(given[run]), cut=cut) for run in _neighbours(given) for word in profile
    )


def match(profile: Sequence[Word], surname: Sequence[str], given: Sequence[str], *, cut: bool) -> bool:
    """Tells whether a name is that of a document: the surname whole, a given name where there are any, and no others.

    Args:
        profile: the name's words, in any order.
        surname: the primary identifier's words.
        given: the secondary identifier's words. All but one may be missing in the profile.
        cut: whether the end of the document's name, and of words of its surname, may not be there. If it is not,
            the profile has every word of the document, or no other than these, the first given name among them.
    """
    whole = _in_any_order(profile, surname, given, required=len(surname), cut=False) or any(
        _are_given(_without(profile, run), given) for run in _runs(profile, surname, cut=False)
    )
    return whole or (cut and _match_cut(profile, surname, given))


def _match_cut(profile: Sequence[Word], surname: Sequence[str], given: Sequence[str]) -> bool:
    zone = (*surname, *given)
    shortened = range(1, len(surname))  # for the given names to have room, all but the first
    all_there = [
        [_covers(word, one, cut=place in shortened or place == len(zone) - 1) for word in profile]
        for place, one in enumerate(zone)
    ]
    return (
        _all_placed(all_there)
        or _in_any_order(profile, surname, given, required=len(surname) + bool(given), cut=True)
        or any(_is_there(_without(profile, run), given) for run in _runs(profile, surname, cut=not given))
    )


def _in_any_order(
    profile: Sequence[Word], surname: Sequence[str], given: Sequence[str], *, required: int, cut: bool
) -> bool:
    """Tells whether each word of a profile is one of a document's, whose first ones are required; cut: its last is."""
    zone = (*surname, *given)
    each = [
        [_covers(word, one, cut=cut and place == len(zone) - 1) for place, one in enumerate(zone)] for word in profile
    ]
    # What places all words of the profile, and what places the required, can be made one (Mendelsohn, Dulmage).
    return (
        len(profile) >= len(surname) + bool(given)
        and _all_placed(each)
        and _all_placed([[row[one] for row in each] for one in range(required)])
    )


def _runs(profile: Sequence[Word], surname: Sequence[str], *, cut: bool) -> list[slice]:
    """Returns where in a name the surname is, however it is divided into words."""
    whole = "".join(surname)
    return [run for run in _neighbours(profile) if whole and _covers(_joined(profile[run]), whole, cut=cut)]


def _without(profile: Sequence[Word], run: slice) -> Sequence[Word]:
    return [*profile[: run.start], *profile[run.stop :]]


def _are_given(rest: Sequence[Word], given: Sequence[str]) -> bool:
    """Tells whether what a name has beside the surname are given names, at least one where there are any."""
    if not rest or not given:
        return not rest and not given
    in_any_order = _all_placed([[_covers(word, one, cut=False) for one in given] for word in rest])
    return in_any_order or _in_order(len(rest), _pairs(rest, given, cut=False))


def _is_there(rest: Sequence[Word], given: Sequence[str]) -> bool:
    """Tells whether what a name has beside the surname has all given names, in their order, the last of them cut."""
    pairs = [(given_run, words_run) for words_run, given_run in _pairs(rest, given, cut=True)]
    return _in_order(len(given), sorted(pairs, key=lambda pair: pair[0].start))


def _pairs(rest: Sequence[Word], given: Sequence[str], *, cut: bool) -> list[tuple[slice, slice]]:
    """Returns which words are which given names, where one of a side may be several of the other; cut: the last is."""
    return [
        (words_run, given_run)
        for words_run in _neighbours(rest)
        for given_run in _neighbours(given)
        if 1 in (words_run.stop - words_run.start, given_run.stop - given_run.start)
        and _covers(_joined(rest[words_run]), "".join(given[given_run]), cut=cut and given_run.stop == len(given))
    ]


def _in_order(count: int, pairs: Sequence[tuple[slice, slice]]) -> bool:
    """Tells whether so many words of one name are, in their order, words of the other, which may have more.

    Args:
        count: how many words the one has.
        pairs: which of them are which of the other's, sorted by where the former begin.
    """
    reached = {0: 0}
    """For so many words: the fewest of the other's that they need to have used up."""
    for one, other in pairs:
        if one.start in reached and reached[one.start] <= other.start:
            reached[one.stop] = min(other.stop, reached.get(one.stop, other.stop))
    return count in reached


def _all_placed(fits: Sequence[Sequence[bool]]) -> bool:
    """Tells whether each row can have a column that fits, no two of them the same (Kuhn's algorithm)."""
    row_of: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if not fit or column in tried:
                continue
            tried.add(column)
            if column not in row_of or place(row_of[column], tried):
                row_of[column] = row
                return True
        return False

    return all(place(row, set()) for row in range(len(fits)))


def _covers(word: Word, text: str, *, cut: bool) -> bool:
    """Tells whether a text is a way to write a word; cut: or the beginning of one."""
    places = {0}
    for ways in word:
        if cut and any(way.startswith(text[place:]) for place in places for way in ways):
            return True
        places = {place + len(way) for place in places for way in ways if text.startswith(way, place)}
    return len(text) in places


def _joined(run: Sequence[Word]) -> Word:
    return tuple(chain.from_iterable(run))


def _neighbours(ones: Sequence[object]) -> list[slice]:
    """Returns where neighbours are that may be one word, each by itself among them, sorted by where they begin."""
    return [
        slice(start, end)
        for start in range(len(ones))
        for end in range(start + 1, min(start + MOST_JOINED, len(ones)) + 1)
    ]
