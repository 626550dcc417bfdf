"""Bodies that never end, as large as can be: what the edge holds of them takes nothing from others."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import httpx

from services.runtime.contract import Method
from tests.edge.contract.backend import Backend, serving
from tests.edge.contract.edge import AUTHORIZED, CONTRACT, Edge, running, server_ports
from tests.waiting import eventually

MEMORY = 192 * 1024 * 1024
"""Half of what a container has, and half as many clients as it would take a stranger to have."""
HELD = {
    "GET /api/v1/payments": (100, 1024 * 1024),
    "GET /api/v1/payments/events": (50, 1024 * 1024),
    "POST /api/v1/payments": (100, 256 * 1024),
    "POST /api/v1/sessions": (50, 256 * 1024),
}
"""How many send a body of so many bytes but for the last, without a token."""


async def hold(port: int, line: str, size: int, opened: AsyncExitStack) -> None:
    """Sends all but the last byte, and waits. Who is refused or cut off has done what they can."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    opened.callback(writer.close)
    writer.write(f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
    writer.write(b"x" * (size - 1))
    try:
        await writer.drain()
        await reader.read(1)
    except ConnectionError:
        pass


async def held_and_asked(edge: Edge) -> list[int]:
    """Returns what somebody else was answered meanwhile."""
    statuses: list[int] = []
    clients = [one for one, (number, _) in HELD.items() for _ in range(number)]
    async with AsyncExitStack() as opened, httpx.AsyncClient(base_url=edge.url, timeout=30) as good:
        held = asyncio.gather(*(hold(edge.port, one, HELD[one][1], opened) for one in clients))

        async def all_came() -> bool:
            statuses.append((await good.get("/api/v1/accounts", headers=AUTHORIZED)).status_code)
            return edge.stat("http.edge.downstream_cx_total") > len(clients)

        await eventually(all_came, seconds=30)
        while not held.done():
            statuses.append((await good.get("/api/v1/accounts", headers=AUTHORIZED)).status_code)
            await asyncio.sleep(0.02)
        await held
    return statuses


def test_who_holds_bodies_takes_nothing_from_others(
    methods: Mapping[str, Method], certificates: Path, tmp_path: Path
) -> None:
    backend, services = Backend(CONTRACT, methods), server_ports(methods)
    with (
        serving(backend, certificates, services),
        running(tmp_path, certificates, services, MEMORY=str(MEMORY)) as edge,
    ):
        statuses = asyncio.run(held_and_asked(edge))
        assert edge.stat("http.edge.downstream_rq_overload_close") == 0
    assert {*statuses} == {200}
    assert len(statuses) > 10
