"""What can be watched, and how a stream may end. No I/O."""

import random
from collections import Counter
from enum import Enum
from typing import NamedTuple

from services.runtime.errors import FieldViolation, InvalidArgument, InvalidRequest, ResourceExhausted, Unavailable


class Kind(Enum):
    """What the events of a topic have in common."""

    PAYMENT = "payment"
    """They are of one payment."""
    USER = "user"
    """They are of all payments that one user makes or receives."""


class Topic(NamedTuple):
    """What somebody watches. Its events have positions that count from 1, without gaps."""

    kind: Kind
    id: str


class InvalidLastEventId(InvalidArgument):
    """The Last-Event-ID is not one that this stream gave out."""

    message = "Last-Event-ID must be the id of an event of this stream."

    def __init__(self) -> None:
        super().__init__(fields=[FieldViolation("Last-Event-ID", "must be the id of an event")])


class TooManyStreams(ResourceExhausted):
    """The user has as many streams open as they may."""

    message = "There are {limit} streams open already, as many as one user may have. Close some."
    retry_after = 10.0


class StreamsBusy(Unavailable):
    """This replica has as many streams open as it can."""

    message = "The service has as many streams open as it can right now."
    retry_after = 10.0


class StreamEnded(Unavailable):
    """The stream has to end, though more may come: its server stops, or its time is over."""

    message = "The stream ends here. Open it again, after the last event."

    def __init__(self) -> None:
        super().__init__()
        self.retry_after = random.uniform(0.1, 0.4)  # noqa: S311  # not all clients at once


def position_after(last_event_id: str, after_sequence: int, latest: int) -> int:
    """Returns the position after which a stream begins. 0: with the first event.

    `latest` is the position of the topic's last event. A Last-Event-ID goes before `after_sequence`: a browser that
    comes back sends the URL of the first time, and the header beside it. Raises InvalidLastEventId and InvalidRequest.
    """
    if last_event_id:
        digits = last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= 18
        if not digits or int(last_event_id) > latest:
            raise InvalidLastEventId
        return int(last_event_id)
    if after_sequence > latest:
        raise InvalidRequest(FieldViolation("afterSequence", "is beyond the last event"))
    return after_sequence


class Places:
    """How many streams there may be in this process, and how many each user has. Each holds memory and a connection."""

    def __init__(self, of_user: int, of_all: int) -> None:
        self._of_user = of_user
        self._of_all = of_all
        self._taken: Counter[str] = Counter()
        self._all = 0

    def take(self, user_id: str) -> None:
        """Takes one, until it is given back. Raises TooManyStreams or StreamsBusy."""
        if self._taken[user_id] >= self._of_user:
            raise TooManyStreams(limit=self._of_user)
        if self._all >= self._of_all:
            raise StreamsBusy
        self._taken[user_id] += 1
        self._all += 1

    def give_back(self, user_id: str) -> None:
        """Gives one back."""
        self._all -= 1
        self._taken[user_id] -= 1
        if not self._taken[user_id]:
            del self._taken[user_id]
