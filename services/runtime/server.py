"""Runs a gRPC server until it is told to stop: interceptors, health on a port of its own, graceful drain."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.runtime import contract, interceptors, log
from services.runtime.config import ServerSettings
from services.runtime.contract import Method
from services.runtime.interceptors import Interceptors, Layer
from services.runtime.shedding import Shedding
from services.runtime.tls import Identity
from services.runtime.trail import Trail
from services.runtime.writing import WRITE_SECONDS

DRAIN_SECONDS = 10.0
READINESS_SECONDS = 1.0
MOST_RPCS = 10_000
"""At once, streams and all: as many as an edge lets through. Both have lower limits of their own, which say why."""
LIVENESS = "liveness"
"""The health service that says whether to kill the process. "" says whether to send it requests."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

OPTIONS = (
    ("grpc.so_reuseport", 0),  # a stale process must not silently share the port
    ("grpc.http2.min_ping_interval_without_data_ms", 5000),  # Envoy pings quiet streams
    ("grpc.http2.max_ping_strikes", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_connection_age_ms", 300_000),  # a client connects anew, and so finds the replicas that are new
    # The edge lets 32 KiB of headers through. From gRPC's own soft limit of 8 KiB on, it refuses some at random.
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 128 * 1024),
)

_log = structlog.get_logger()

Register = Callable[[grpc.aio.Server], None]
Check = Callable[[], Awaitable[None]]


def once(check: Check) -> Check:
    """Returns a check that has to pass only once: of what must be set right, and can be done without for a while."""
    passed = False

    async def passes() -> None:
        nonlocal passed
        if not passed:
            await check()
            passed = True

    return passes


def layers(idempotency: Layer | None = None, trail: Trail | None = None) -> Sequence[Layer]:
    """What every call passes through, outermost first."""
    every = [
        interceptors.errors,
        Shedding().layer,
        interceptors.log,
        interceptors.identity,
        interceptors.within_deadline,
        interceptors.validation,
        interceptors.success,
        trail.of_reading if trail else None,
        idempotency,
    ]
    return [layer for layer in every if layer]


def build(
    methods: Mapping[str, Method],
    register: Sequence[Register],
    idempotency: Layer | None = None,
    options: Sequence[tuple[str, int]] = (),
    write_seconds: float = WRITE_SECONDS,
    trail: Trail | None = None,
) -> grpc.aio.Server:
    """Returns a server with these servicers behind the interceptors, not yet listening.

    `options` are gRPC's. `write_seconds` is how long a message of a stream may wait for its client. The `trail` is
    served, too, and told who reads what is somebody else's.
    """
    intercepting = Interceptors(methods, layers(idempotency, trail), write_seconds)
    server = grpc.aio.server(
        interceptors=[intercepting], options=(*OPTIONS, *options), maximum_concurrent_rpcs=MOST_RPCS
    )
    for servicer in register:
        servicer(server)
    if trail:
        trail.register(server)
    return server


async def serve(
    name: str,
    settings: ServerSettings,
    register: Sequence[Register],
    *,
    background: Sequence[Coroutine[Any, Any, None]] = (),
    ready: Sequence[Check] = (),
    idempotency: Layer | None = None,
    options: Sequence[tuple[str, int]] = (),
    write_seconds: float = WRITE_SECONDS,
    trail: Trail | None = None,
    on_drain: Callable[[], None] = lambda: None,
) -> None:
    """Serves until SIGTERM or SIGINT. `background` runs beside the server; it is ready while no check raises.

    `on_drain` ends what would not end by itself: streams. `options` are gRPC's, beside OPTIONS; `write_seconds` and
    `trail` as in `build`.
    """
    server = build(contract.load(settings.contract), register, idempotency, options, write_seconds, trail)
    await run(name, server, settings, background=background, ready=ready, on_drain=on_drain)


async def run(
    name: str,
    server: grpc.aio.Server,
    settings: ServerSettings,
    *,
    background: Sequence[Coroutine[Any, Any, None]] = (),
    ready: Sequence[Check] = (),
    on_drain: Callable[[], None] = lambda: None,
) -> None:
    """Runs a server that is built: see `serve`."""
    log.configure(name)
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)

    server.add_secure_port(settings.listen_address, Identity.of(settings).server())
    health_server, servicer = grpc.aio.server(options=OPTIONS), health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, health_server)
    health_server.add_insecure_port(settings.health_address)
    await servicer.set(LIVENESS, _SERVING)
    await servicer.set("", _NOT_SERVING)
    await server.start()
    await health_server.start()
    _log.info("listening", address=settings.listen_address, health=settings.health_address)

    async with asyncio.TaskGroup() as tasks:
        readiness = tasks.create_task(_follow_readiness(servicer, ready))
        running = [tasks.create_task(one) for one in background]
        await stop.wait()
        _log.info("draining", seconds=DRAIN_SECONDS)
        readiness.cancel()
        await servicer.set("", _NOT_SERVING)
        on_drain()
        await server.stop(DRAIN_SECONDS)
        for task in running:  # last: requests in flight may still need them
            task.cancel()
    await health_server.stop(None)


async def _follow_readiness(servicer: health.aio.HealthServicer, ready: Sequence[Check]) -> None:
    before = None
    while True:
        try:
            async with asyncio.timeout(READINESS_SECONDS):
                await asyncio.gather(*(check() for check in ready))
            now, why = _SERVING, {}
        except Exception as error:  # whatever it is, requests would meet it too
            now, why = _NOT_SERVING, log.failure(error)
        if now != before:
            await servicer.set("", now)
            _log.info("readiness", serving=now == _SERVING, **why)
            before = now
        await asyncio.sleep(READINESS_SECONDS if now == _SERVING else READINESS_SECONDS / 10)
