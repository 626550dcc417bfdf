"""What becomes of payments when more come than can be made: goodput and how fast the rest is refused.

Usage: python -m tests.bench.overload [SECONDS]. Starts a stack of its own and ends it. Payments come at a fixed rate,
whatever becomes of those before (an open loop), from a process beside the system: both share the machine.
"""

import asyncio
import multiprocessing
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

import uvloop

from scripts.stack import lifecycle
from scripts.stack.folder import run_folder
from tests.edge.people import People
from tests.edge.stack import Stack

PAYERS = 16
AT_ONCE = 32
"""As many as keep the system busy without waiting for each other."""
FACTORS = (0.5, 1, 2, 4, 1)
WARM_UP_SECONDS = 3
"""Before what counts: until it goes on as it will."""
PATIENCE_SECONDS = 10


def main(seconds: float) -> None:
    """Measures and prints."""
    folder = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-bench-")))
    try:
        settings = lifecycle.up(folder, edge_port=0, edge_tls_port=0)
        stack = Stack(settings, **{name.lower(): value for name, value in settings.reach().items()})
        with ExitStack() as clients:
            people = People(stack, clients)
            payers = people.payers([10_000_000] * PAYERS)
            payee = people.sign_up("Grace Hopper")
        tokens = [payer.client.headers["authorization"] for payer in payers]
        measure(settings.ports["edge"], tokens, payee.id, seconds)
    finally:
        lifecycle.clean(folder)


def measure(port: int, tokens: Sequence[str], payee_id: str, seconds: float) -> None:
    """Finds out how many payments a second there can be, and has several times as many come."""
    requests = [_request(token, payee_id) for token in tokens]
    peak = _apart(_closed_loop, port, requests, seconds)
    print(f"{AT_ONCE} at once: {peak.describe(seconds)}", flush=True)
    for factor in FACTORS:
        outcome = _apart(_open_loop, port, requests, seconds, factor * peak.good / seconds)
        print(f"{factor:g} × capacity: {outcome.describe(seconds)}, {outcome.good / peak.good:.0%} of it", flush=True)


@dataclass
class Outcome:
    """What became of payments."""

    good: int = 0
    """That were made in the time that counts."""
    statuses: Counter[int] = field(default_factory=Counter)
    made: list[float] = field(default_factory=list)
    """Seconds that each payment took that was made."""
    refused: list[float] = field(default_factory=list)

    def add(self, status: int, took: float, *, counts: bool) -> None:
        """Counts one."""
        self.statuses[status] += 1
        self.good += status == 201 and counts
        (self.made if status == 201 else self.refused).append(took)

    def describe(self, seconds: float) -> str:
        """Says it in one line."""
        return (
            f"{self.good / seconds:.0f} payments a second {dict(self.statuses)}, made in {_percentiles(self.made)}, "
            f"refused in {_percentiles(self.refused)}"
        )


def _percentiles(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return "–"
    found = quantiles(seconds, n=1000)
    return f"p50 {found[499] * 1000:.0f} p99 {found[989] * 1000:.0f} max {max(seconds) * 1000:.0f} ms"


def _request(token: str, payee_id: str) -> bytes:
    body = b'{"payeeId":"%s","amount":{"currencyCode":"EUR","units":"1"}}' % payee_id.encode()
    head = (
        "POST /api/v1/payments HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nauthorization: {token}\r\nidempotency-key: KEY\r\n\r\n"
    )
    return head.encode() + body


def _apart(run, *args) -> Outcome:  # type: ignore[no-untyped-def]  # any of the two below
    """Runs it in a process of its own, which takes of the machine what clients do."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_run, (run, *args))


def _run(run, *args) -> Outcome:  # type: ignore[no-untyped-def]
    return uvloop.run(run(*args))  # type: ignore[no-any-return]


async def _closed_loop(port: int, requests: Sequence[bytes], seconds: float) -> Outcome:
    """Each of a number of clients makes a payment as soon as the one before is made."""
    outcome, loop = Outcome(), asyncio.get_running_loop()
    begin = loop.time() + WARM_UP_SECONDS

    async def pay(request: bytes) -> None:
        connection = await _Connection.open(port)
        while (began := loop.time()) < begin + seconds:
            status = await connection.ask(request)
            outcome.add(status, loop.time() - began, counts=begin <= loop.time() < begin + seconds)
        connection.close()

    await asyncio.gather(*(pay(requests[index % len(requests)]) for index in range(AT_ONCE)))
    return outcome


async def _open_loop(port: int, requests: Sequence[bytes], seconds: float, rate: float) -> Outcome:
    """Payments come at a rate. A connection is opened when all are in use."""
    outcome, loop, idle = Outcome(), asyncio.get_running_loop(), list[_Connection]()
    began = loop.time()
    begin = began + WARM_UP_SECONDS

    async def pay(number: int, due: float) -> None:
        connection = idle.pop() if idle else await _Connection.open(port)
        async with asyncio.timeout(PATIENCE_SECONDS):
            status = await connection.ask(requests[number % len(requests)])
        outcome.add(status, loop.time() - due, counts=begin <= loop.time() < begin + seconds)
        if not connection.closing:
            idle.append(connection)

    async with asyncio.TaskGroup() as tasks:
        for number in range(round((WARM_UP_SECONDS + seconds) * rate)):
            due = began + number / rate
            if (wait := due - loop.time()) > 0.001:
                await asyncio.sleep(wait)
            tasks.create_task(pay(number, max(due, loop.time() - 0.005)))
    for connection in idle:
        connection.close()
    return outcome


class _Connection(asyncio.Protocol):
    """One of HTTP/1.1. As small as it can be: the clients' own work is not what is measured."""

    def __init__(self) -> None:
        self._received = b""
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport
        self.closing = False

    @classmethod
    async def open(cls, port: int) -> "_Connection":
        _, protocol = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of TCP, it is one

    async def ask(self, request: bytes) -> int:
        """Sends a payment with a key of its own. Returns the status, or 0 where the connection is lost."""
        self._received, self._answer = b"", asyncio.get_running_loop().create_future()
        self._transport.write(request.replace(b"KEY", secrets.token_hex(8).encode(), 1))
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, separator, body = self._received.partition(b"\r\n\r\n")
        if separator and self._answer and not self._answer.done():
            length = head.lower().partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
            complete = len(body) >= int(length) if length else body.endswith(b"0\r\n\r\n")
            if complete:
                self.closing = b"\r\nconnection: close" in head.lower()
                self._answer.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result(0)

    def close(self) -> None:
        self._transport.close()


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
