"""What an API key may do, and for how long. No I/O."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.runtime.errors import FieldViolation, InvalidArgument, NotFound, PermissionDenied, ResourceExhausted
from services.user.domain import in_order

API_KEYS_PER_USER = 50
DEFAULT_LIFETIME = timedelta(days=90)
LONGEST_LIFETIME = timedelta(days=366)


class ApiKeyNotFound(NotFound):
    """The caller has no such key, or nobody has, or it has expired, or its owner is not active."""

    message = "There is no such API key."


class TooManyApiKeys(ResourceExhausted):
    """The user has as many keys as one may have."""

    message = "A user has at most {limit} API keys. Revoke one first."


class RoleNotHeld(PermissionDenied):
    """A key cannot do more than its owner."""

    message = "A key cannot have the role {role}: its owner has not."


class InvalidExpireTime(InvalidArgument):
    """A key expires in the future, but not in the far one."""

    message = "An API key must expire in the future, and within {days} days."

    def __init__(self) -> None:
        days = LONGEST_LIFETIME.days
        wrong = FieldViolation("expireTime", f"must be in the future, and within {days} days")
        super().__init__(days=days, fields=[wrong])


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without its text: that is not kept."""

    id: str
    user_id: str
    display_name: str
    roles: frozenset[str]
    create_time: datetime
    expire_time: datetime
    last_use_time: datetime | None = None
    """Not noted again within a minute."""


def require_held(roles: Collection[str], held: Collection[str]) -> None:
    """Lets a key have what its owner has. Raises RoleNotHeld."""
    for role in in_order(roles):
        if role not in held:
            raise RoleNotHeld(role=role)


def expire_time(asked: float | None, now: datetime) -> datetime:
    """Returns when a key expires; `asked` is in seconds since 1970. Raises InvalidExpireTime."""
    if asked is None:
        return now + DEFAULT_LIFETIME
    if not now.timestamp() < asked <= (now + LONGEST_LIFETIME).timestamp():
        raise InvalidExpireTime
    return datetime.fromtimestamp(asked, UTC)
