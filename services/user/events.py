"""UserEvent: how other services learn who a user is."""

from google.type import date_pb2
from user.v1 import user_pb2

from services.user.domain import User


def to_proto(user: User) -> user_pb2.UserEvent:
    """Returns the event of the user's newest state."""
    born = user.profile.date_of_birth
    event = user_pb2.UserEvent(
        user_id=user.id,
        sequence=user.event_sequence,
        display_name=user.profile.display_name,
        country=user.profile.country,
        date_of_birth=date_pb2.Date(year=born.year, month=born.month, day=born.day),
    )
    event.create_time.FromDatetime(user.update_time)
    return event
