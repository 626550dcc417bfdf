"""Channels to other services. Each call carries the caller, the trace, and the deadline less a margin.

When the certificates are renewed, calls go on over a new connection, and those in flight come to their end on the old.
"""

import asyncio
import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import grpc

from services.runtime import caller, deadline, trace
from services.runtime.breaker import Breaker
from services.runtime.contract import COMMON, UNARY_DEADLINE, Method
from services.runtime.errors import DeadlineExceeded
from services.runtime.tls import Identity

MARGIN_SECONDS = 0.1
"""What is kept of the deadline to answer with after a downstream call ran out of time."""

RENEW_SECONDS = 5.0
"""How long renewed certificates may go unnoticed."""

_RETRY = {
    "maxAttempts": 3,
    "initialBackoff": "0.05s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],  # the latter by a server that has just begun to stop
}


class NoTimeLeft(DeadlineExceeded):
    """The deadline leaves no time for another call."""

    message = "There is no time left to finish this."


def connect(server: str, address: str, identity: Identity, methods: Mapping[str, Method]) -> grpc.aio.Channel:
    """Opens a channel to a service (lazily: nothing is connected yet). Calls that are safe to retry are."""
    breaker = Breaker(server)
    return cast(grpc.aio.Channel, _Outgoing(identity, breaker, lambda: _open(server, address, identity, methods)))


def _open(server: str, address: str, identity: Identity, methods: Mapping[str, Method]) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(
        address,
        identity.channel(),
        options=(
            ("grpc.ssl_target_name_override", server),
            # A peer that was away is found again within seconds; gRPC's own backoff grows to two minutes.
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1000),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.dns_min_time_between_resolutions_ms", 2000),  # by default replicas that moved are lost for 30 s
            ("grpc.keepalive_time_ms", 10_000),  # finds the peer whose machine is gone
            ("grpc.keepalive_timeout_ms", 3000),
            ("grpc.service_config", json.dumps(_service_config(server, methods))),
        ),
    )


def _service_config(server: str, methods: Mapping[str, Method]) -> dict[str, Any]:
    safe = [method.rpc for method in methods.values() if method.server in (server, COMMON) and method.safe_to_retry]
    names = [dict(zip(("service", "method"), rpc[1:].split("/"), strict=True)) for rpc in safe]
    return {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [{"name": names, "retryPolicy": _RETRY}],
        # Once half of this many failed, and each that did not makes up for a tenth of one, nothing is tried again: a
        # peer that has too much to do is not asked three times as much.
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }


class _Outgoing:
    """The part of a channel that stubs use. Cheaper than client interceptors, which cost a task per call."""

    def __init__(self, identity: Identity, breaker: Breaker, opened: Callable[[], grpc.aio.Channel]) -> None:
        self._identity = identity
        self._breaker = breaker
        self._opened = opened
        self._used = identity.stamp()
        self._look_at = 0.0
        self._channel = opened()
        self._calls: dict[str, Any] = {}
        """By RPC, those of the channel."""
        self._ending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        await asyncio.gather(self._channel.close(), *self._ending)

    def unary_unary(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        begin = self._caller("unary_unary", args, kwargs)
        return lambda request: self._breaker.call(partial(begin, request), _timeout())

    def unary_stream(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        begin = self._caller("unary_stream", args, kwargs)
        return lambda request: begin(request, _timeout())

    def stream_unary(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        begin = self._caller("stream_unary", args, kwargs)
        return lambda requests: begin(requests, _timeout())

    def _caller(self, kind: str, args: Any, kwargs: Any) -> Callable[[Any, float], Any]:
        rpc = args[0]

        def begin(request: Any, timeout: float) -> Any:
            self._renew()
            call = self._calls.get(rpc)
            if call is None:
                call = self._calls[rpc] = getattr(self._channel, kind)(*args, **kwargs)
            return call(request, timeout=timeout, metadata=_metadata())

        return begin

    def _renew(self) -> None:
        """Goes on with a new channel where the certificates are new. Looks now and then."""
        now = asyncio.get_running_loop().time()
        if now < self._look_at:
            return
        self._look_at = now + RENEW_SECONDS
        renewed = self._identity.renewed_since(self._used)
        if renewed != self._used:
            ending = asyncio.create_task(self._channel.close(UNARY_DEADLINE))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)
            self._used, self._channel, self._calls = renewed, self._opened(), {}


def _timeout() -> float:
    remaining = deadline.remaining()
    if remaining is None:
        return UNARY_DEADLINE
    if remaining <= MARGIN_SECONDS:
        raise NoTimeLeft
    return remaining - MARGIN_SECONDS


def _metadata() -> tuple[tuple[str, str], ...]:
    who = caller.current()
    return (
        ("x-user-id", who.user_id),
        ("x-user-roles", ",".join(sorted(who.roles))),
        ("traceparent", trace.traceparent()),
    )
