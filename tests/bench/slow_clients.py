"""What many slow clients do to others: how long each kind is borne with, and what good requests take meanwhile.

Usage: python -m tests.bench.slow_clients [CLIENTS [SECONDS]]. Starts a stack of its own and ends it. The clients come
within 5 s, and each that is cut off comes back at once, for so many seconds (60). Both share the machine.
"""

import asyncio
import random
import resource
import socket
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median, quantiles

import httpx
import psutil
import uvloop

from scripts.stack import lifecycle
from scripts.stack.folder import run_folder
from tests.edge.people import People
from tests.edge.stack import Stack

GOOD_PER_SECOND = 20
_DRIP_SECONDS = 1.0
_PATIENCE_SECONDS = 70.0
_COME_IN_SECONDS = 5.0
_ESTABLISHED = 1

Kind = tuple[bytes, bytes, bool]
"""What it begins with, what it sends every second, and whether to the port of TLS."""


def main(clients: int, seconds: float) -> None:
    """Measures and prints."""
    folder = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-bench-")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    try:
        settings = lifecycle.up(folder, edge_port=0, edge_tls_port=0)
        stack = Stack(settings, **{name.lower(): value for name, value in settings.reach().items()})
        with ExitStack() as opened:
            token = str(People(stack, opened).sign_up().client.headers["authorization"])
        uvloop.run(_measure(stack, token, clients, seconds))
    finally:
        lifecycle.clean(folder)


def _kinds(token: str) -> Mapping[str, Kind]:
    head = f"Host: x\r\nAuthorization: {token}\r\n".encode()
    return {
        "idle": (b"", b"", False),
        "slow headers": (b"GET /api/v1/accounts HTTP/1.1\r\nX: ", b"x", False),
        "slow JSON": (b"POST /api/v1/payments HTTP/1.1\r\n" + head + b"Content-Length: 999\r\n\r\n{", b" ", False),
        "slow upload": (
            b"POST /api/v1/documents/upload HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            + head
            + b"Content-Length: 99999\r\n\r\n--x\r\n",
            b"x",
            False,
        ),
        "TLS handshake": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"x", True),
        "reads nothing": (b"GET /api/v1/accounts HTTP/1.1\r\n" + head + b"\r\n", b"", False),
    }


async def _measure(stack: Stack, token: str, clients: int, seconds: float) -> None:
    envoy = psutil.Process(stack.pid("envoy"))
    await _good(stack, token, 5)  # what is slow at the first
    before = await _good(stack, token, 20)
    memory = envoy.memory_info().rss
    borne: dict[str, list[float]] = defaultdict(list)
    end = time.monotonic() + seconds
    kinds = list(_kinds(token).items())
    slow = [asyncio.create_task(_again(stack, *kinds[i % len(kinds)], end, borne)) for i in range(clients)]
    meanwhile = await _good(stack, token, seconds)
    grown = envoy.memory_info().rss - memory
    await asyncio.gather(*slow)
    for name, times in borne.items():
        kept = sum(one >= _PATIENCE_SECONDS for one in times)
        print(
            f"{name}: {len(times)} times, borne with {median(times):.1f} s, {max(times):.1f} s at the most; {kept} kept"
        )
    first, then = 1000 * _p99(before), 1000 * _p99(meanwhile)
    print(f"good requests: p99 {first:.0f} ms before, {then:.0f} ms meanwhile, {then / first:.2f} times")
    print(f"Envoy: {grown / 2**20:.0f} MiB more")


async def _good(stack: Stack, token: str, seconds: float) -> list[float]:
    """Asks at a fixed rate. Returns how long each answer took."""

    async def ask() -> float:
        start = time.perf_counter()
        answer = await client.get("/api/v1/accounts", headers={"authorization": token})
        refused[answer.status_code] += answer.status_code != httpx.codes.OK
        return time.perf_counter() - start

    refused: Counter[int] = Counter()
    async with httpx.AsyncClient(base_url=stack.edge_url, timeout=30, trust_env=False) as client:
        asked = []
        for _ in range(int(seconds * GOOD_PER_SECOND)):
            asked.append(asyncio.create_task(ask()))
            await asyncio.sleep(1 / GOOD_PER_SECOND)
        times = await asyncio.gather(*asked)
    if +refused:
        print(f"{refused.total()} of {len(times)} good requests were refused: {dict(+refused)}")
    return times


async def _again(stack: Stack, name: str, kind: Kind, end: float, borne: dict[str, list[float]]) -> None:
    await asyncio.sleep(random.uniform(0, _COME_IN_SECONDS))  # noqa: S311  # or that they come would be all that counts
    while time.monotonic() < end:
        start = time.monotonic()
        await _drip(stack.settings.ports["edge_tls" if kind[2] else "edge"], *kind[:2])
        borne[name].append(time.monotonic() - start)


async def _drip(port: int, begin: bytes, byte: bytes) -> None:
    """Sends slowly and reads nothing, until the edge closes the connection."""
    _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    with suppress(ConnectionError, TimeoutError, RuntimeError):  # uvloop's, for a transport that was closed
        async with asyncio.timeout(_PATIENCE_SECONDS):
            writer.write(begin)
            while writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED:
                await asyncio.sleep(_DRIP_SECONDS)
                writer.write(byte)
                if byte:
                    await writer.drain()
    writer.transport.abort()


def _p99(times: list[float]) -> float:
    return quantiles(times, n=100)[-1]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, float(sys.argv[2]) if len(sys.argv) > 2 else 60.0)
