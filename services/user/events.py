"""How other services learn who a user is, and that what let somebody in ended before its time."""

from datetime import datetime

from google.type import date_pb2
from user.v1 import user_pb2

from services.user.domain import User


def to_proto(user: User) -> user_pb2.UserEvent:
    """Returns the event of the user's newest state."""
    event = user_pb2.UserEvent(
        user_id=user.id,
        sequence=user.event_sequence,
        display_name=user.profile.display_name,
        country=user.profile.country,
        date_of_birth=date_of_birth(user),
    )
    event.create_time.FromDatetime(user.update_time)
    return event


def date_of_birth(user: User) -> date_pb2.Date:
    """Returns the date as messages have it."""
    born = user.profile.date_of_birth
    return date_pb2.Date(year=born.year, month=born.month, day=born.day)


def session_ended(session_id: str, user_id: str, now: datetime) -> user_pb2.SessionEvent:
    """Returns the event of the end of a session, an API key, or a user's tokens of outside issuers."""
    event = user_pb2.SessionEvent(session_id=session_id, user_id=user_id)
    event.end_time.FromDatetime(now)
    return event
