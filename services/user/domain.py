"""What a user is, who may change what of one, and when a signing key signs. No I/O."""

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import Enum
from itertools import pairwise
from typing import Any

from services.runtime.errors import (
    AlreadyExists,
    EtagMismatch,
    FieldViolation,
    InvalidArgument,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)

ROLES = ("customer", "officer", "treasurer", "admin")
PROFILE_FIELDS = frozenset({"display_name", "country", "date_of_birth", "address"})
ADMIN_FIELDS = frozenset({"roles", "state"})
EARLIEST_BIRTH = date(1900, 1, 1)

ACCESS_TOKEN_LIFETIME = timedelta(minutes=10)
REFRESH_TOKEN_LIFETIME = timedelta(days=30)
MOST_SESSIONS = 100
"""Of a user: beyond them the oldest end, so that all can be ended at once."""

KEY_AGE = timedelta(days=30)
"""How long a key signs before the next one takes over."""
KEY_NOTICE = timedelta(minutes=5)
"""How long a key is published before it signs: all who verify fetch the keys anew within a minute."""
KEY_GRACE = timedelta(minutes=2)
"""What a replica that has not heard of a rotation yet, and clocks that differ, may take."""


class UserNotFound(NotFound):
    """There is no such user."""

    message = "There is no user {user_id}."


class EmailAlreadyExists(AlreadyExists):
    """Somebody signed up with this address."""

    message = "There is a user with this e-mail address already."


class UnknownCountry(InvalidArgument):
    """The country is not an ISO 3166-1 alpha-2 code."""

    message = "{country} is not a country (ISO 3166-1 alpha-2)."

    def __init__(self, country: str) -> None:
        super().__init__(country=country, fields=[FieldViolation("country", "is not an ISO 3166-1 alpha-2 code")])


class InvalidDateOfBirth(InvalidArgument):
    """The date of birth is not a whole date in the past."""

    message = "The date of birth must be a whole date, from 1900 on and in the past."

    def __init__(self) -> None:
        super().__init__(fields=[FieldViolation("dateOfBirth", "must be a whole date, from 1900 on and in the past")])


class UnknownRole(InvalidArgument):
    """There is no such role."""

    message = "There is no role {role}."

    def __init__(self, role: str) -> None:
        super().__init__(role=role, fields=[FieldViolation("roles", f"must be of {', '.join(ROLES)}")])


class AdminOnlyField(PermissionDenied):
    """Only an admin may change the field."""

    message = "Only an admin may change {field}."


class InvalidCredentials(Unauthenticated):
    """The e-mail address or the password is wrong."""

    message = "The e-mail address or the password is wrong."


class InvalidRefreshToken(Unauthenticated):
    """The refresh token is unknown, expired or used, or its session has ended."""

    message = "The refresh token is not valid. Log in again."


class UserSuspended(PermissionDenied):
    """The user cannot log in."""

    message = "This user is suspended."


class SigningKeysUnavailable(Unavailable):
    """The signing keys have not been read from the database yet."""

    message = "Access tokens cannot be signed yet."


class State(Enum):
    """Whether a user can act. The values are those of user.v1.User.State."""

    ACTIVE = 1
    SUSPENDED = 2


@dataclass(frozen=True, slots=True)
class Profile:
    """What users say of themselves."""

    display_name: str
    country: str
    date_of_birth: date
    address: str

    def checked(self, countries: Collection[str], today: date) -> "Profile":
        """Returns the profile without outer blanks. Raises InvalidRequest, UnknownCountry or InvalidDateOfBirth."""
        display_name = text(self.display_name, "displayName")
        if not display_name:
            raise InvalidRequest(FieldViolation("displayName", "must not be empty"))
        if self.country not in countries:
            raise UnknownCountry(self.country)
        if not EARLIEST_BIRTH <= self.date_of_birth < today:
            raise InvalidDateOfBirth
        return replace(self, display_name=display_name, address=text(self.address, "address", allowed="\n"))


@dataclass(frozen=True, slots=True)
class User:
    """A person who can log in, pay and be paid."""

    id: str
    email: str
    profile: Profile
    roles: frozenset[str]
    state: State
    version: int
    """Counts the states of the profile from 1."""
    event_sequence: int
    """Counts the user's events from 1."""
    create_time: datetime
    update_time: datetime

    @classmethod
    def new(cls, user_id: str, email: str, profile: Profile, roles: frozenset[str], now: datetime) -> "User":
        """Returns a user who has just signed up."""
        return cls(user_id, email, profile, roles, State.ACTIVE, 1, 1, now, now)

    @property
    def etag(self) -> str:
        """The version as clients see it (AIP-154)."""
        return str(self.version)

    def with_changes(self, changes: Mapping[str, Any], countries: Collection[str], now: datetime) -> "User":
        """Returns the user with new values in the fields named; itself where nothing is new.

        Raises what Profile.checked does.
        """
        of_profile = {name: value for name, value in changes.items() if name in PROFILE_FIELDS}
        profile = replace(self.profile, **of_profile).checked(countries, now.date()) if of_profile else self.profile
        rest = {name: value for name, value in changes.items() if name in ADMIN_FIELDS}
        changed = replace(self, profile=profile, **rest)
        if changed == self:
            return self
        tells = replace(profile, address="") != replace(self.profile, address="")
        return replace(changed, version=self.version + 1, event_sequence=self.event_sequence + tells, update_time=now)

    def require_etag(self, etag: str) -> None:
        """Lets an update pass that is based on this version, or on none. Raises EtagMismatch."""
        if etag and etag != self.etag:
            raise EtagMismatch(resource=f"User {self.id}", etag=etag)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user and the Argon2id hash of their password."""

    user: User
    password_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a session's holder gets."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key pair of access tokens, and when its turn comes."""

    kid: str
    sealed: bytes = field(repr=False)
    """The private key, encrypted (PKCS #8, PEM)."""
    sign_from: datetime
    """It signs from here until the next key does."""


def text(value: str, name: str, allowed: str = "") -> str:
    """Returns a text without outer blanks. Raises InvalidRequest where it has control characters but `allowed` ones."""
    value = value.strip()
    if any(unicodedata.category(character) == "Cc" and character not in allowed for character in value):
        raise InvalidRequest(FieldViolation(name, "must not have control characters"))
    return value


def whole_date(year: int, month: int, day: int) -> date:
    """Returns a date of birth. Raises InvalidDateOfBirth where a part is missing or there is no such day."""
    try:
        return date(year, month, day)
    except ValueError as error:
        raise InvalidDateOfBirth from error


def known_roles(names: Iterable[str]) -> frozenset[str]:
    """Returns the roles. Raises UnknownRole."""
    for name in names:
        if name not in ROLES:
            raise UnknownRole(name)
    return frozenset(names)


def in_order(roles: Collection[str]) -> list[str]:
    """Returns roles in the order in which they are always named."""
    return [role for role in ROLES if role in roles]


def require_may_change(fields: frozenset[str], *, admin: bool) -> None:
    """Lets admins change every field, others their profile. Raises AdminOnlyField."""
    if not admin and (reserved := sorted(fields & ADMIN_FIELDS)):
        raise AdminOnlyField(field=reserved[0])


def missing_turns(keys: Sequence[SigningKey], now: datetime) -> list[datetime]:
    """Returns when keys that are still to be made begin to sign, so that there is an active one and a next one."""
    if not keys:
        return [now, now + KEY_AGE]
    latest = max(key.sign_from for key in keys)
    return [max(latest + KEY_AGE, now + KEY_NOTICE)] if latest <= now else []


def outlived(keys: Sequence[SigningKey], now: datetime) -> list[SigningKey]:
    """Returns the keys whose last token has expired."""
    turns = sorted(keys, key=lambda key: key.sign_from)
    gone = now - ACCESS_TOKEN_LIFETIME - KEY_GRACE
    return [key for key, successor in pairwise(turns) if successor.sign_from <= gone]


def signing(keys: Sequence[SigningKey], now: datetime) -> SigningKey:
    """Returns the key whose turn it is. Raises SigningKeysUnavailable."""
    turns = [key for key in keys if key.sign_from <= now]
    if not turns:
        raise SigningKeysUnavailable
    return max(turns, key=lambda key: key.sign_from)
