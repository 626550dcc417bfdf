"""Who has to wait before they guess again, and what a mailed code looks like. No I/O."""

import hashlib
import hmac
import ipaddress
import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.runtime.errors import NotFound, PermissionDenied, ResourceExhausted, Unauthenticated

WINDOW = timedelta(minutes=15)
"""After so long without a failure those of an account are forgotten; those of an address, as long after the first."""
LONGEST_WAIT = timedelta(minutes=15)
RESETS_PER_WINDOW = 3
"""How many mails with codes a user gets in WINDOW."""

RESET_LIFETIME = timedelta(minutes=15)
CODES_PER_RESET = 100
"""How often a code may be guessed at. It has 50 bits: fewer would only help who wants to lock its owner out."""

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base32: 5 bits each."""
_ALIKE = str.maketrans("OIL", "011", " -")
_CODE_LENGTH = 10
_HALF = _CODE_LENGTH // 2
_IPV6_PREFIX = 64
"""What one household or machine has: in it addresses cost nothing."""


class TooManyAttempts(ResourceExhausted):
    """There were too many failed log-ins of this account or from this address, or requests for resets."""

    message = "There were too many attempts. Try again in {seconds} s."

    def __init__(self, seconds: float) -> None:
        whole = max(1, math.ceil(seconds))
        super().__init__(seconds=whole)
        self.retry_after = whole


class WrongPassword(PermissionDenied):
    """The current password is not that."""

    message = "The current password is another one."


class InvalidResetCode(Unauthenticated):
    """The code is wrong, or does not work any more."""

    message = "The code is wrong, used or expired, or was guessed at too often. Ask for another one."


class PasswordResetNotFound(NotFound):
    """There is no such reset any more."""

    message = "There is no reset {reset_id}: it was used or replaced, or it has expired."


@dataclass(frozen=True, slots=True)
class Limits:
    """How many failures are free."""

    failures_per_account: int = 10
    """From this one on the account waits before the next attempt: 1, 2, 4 s and so on."""
    failures_per_address: int = 10_000
    """After so many in WINDOW, the address waits until its end."""

    @property
    def waits(self) -> list[timedelta]:
        """How long an account waits after its first failure, its second, and so on; the last is for all after it."""
        free = [timedelta(0)] * (self.failures_per_account - 1)
        doublings = range(math.ceil(math.log2(LONGEST_WAIT.total_seconds())))
        return [*free, *(timedelta(seconds=2**doubling) for doubling in doublings), LONGEST_WAIT]


@dataclass(frozen=True, slots=True)
class Reset:
    """A reset that waits for its code."""

    id: str
    """`pwd_` and a UUIDv7 as 32 hex digits."""
    user_id: str
    """Empty: nobody has the address that it was asked for."""
    email: str
    expire_time: datetime


def account(email: str) -> bytes:
    """Returns what an account is counted under, whether or not there is one."""
    return _sha256(f"account:{_folded(email)}")


def changes_of(user_id: str) -> bytes:
    """Returns what wrong current passwords of somebody who is logged in are counted under."""
    return _sha256(f"changes:{user_id}")


def resets_of(email: str) -> bytes:
    """Returns what the resets of an account are counted under."""
    return _sha256(f"resets:{_folded(email)}")


def origin(address: str) -> bytes:
    """Returns what an IP address is counted under; "" is one, too."""
    return _sha256(f"address:{_network(address) if address else address}")


def _folded(email: str) -> str:
    """Returns an address in lower case, as the database has it: ASCII only, or the Kelvin sign would be a k."""
    return email.encode().lower().decode()


def code(secret: bytes, reset: Reset) -> str:
    """Returns the code of a reset, as it is mailed: ABCDE-FGHJK, 50 bits."""
    digest = hmac.digest(secret, f"{reset.id}.{reset.user_id}".encode(), hashlib.sha256)
    bits = int.from_bytes(digest) >> 8 * len(digest) - 5 * _CODE_LENGTH
    digits = [_DIGITS[bits >> 5 * place & 31] for place in reversed(range(_CODE_LENGTH))]
    return "".join([*digits[:_HALF], "-", *digits[_HALF:]])


def same_code(given: str, right: str) -> bool:
    """Tells whether a code was given, however it was written, in a time that does not say how much of it is right."""
    return hmac.compare_digest(_digits(given).encode(), _digits(right).encode())


def _digits(text: str) -> str:
    return text.upper().translate(_ALIKE)


def _network(address: str) -> str:
    ip = ipaddress.ip_address(address)
    if ip.version == 4:
        return str(ip)
    return str(ip.ipv4_mapped or ipaddress.ip_network((int(ip), _IPV6_PREFIX), strict=False))


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
