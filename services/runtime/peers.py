"""Who is at the other end of a connection, and whether they may call: by their certificate and by the contract."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import grpc

from services.runtime.caller import Caller
from services.runtime.contract import EDGE, Method
from services.runtime.errors import PermissionDenied, Unauthenticated


class CallerNotAllowed(PermissionDenied):
    """The peer's certificate is not one of the RPC's callers."""

    message = "{peer} may not call {rpc}."


class RpcNotGranted(PermissionDenied):
    """The edge was granted another RPC than the one it calls, or none."""

    message = "{rpc} was not granted to this request."


class NotLoggedIn(Unauthenticated):
    """The RPC needs a user, and the edge named none."""

    message = "This needs an access token."


def peer_name(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Returns the name in the SPIFFE id of the peer's certificate (spiffe://drawbridge/<name>); empty without one."""
    ids = list(context.auth_context().get("peer_spiffe_id", ()))
    return ids[0].decode().removeprefix("spiffe://drawbridge/") if ids else ""


def admitted(method: Method, metadata: Mapping[str, Any], peer: str) -> Caller:
    """Returns who asks, by the name of the peer and what it says of its user.

    Raises CallerNotAllowed, and RpcNotGranted or NotLoggedIn where the edge calls.
    """
    if peer not in method.callers:
        raise CallerNotAllowed(peer=peer or "A stranger", rpc=method.rpc)
    user_id = metadata.get("x-user-id", "")
    if peer == EDGE:
        if metadata.get("x-user-rpc") != method.rpc:
            raise RpcNotGranted(rpc=method.rpc)
        if method.access == "token" and not user_id:
            raise NotLoggedIn
    return Caller(
        user_id,
        _roles(metadata.get("x-user-roles", "")),
        metadata.get("x-user-session", ""),
        peer,
        # What the edge saw is the last: it believes nothing that clients say of where they are.
        metadata.get("x-forwarded-for", "").rpartition(",")[2].strip() if peer == EDGE else "",
        metadata.get("x-request-id", ""),
        method.rpc,
    )


@lru_cache(64)
def _roles(text: str) -> frozenset[str]:
    return frozenset(filter(None, text.split(",")))
