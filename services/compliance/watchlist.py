"""Finds names on the sanctions list in spite of case, accents, punctuation, the order of words, and typos.

Scoring a name against 20,000 others word by word takes 4 ms. But two names that are a few typos apart have almost the
same letters, in whatever order the words come: looking for those first leaves few to compare, and takes 0.4 ms.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain, permutations

from rapidfuzz import process
from rapidfuzz.distance import OSA, Indel

from services.compliance.domain import Listed

MOST_TYPOS = 2
LETTERS_PER_TYPO = 8
"""A name of 8 letters may have one typo, one of 16 two; shorter names must be the same: Li Wei is not Li Mei."""
LONGEST_SHUFFLED = 5
"""Words of a name that are tried in every order; longer names in every rotation."""
REMEMBERED_NAMES = 50_000

# Letters that Unicode does not take apart into a plain one and an accent.
_PLAIN = str.maketrans({"æ": "ae", "ð": "d", "đ": "d", "ħ": "h", "ı": "i", "ł": "l", "ø": "o", "œ": "oe", "þ": "th"})
_ALSO_KNOWN_AS = re.compile(r"[afn]\.k\.a\. '?(?P<name>.+?)'?\.?")
_SCREENED_KINDS = ("individual", "")
"""Payments have people and organisations on both ends, no vessels or aircraft."""

Words = tuple[str, ...]


def words(name: str) -> Words:
    """Returns a name's words without what people write differently: case, accents, punctuation."""
    apart = unicodedata.normalize("NFKD", name).casefold()
    plain = "".join(letter for letter in apart if not unicodedata.combining(letter)).translate(_PLAIN)
    return tuple(re.findall(r"[^\W_]+", plain))


class Watchlist:
    """A sanctions list ready to be searched. A new list is a new object, which remembers nothing of the old one."""

    def __init__(self, entries: Iterable[Listed]) -> None:
        self._names: dict[int, list[tuple[str, Listed]]] = defaultdict(list)
        self._letters: dict[int, list[str]] = defaultdict(list)
        for entry in entries:
            for name in set(_names(entry)):
                joined = "".join(name)
                self._names[len(joined)].append((joined, entry))
                self._letters[len(joined)].append(_letters(joined))
        self.match = lru_cache(REMEMBERED_NAMES)(self._match)
        """Returns the entry that a name stands for, the closest one of several; None where there is none."""

    def _match(self, name: str) -> Listed | None:
        typed = words(name)
        orders = ["".join(order) for order in _orders(typed)]
        found = []
        for listed, entry in self._with_almost_the_letters("".join(typed)):
            closest = process.extractOne(listed, orders, scorer=OSA.distance, score_cutoff=_typos_allowed(listed))
            if closest:
                found.append((closest[1], entry.number, entry))
        return min(found, key=lambda one: one[:2])[-1] if found else None

    def _with_almost_the_letters(self, joined: str) -> Iterator[tuple[str, Listed]]:
        """Yields every listed name that could be the given one with the most typos allowed, and few others."""
        letters, size = _letters(joined), len(joined)
        for length in range(max(size - MOST_TYPOS, 1), size + MOST_TYPOS + 1):
            near = process.extract(
                letters,
                self._letters.get(length, ()),
                scorer=Indel.distance,
                score_cutoff=2 * MOST_TYPOS,  # a wrong letter is one too few and one too many
                limit=None,
            )
            yield from (self._names[length][index] for _, _, index in near)


def _names(entry: Listed) -> Iterator[Words]:
    """Yields the names that an entry is screened by, in the order of speaking."""
    if entry.kind not in _SCREENED_KINDS:
        return
    clauses = (_ALSO_KNOWN_AS.fullmatch(clause.strip()) for clause in entry.remarks.split(";"))
    for name in (entry.name, *(clause["name"] for clause in clauses if clause)):
        if entry.kind == "individual":
            yield from _names_of_individual(name)
        elif found := words(name):
            yield found


def _names_of_individual(name: str) -> Iterator[Words]:
    """Yields the name in full, and without middle names. One word alone stands for too many people."""
    last, _, first = name.partition(",")
    family, given = words(last), [words(one) for one in first.split()]
    for spoken in (given, given[:1]):
        found = tuple(chain(*spoken, family))
        if len(found) > 1:
            yield found


def _letters(joined: str) -> str:
    return "".join(sorted(joined))


def _typos_allowed(listed: str) -> int:
    return min(len(listed) // LETTERS_PER_TYPO, MOST_TYPOS)


def _orders(typed: Words) -> Iterable[Sequence[str]]:
    if len(typed) <= LONGEST_SHUFFLED:
        return permutations(typed)
    return (typed[start:] + typed[:start] for start in range(len(typed)))
