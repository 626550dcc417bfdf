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
    """How many streams each user has open here."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken: Counter[str] = Counter()

    def take(self, user_id: str) -> None:
        """Takes one, until it is given back. Raises TooManyStreams."""
        if self._taken[user_id] >= self._limit:
            raise TooManyStreams(limit=self._limit)
        self._taken[user_id] += 1

    def give_back(self, user_id: str) -> None:
        """Gives one back."""
        self._taken[user_id] -= 1
        if not self._taken[user_id]:
            del self._taken[user_id]
