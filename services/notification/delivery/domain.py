"""What a delivery is, and what becomes of it after an attempt. No I/O."""

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta

CHANNELS = EMAIL, SMS, PUSH, WEBHOOK = ("EMAIL", "SMS", "PUSH", "WEBHOOK")

GIVE_UP = timedelta(days=3)
"""How old a delivery may become before a failed attempt is the last one."""
LONGEST_BACKOFF_SECONDS = 3600.0
RESET_REQUESTED = "password.reset_requested"
"""The type of the one event whose sentence is made when it is sent: it has a code that is kept nowhere."""
_LONGEST_ERROR = 500


class Unsent(Exception):
    """An attempt failed. The text is kept: it names no address of a user and no secret."""

    def __init__(self, text: str, response_status: int = 0) -> None:
        super().__init__(text)
        self.response_status = response_status
        """The HTTP status of the answer; 0 where none came."""


class Refused(Unsent):
    """It will never be taken: do not try again."""


class TryAgain(Unsent):
    """It may be taken another time, at the earliest after so many seconds."""

    def __init__(self, text: str, response_status: int = 0, after: float = 0.0) -> None:
        super().__init__(text, response_status)
        self.after = after


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What one user is to be told of one event by one channel, at one address."""

    user_id: str
    channel: str
    """EMAIL, SMS, PUSH or WEBHOOK."""
    event_id: str
    """payment.<payment id>.<sequence>, document.<document id>.<sequence>, password.<its own id>"""
    event_type: str
    """payment.settled, document.verified, password.changed"""
    payment_id: str
    """Empty: it is about something else."""
    body: str
    """A sentence; to a webhook, JSON, byte for byte what is signed. Empty for RESET_REQUESTED."""
    webhook_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Message):
    """A message that is claimed to be sent now."""

    id: str
    """`dlv_` and a UUIDv7 as 32 hex digits, the same however often it is tried."""
    attempts: int
    """How often it was tried, this time included."""
    create_time: datetime

    @property
    def target(self) -> str:
        """What is slow or away as a whole: the webhook, or the provider of the channel."""
        return self.webhook_id or self.channel


@dataclass(frozen=True, slots=True)
class PasswordReset:
    """A reset that waits for its code."""

    email: str = field(repr=False)
    code: str = field(repr=False)
    expire_time: datetime

    @property
    def sentence(self) -> str:
        """What is mailed."""
        return (
            f"Somebody asked for a new password for your account. The code to set it is {self.code}. It works once, "
            f"until {self.expire_time:%H:%M} UTC. If it was not you who asked, you need not do anything: keep the code "
            "to yourself, and your password stays as it is."
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a delivery."""

    state: str
    """DELIVERED, PENDING or FAILED."""
    response_status: int = 0
    error: str = ""
    wait: timedelta | None = None
    """PENDING: how long until the next attempt."""


def delivered(response_status: int = 0) -> Outcome:
    """Returns the outcome of an attempt that succeeded."""
    return Outcome("DELIVERED", response_status)


def failed(delivery: Delivery, error: Unsent, now: datetime) -> Outcome:
    """Returns the outcome of an attempt that did not: refused and outlived deliveries are given up."""
    text = str(error)[:_LONGEST_ERROR]
    if isinstance(error, Refused) or now - delivery.create_time > GIVE_UP:
        return Outcome("FAILED", error.response_status, text)
    after = error.after if isinstance(error, TryAgain) else 0.0
    wait = max(backoff(delivery.attempts), min(after, LONGEST_BACKOFF_SECONDS))
    return Outcome("PENDING", error.response_status, text, timedelta(seconds=wait))


def backoff(attempts: int) -> float:
    """Returns the seconds to wait after so many attempts: 1, doubled each time, at most 3600, less up to a half."""
    longest = min(2.0 ** min(attempts - 1, 20), LONGEST_BACKOFF_SECONDS)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load, hides nothing
