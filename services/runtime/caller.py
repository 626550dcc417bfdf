"""Who asks. Set by the identity interceptor for the length of a call, passed on with every outgoing one."""

from contextvars import ContextVar
from dataclasses import dataclass, field

from services.runtime.errors import NotTheOwner


@dataclass(frozen=True, slots=True)
class Caller:
    """The user on whose behalf a call is made, and the service that makes it."""

    user_id: str = ""
    """Empty where nobody is logged in."""
    roles: frozenset[str] = field(default_factory=frozenset)
    session_id: str = ""
    """What they are known by: the id of a session or of an API key."""
    peer: str = ""
    """The calling service, by the name in its certificate: `edge` for calls from outside."""
    address: str = ""
    """The IP address of the client, for calls from outside."""
    request_id: str = ""
    rpc: str = ""
    """What is called."""

    def has(self, *roles: str) -> bool:
        """Tells whether the user has one of these roles."""
        return not self.roles.isdisjoint(roles)

    def resolve(self, user_id: str) -> str:
        """Returns the user that a request names, `me` being the caller."""
        return self.user_id if user_id == "me" else user_id

    def sees_as(self, *roles: str) -> bool:
        """Tells whether one of these roles lets the user see what is somebody else's. If so, the audit trail will say
        that they did.
        """
        if self.has(*roles):
            _by_role.set(True)
            return True
        return False

    def require_owner(self, owner_id: str, resource: str, *roles: str) -> None:
        """Lets the owner pass, and callers with one of these roles, as `sees_as` does. Raises NotTheOwner."""
        if owner_id != self.user_id and not self.sees_as(*roles):
            raise NotTheOwner(resource=resource)


_current: ContextVar[Caller] = ContextVar("caller")
_by_role: ContextVar[bool] = ContextVar("by_role", default=False)


def current() -> Caller:
    """Returns the caller of the RPC being served."""
    return _current.get()


def acting() -> Caller | None:
    """Returns the caller of the RPC being served; None in what a service does by itself."""
    return _current.get(None)


def seen_by_role() -> bool:
    """Tells whether it was for a role that the current caller may see what they asked for."""
    return _by_role.get()


def set_current(caller: Caller) -> None:
    """Makes this the caller for the rest of the current task."""
    _current.set(caller)
