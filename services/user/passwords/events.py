"""How notification learns what users are told about their passwords."""

from datetime import UTC, datetime

from user.v1 import password_pb2
from user.v1.password_pb2 import PasswordEvent


def reset_requested(reset_id: str, user_id: str) -> tuple[str, PasswordEvent]:
    """Returns the key and the event of a reset. Its code is in neither."""
    return reset_id, _event(reset_id, user_id, PasswordEvent.RESET_REQUESTED)


def changed(event_id: str, user_id: str) -> tuple[str, PasswordEvent]:
    """Returns the key and the event of a password that was replaced."""
    return event_id, _event(event_id, user_id, PasswordEvent.CHANGED)


def _event(event_id: str, user_id: str, kind: password_pb2.PasswordEvent.Kind.ValueType) -> PasswordEvent:
    event = PasswordEvent(id=event_id, user_id=user_id, kind=kind)
    event.create_time.FromDatetime(datetime.now(UTC))
    return event
