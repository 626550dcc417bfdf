"""Who is told what about payments, documents and passwords, and by which channels. No I/O."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any

from services.runtime.errors import EtagMismatch, FailedPrecondition, NotFound, PreconditionViolation

_REFUNDED_IN_PART = "REFUNDED_IN_PART"
_TO_PAYER = {
    "AUTHORIZED": "Your payment of {amount} is on its way.",
    "IN_REVIEW": "Your payment of {amount} is being reviewed. You do not need to do anything.",
    "SETTLED": "You paid {amount}.",
    "DECLINED": "Your payment of {amount} was declined. No money was taken.",
    "FAILED": "Your payment of {amount} could not be completed. The money is back in your account.",
    "CANCELLED": "You cancelled your payment of {amount}. The money is back in your account.",
    "REFUNDED": "Your payment of {amount} came back. The money is in your account again.",
    _REFUNDED_IN_PART: "In all, {refunded} of your payment of {amount} came back to your account.",
}
_TO_PAYER_DECLINED = {
    "INSUFFICIENT_FUNDS": "Your payment of {amount} was declined: there is not enough money in your account.",
    "REVIEW_DECLINED": "Your payment of {amount} was declined after a review. No money was taken.",
    "REVIEW_EXPIRED": "Your payment of {amount} was declined: its review was not finished in time. No money was taken.",
}
_TO_PAYEE = {
    "SETTLED": "You received {amount}.",
    "REFUNDED": "You paid back the {amount} that you had received.",
    _REFUNDED_IN_PART: "In all, you paid back {refunded} of {amount} that you had received.",
}

_DOCUMENTS = {
    "PASSPORT": "passport",
    "ID_CARD": "identity card",
    "DRIVING_LICENCE": "driving licence",
    "PROOF_OF_ADDRESS": "proof of address",
}
_TO_HOLDER = {"CHANGED": "Your password was changed. If it was not you, ask for a code and set a new one at once."}
_TO_OWNER = {"VERIFIED": "Your {what} was accepted.", "REJECTED": "Your {what} was not accepted. {why}"}


class UnknownState(Exception):
    """A payment came to a state that this release does not know. A newer one does."""


class NotificationNotFound(NotFound):
    """The caller has no such notification."""

    message = "There is no notification {notification_id}."


class ChannelAddressRequired(FailedPrecondition):
    """A channel was switched on that has no address."""

    message = "{channel} needs {address}."

    def __init__(self, channel: str, address: str) -> None:
        violation = PreconditionViolation(self.reason, channel, f"Set {address}, or switch {channel} off.")
        super().__init__(channel=channel, address=address, preconditions=[violation])


@dataclass(frozen=True, slots=True)
class PaymentChange:
    """A payment came to a state, or was refunded in part."""

    payment_id: str
    sequence: int
    state: str
    """By its name in payment.v1.Payment.State."""
    state_reason: str
    payer_id: str
    payee_id: str
    amount: str
    """As people write it: 42.50 EUR."""
    refunded: str
    """How much of it has gone back, in the same way; empty where nothing has."""
    create_time: datetime

    @property
    def event_id(self) -> str:
        """Returns the id of the event that told it."""
        return f"payment.{self.payment_id}.{self.sequence}"

    @property
    def event_type(self) -> str:
        """Returns what happened, as webhooks name it: payment.settled. A partial refund is payment.refunded, too."""
        return f"payment.{'refunded' if self.refunded else self.state.lower()}"

    @property
    def kind(self) -> str:
        """Returns what happened, as notifications name it, but for PAYMENT_: SETTLED or REFUNDED_IN_PART."""
        return _REFUNDED_IN_PART if self.refunded and self.state == "SETTLED" else self.state


@dataclass(frozen=True, slots=True)
class Notification:
    """What one user is told."""

    id: str
    user_id: str
    kind: str
    text: str
    create_time: datetime
    payment_id: str = ""
    document_id: str = ""
    read_time: datetime | None = None
    """None: it was not read."""


def notifications(change: PaymentChange, new_id: Callable[[], str]) -> Iterator[Notification]:
    """Yields what the payer is told about every change, and the payee about money that has come or goes back.

    Raises UnknownState.
    """
    if change.kind not in _TO_PAYER:
        raise UnknownState(change.state)
    to_payer = _TO_PAYER[change.kind]
    if change.state == "DECLINED":
        to_payer = _TO_PAYER_DECLINED.get(change.state_reason, to_payer)
    texts = [(change.payer_id, to_payer)]
    if change.kind in _TO_PAYEE:
        texts.append((change.payee_id, _TO_PAYEE[change.kind]))
    for user_id, text in texts:
        yield Notification(
            id=new_id(),
            user_id=user_id,
            kind=f"PAYMENT_{change.kind}",
            text=text.format(amount=change.amount, refunded=change.refunded),
            payment_id=change.payment_id,
            create_time=change.create_time,
        )


@dataclass(frozen=True, slots=True)
class DocumentChange:
    """A document was accepted or not, or is to be read again."""

    document_id: str
    sequence: int
    owner_id: str
    kind: str
    """By its name in document.v1.Document.Kind."""
    state: str
    """By its name in document.v1.Document.State."""
    why: str
    """The first thing that is wrong with it, in sentences; empty where nothing is."""
    unchanged: bool
    """Whether the owner knows it from when it was read before."""
    create_time: datetime

    @property
    def event_id(self) -> str:
        """Returns the id of the event that told it."""
        return f"document.{self.document_id}.{self.sequence}"

    @property
    def event_type(self) -> str:
        """Returns what happened: document.verified."""
        return f"document.{self.state.lower()}"


def notifications_of_document(change: DocumentChange, new_id: Callable[[], str]) -> Iterator[Notification]:
    """Yields what the owner is told, once the document was read, if that is news."""
    if (text := _TO_OWNER.get(change.state)) and not change.unchanged:
        yield Notification(
            id=new_id(),
            user_id=change.owner_id,
            kind=f"DOCUMENT_{change.state}",
            text=text.format(what=_DOCUMENTS[change.kind], why=change.why).rstrip(),
            document_id=change.document_id,
            create_time=change.create_time,
        )


@dataclass(frozen=True, slots=True)
class PasswordChange:
    """Somebody asked for a code to set a new password with, or a new one was set."""

    id: str
    user_id: str
    kind: str
    """By its name in user.v1.PasswordEvent.Kind."""
    create_time: datetime

    @property
    def event_id(self) -> str:
        """Returns the id of the event that told it."""
        return f"password.{self.id}"

    @property
    def event_type(self) -> str:
        """Returns what happened: password.changed."""
        return f"password.{self.kind.lower()}"


def notification_of_password(change: PasswordChange, notification_id: str) -> Notification:
    """Returns what the user is told of a new password."""
    return Notification(
        id=notification_id,
        user_id=change.user_id,
        kind=f"PASSWORD_{change.kind}",
        text=_TO_HOLDER[change.kind],
        create_time=change.create_time,
    )


@dataclass(frozen=True, slots=True)
class Preferences:
    """By which channels a user is told. Those of a user who never said anything are `Preferences()`."""

    in_app: bool = True
    email: bool = True
    sms: bool = False
    push: bool = False
    phone_number: str = field(default="", repr=False)
    push_token: str = field(default="", repr=False)
    sequence: int = 0
    """Counts the changes."""
    update_time: datetime | None = None
    """None: they never changed."""

    @property
    def etag(self) -> str:
        """The version as clients see it (AIP-154)."""
        return str(self.sequence)

    @property
    def channels(self) -> set[str]:
        """The channels that are on, by the names that deliveries have for them."""
        on = {"EMAIL": self.email, "SMS": self.sms, "PUSH": self.push}
        return {channel for channel, is_on in on.items() if is_on}

    def require_etag(self, etag: str) -> None:
        """Lets an update pass that is based on this version, or on none. Raises EtagMismatch."""
        if etag and etag != self.etag:
            raise EtagMismatch(resource="The caller's preferences", etag=etag)

    def with_changes(self, changes: Mapping[str, Any], now: datetime) -> "Preferences":
        """Returns them with new values in the fields named; the same where nothing is new.

        Raises ChannelAddressRequired where a channel would be on without an address.
        """
        changed = replace(self, **changes)
        if changed.sms and not changed.phone_number:
            raise ChannelAddressRequired("sms", "phoneNumber")
        if changed.push and not changed.push_token:
            raise ChannelAddressRequired("push", "pushToken")
        if changed == self:
            return self
        return replace(changed, sequence=self.sequence + 1, update_time=now)


PREFERENCES = frozenset(one.name for one in fields(Preferences)) - {"sequence", "update_time"}
"""Those that users set."""
