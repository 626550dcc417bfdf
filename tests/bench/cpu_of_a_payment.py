"""What one payment costs in CPU time, process by process, against the floor of its gRPC hops.

Usage: python -m tests.bench.cpu_of_a_payment [PAYMENTS]. Starts a stack of its own and ends it.
"""

import asyncio
import multiprocessing
import secrets
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import grpc
import httpx
import psutil
import uvloop

from scripts.stack import lifecycle, supervision
from scripts.stack.folder import run_folder
from scripts.stack.settings import SERVERS
from tests.edge.people import People, Person
from tests.edge.stack import Stack
from tests.waiting import wait_until

HOPS = ("edge → authz", "edge → payment", "payment → user", "payment → compliance (twice)", "payment → document")
NUMBER_OF_HOPS = 6
CONCURRENCY = 8
PROCESSES = ("envoy", *SERVERS, "postgres", "nats")
_BARE = "/bench.Bare/Call"


def main(payments: int) -> None:
    """Measures and prints."""
    folder = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-bench-")))
    try:
        settings = lifecycle.up(folder, edge_port=0, edge_tls_port=0)
        stack = Stack(settings, **{name.lower(): value for name, value in settings.reach().items()})
        with ExitStack() as clients:
            people = People(stack, clients)
            payers = people.payers([1_000_000] * CONCURRENCY)
            payee = people.sign_up("Grace Hopper")
            _pay_and_settle(stack, payers, payee, payments // 10)
            before = _cpu(stack)
            _pay_and_settle(stack, payers, payee, payments)
            used = {name: (seconds - before[name]) / payments * 1e6 for name, seconds in _cpu(stack).items()}
    finally:
        lifecycle.clean(folder)
    floor = _bare_hop(payments * NUMBER_OF_HOPS)
    for name, microseconds in used.items():
        print(f"{name:<14}{microseconds:8.0f} µs")
    python = sum(used[name] for name in ("authz", "payment", "user", "compliance", "document"))
    total = sum(used.values())
    hops = NUMBER_OF_HOPS * floor
    print(f"{'all':<14}{total:8.0f} µs a payment, its settlement, events and notifications included")
    print(f"{'bare hop':<14}{floor:8.0f} µs, {hops:.0f} µs for {NUMBER_OF_HOPS} of them: {', '.join(HOPS)}")
    print(f"{'ratio':<14}{total / hops:8.1f} all, {python / hops:.1f} the five Python processes on its way")


def _pay_and_settle(stack: Stack, payers: list[Person], payee: Person, payments: int) -> None:
    """Makes payments, and waits until each payer's last is settled and they were told: two requests a payer or so."""
    for payer, last in zip(payers, asyncio.run(_pay(stack, payers, payee, payments)), strict=True):
        payer.client.get(f"/api/v1/payments/{last}/status").raise_for_status()  # a stream that ends when it is settled
        wait_until(partial(_told_of_settlement, payer, last), f"the payer of {last} was not told of its settlement")


def _told_of_settlement(payer: Person, payment_id: str) -> bool:
    newest = payer.client.get("/api/v1/notifications").raise_for_status().json()["notifications"]
    return any(one["paymentId"] == payment_id and one["kind"] == "PAYMENT_SETTLED" for one in newest)


async def _pay(stack: Stack, payers: list[Person], payee: Person, payments: int) -> list[str]:
    """Makes payments, as many for each payer, at least one. Returns the id of each payer's last."""
    async with httpx.AsyncClient(base_url=stack.edge_url, trust_env=False) as client:

        async def pay(payer: Person) -> str:
            body = {"payeeId": payee.id, "amount": {"currencyCode": "EUR", "units": 1}}
            for _ in range(max(payments // len(payers), 1)):
                headers = {**dict(payer.client.headers), "idempotency-key": secrets.token_hex()}
                response = await client.post("/api/v1/payments", json=body, headers=headers)
                response.raise_for_status()
            return str(response.json()["id"])

        return await asyncio.gather(*map(pay, payers))


def _cpu(stack: Stack) -> dict[str, float]:
    """The seconds of CPU that each process and its children have used."""
    return {name: sum(map(_seconds, _family(supervision.pid(stack.settings.folder, name)))) for name in PROCESSES}


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _bare_hop(calls: int) -> float:
    """The CPU time of a bare grpc.aio server per call, in microseconds."""
    ready = multiprocessing.Event()
    port = multiprocessing.Value("i", 0)
    server = multiprocessing.Process(target=_serve_bare, args=(ready, port), daemon=True)
    server.start()
    ready.wait(10)
    before = _seconds(psutil.Process(server.pid))
    uvloop.run(_call_bare(port.value, calls))
    used = _seconds(psutil.Process(server.pid)) - before
    server.terminate()
    return used / calls * 1e6


def _serve_bare(ready, port) -> None:  # type: ignore[no-untyped-def]  # multiprocessing's are private
    async def echo(request: bytes, _: object) -> bytes:
        return request

    async def serve() -> None:
        server = grpc.aio.server()
        handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"Call": grpc.unary_unary_rpc_method_handler(echo)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Bare", handlers),))
        port.value = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        ready.set()
        await server.wait_for_termination()

    uvloop.run(serve())


async def _call_bare(port: int, calls: int) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_BARE)

        async def some() -> None:
            for _ in range(calls // CONCURRENCY):
                await call(b"x" * 100)

        await asyncio.gather(*(some() for _ in range(CONCURRENCY)))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
