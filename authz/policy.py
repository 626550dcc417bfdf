"""May they: what the contract asks of a caller from outside."""

from collections.abc import Mapping

from services.runtime.contract import Method
from services.runtime.errors import PermissionDenied


class RpcNotReachable(PermissionDenied):
    """There is no such RPC, or it is for services only."""

    message = "This cannot be called from outside."


class RoleRequired(PermissionDenied):
    """The user has none of the roles that the RPC is for."""

    message = "This needs the role {roles}."

    def __init__(self, roles: frozenset[str]) -> None:
        super().__init__(roles=" or ".join(sorted(roles)))


class PersonRequired(PermissionDenied):
    """The RPC is not for programs: an API key must not make another one, say."""

    message = "This cannot be done with an API key: it needs an access token."


class Policy:
    """The contract's methods, as far as they can be reached from outside."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = {rpc: method for rpc, method in methods.items() if method.access != "none"}

    def terms(self, rpc: str) -> Method:
        """Returns the terms on which an RPC is called. Raises RpcNotReachable: what is not listed is denied."""
        method = self._methods.get(rpc)
        if method is None:
            raise RpcNotReachable
        return method


def require_role(method: Method, roles: frozenset[str]) -> None:
    """Lets users with any of the method's roles pass, or every user where it names none. Raises RoleRequired."""
    if method.roles and method.roles.isdisjoint(roles):
        raise RoleRequired(method.roles)


def require_person(method: Method, *, is_person: bool) -> None:
    """Lets only persons pass where the method asks for one. Raises PersonRequired."""
    if method.person_only and not is_person:
        raise PersonRequired
