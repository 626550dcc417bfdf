"""What decides whether a document is accepted: one function per check. No I/O."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date

from services.document.domain import IDENTITY_KINDS, PDF, Check, Inspection, Kind, Outcome, State
from services.document.verification import mrz, names
from services.document.verification.mrz import Zone

SMALLEST_IMAGE_PIXELS = 200
SMALLEST_PAGE_POINTS = 100
ATTEMPTS = 5
"""How often reading a document may come to no end before it is given up."""

Finding = tuple[Outcome, str]
"""How a check came out, and why, in a sentence that tells nothing of what the document says."""

_PASSED: Finding = (Outcome.PASSED, "")
_NO_ZONE: Finding = (Outcome.UNREADABLE, "It cannot be told without the machine-readable zone.")
_CODES = {
    Kind.PASSPORT: (mrz.TD3, ("P",), "a passport"),
    Kind.ID_CARD: (mrz.TD1, ("I", "A", "C"), "an identity card"),
    Kind.DRIVING_LICENCE: (mrz.TD1, ("D", "I"), "a driving licence"),
}
"""What a kind's zone begins with. ICAO has none for driving licences; those that cross borders say I, others D."""
_ANOTHER_PICTURE = "Send a sharp picture of the whole page, straight from above and without reflections."


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a user is, by the profile."""

    display_name: str
    date_of_birth: date

    @property
    def digest(self) -> str:
        """Tells it from others, and does not tell what it is."""
        return hashlib.sha256(f"{self.date_of_birth} {self.display_name}".encode()).hexdigest()


class IdentityRefused(Exception):
    """Who a user is cannot be learned, though others' documents may be read."""


_NOBODY = Identity("", date.min)
_NOT_OPENED = Inspection()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the checks look at."""

    kind: Kind
    content_type: str
    today: date
    inspection: Inspection = _NOT_OPENED
    identity: Identity = _NOBODY
    """The owner's; of what proves no identity, and is not compared with one: nobody's."""
    of_another_user: bool = False
    """Whether another user has uploaded the same file before."""
    given_up: bool = False
    """Whether reading it came to no end, time and again."""

    @property
    def zone(self) -> Zone | None:
        """What the machine-readable zone says; None where there is none, or it could not be read."""
        return mrz.read(self.inspection.mrz)

    @property
    def opens(self) -> bool:
        """Whether anything is known of the file's content."""
        return not self.given_up and not self.inspection.problem


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a document."""

    checks: tuple[Check, ...]
    expire_date: date | None

    @property
    def state(self) -> State:
        """Accepted when all checks passed."""
        return State.REJECTED if self._problem else State.VERIFIED

    @property
    def gist(self) -> str:
        """What the owner is told: VERIFIED, or the first check that did not pass."""
        return self._problem or self.state.name

    @property
    def _problem(self) -> str:
        return next((one.name for one in self.checks if one.outcome is not Outcome.PASSED), "")


def judge(facts: Facts) -> Verdict:
    """Runs the checks of a document's kind."""
    checks = {**CHECKS, **CHECKS_OF_ZONE} if facts.kind in IDENTITY_KINDS else CHECKS
    zone = facts.zone
    expire_date = zone.expire_date(facts.today) if zone and zone.expires.right else None
    return Verdict(tuple(Check(name, *find(facts)) for name, find in checks.items()), expire_date)


def _readable(facts: Facts) -> Finding:
    if facts.given_up:
        return Outcome.UNREADABLE, "Reading it failed time and again. Send the document as another file."
    return (Outcome.FAILED, facts.inspection.problem) if facts.inspection.problem else _PASSED


def _useful_size(facts: Facts) -> Finding:
    if not facts.opens:
        return Outcome.UNREADABLE, "Its size cannot be told."
    pdf = facts.content_type == PDF
    smallest, unit = (SMALLEST_PAGE_POINTS, "points") if pdf else (SMALLEST_IMAGE_PIXELS, "pixels")
    if facts.inspection.shorter_side < smallest and not facts.inspection.mrz:  # what could be read was large enough
        return Outcome.FAILED, f"Its shorter side has {facts.inspection.shorter_side:g} {unit}; {smallest} are needed."
    return _PASSED


def _not_another_users(facts: Facts) -> Finding:
    return (Outcome.FAILED, "Another user has uploaded the same file.") if facts.of_another_user else _PASSED


def _mrz_found(facts: Facts) -> Finding:
    if facts.zone:
        return _PASSED
    if facts.inspection.mrz:
        why = "The machine-readable zone is of another format than those of passports (TD3) and cards (TD1)."
    elif facts.inspection.mrz_found:
        why = f"The machine-readable zone could not be read. {_ANOTHER_PICTURE}"
    elif facts.kind is Kind.DRIVING_LICENCE:
        why = "No machine-readable zone was found: most licences have none. Send a passport or an identity card."
    else:
        why = f"No machine-readable zone, the lines with < at the lower edge, was found. {_ANOTHER_PICTURE}"
    return Outcome.UNREADABLE, why


def _check_digits(facts: Facts) -> Finding:
    if not (zone := facts.zone):
        return _NO_ZONE
    illegible = [name for name, field in zone.fields.items() if not field.legible]
    # Of a zone with something illegible in it, the sum of all means nothing.
    wrong = [
        name
        for name, field in zone.fields.items()
        if field.legible and not field.right and not (illegible and field is zone.composite)
    ]
    if wrong:
        why = (
            f"Wrong check digit of {' and of '.join(wrong)}. If the document has no such fault, send a sharper picture."
        )
        return Outcome.FAILED, why
    if illegible:
        return Outcome.UNREADABLE, f"It could not be read whole: {', '.join(illegible)}. {_ANOTHER_PICTURE}"
    return _PASSED


def _document_type(facts: Facts) -> Finding:
    if not (zone := facts.zone):
        return _NO_ZONE
    lengths, codes, what = _CODES[facts.kind]
    if zone.lengths != lengths or zone.code[:1] not in codes:
        return Outcome.FAILED, f"The machine-readable zone is not that of {what}."
    return _PASSED


def _not_expired(facts: Facts) -> Finding:
    if not (zone := facts.zone):
        return _NO_ZONE
    last = zone.expire_date(facts.today)
    if last is None:
        return Outcome.UNREADABLE, "The date of expiry is no date, or none is given."
    if last >= facts.today:
        return _PASSED
    return _unless_misread(zone.expires, "The document has expired.", "the date of expiry")


def _name_matches(facts: Facts) -> Finding:
    if not (zone := facts.zone):
        return _NO_ZONE
    if not zone.surname or not all(one.isalpha() for one in (*zone.surname, *zone.given_names)):
        return Outcome.UNREADABLE, f"The name in the machine-readable zone could not be read. {_ANOTHER_PICTURE}"
    why = _what_differs(facts.identity.display_name, zone)
    return (Outcome.FAILED, why) if why else _PASSED


def _what_differs(display_name: str, zone: Zone) -> str:
    surname, given, cut = zone.surname, zone.given_names, zone.name_may_be_cut
    try:
        profile = names.words(display_name)
    except names.NotTransliterable:
        return "Your profile's name cannot be compared: write it in the letters of the machine-readable zone."
    if names.match(profile, surname, given, cut=cut):
        return ""
    if not names.surname_is_in(profile, surname, cut=cut):
        return "The document's surname is not in your profile's name."
    if given and not names.given_name_is_in(profile, given, cut=cut):
        return "None of the document's given names is in your profile's name."
    if cut:
        return "The document's name is cut, and what is there of it is not in your profile's name."
    return "Your profile's name has names that the document lacks."


def _date_of_birth_matches(facts: Facts) -> Finding:
    if not (zone := facts.zone):
        return _NO_ZONE
    if not zone.birth_is_known:
        return Outcome.UNREADABLE, "The document does not say the year of birth."
    if zone.is_born(facts.identity.date_of_birth):
        return _PASSED
    return _unless_misread(zone.born, "The document's date of birth is not that of your profile.", "the date of birth")


def _unless_misread(field: mrz.Field, why: str, what: str) -> Finding:
    """Of a date whose check digit is wrong nobody can tell what the document says, so it disproves nothing."""
    if field.legible and field.right:
        return Outcome.FAILED, why
    return Outcome.UNREADABLE, f"It cannot be told: the check digit of {what} does not match."


CHECKS: Mapping[str, Callable[[Facts], Finding]] = {
    "READABLE": _readable,
    "USEFUL_SIZE": _useful_size,
    "NOT_ANOTHER_USERS": _not_another_users,
}
"""Those of every document, by name."""

CHECKS_OF_ZONE: Mapping[str, Callable[[Facts], Finding]] = {
    "MRZ_FOUND": _mrz_found,
    "CHECK_DIGITS": _check_digits,
    "DOCUMENT_TYPE": _document_type,
    "NOT_EXPIRED": _not_expired,
    "NAME_MATCHES": _name_matches,
    "DATE_OF_BIRTH_MATCHES": _date_of_birth_matches,
}
"""Those of what proves an identity, besides."""

CHANGE_WITH_PROFILE = (State.VERIFIED.name, "NAME_MATCHES", "DATE_OF_BIRTH_MATCHES")
"""Verdicts, in short, that may be others for another profile. These checks are the last: the rest has passed."""
