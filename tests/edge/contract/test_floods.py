"""Who floods the edge with frames of HTTP/2 loses the connection. Others notice nothing, and memory stays bounded."""

import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import httpx
import pytest
from google.protobuf.message import Message

from tests.edge.contract.backend import Backend
from tests.edge.contract.edge import AUTHORIZED, Edge
from tests.edge.contract.http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GET_AS_USER,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    block,
    frame,
    request,
)
from tests.waiting import wait_until

CANCEL = struct.pack(">I", 8)
MIB = 1024 * 1024
MOST = 24 * MIB
"""Bytes that a flood may come to before it is an error that nobody ended it."""

Flood = Iterator[bytes]


def rapid_resets() -> Flood:
    """CVE-2023-44487."""
    for stream in range(1, 200_000, 2):
        yield request(stream) + frame(RST_STREAM, 0, stream, CANCEL)


def resets_that_the_edge_is_made_to_send() -> Flood:
    """CVE-2025-8671."""
    for stream in range(1, 200_000, 2):
        yield request(stream) + frame(WINDOW_UPDATE, 0, stream, bytes(4))


def endless_headers() -> Flood:
    """CVE-2024-30255."""
    yield frame(HEADERS, END_STREAM, 1, block(GET_AS_USER))
    while True:
        yield frame(CONTINUATION, 0, 1, block([("x-large", "x" * 1000)]) * 10)


def endless_empty_headers() -> Flood:
    yield frame(HEADERS, END_STREAM, 1, block(GET_AS_USER))
    while True:
        yield frame(CONTINUATION, 0, 1) * 100


def settings() -> Flood:
    """CVE-2019-9515. Each asks for an answer, and none is read."""
    while True:
        yield frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)) * 100


def pings() -> Flood:
    """CVE-2019-9512."""
    while True:
        yield frame(PING, 0, 0, bytes(8)) * 100


def empty_data() -> Flood:
    """CVE-2019-9518."""
    fields = [*GET_AS_USER[1:3], (":method", "POST"), (":path", "/api/v1/documents/upload"), *GET_AS_USER[4:]]
    yield request(1, fields, END_HEADERS)
    while True:
        yield frame(DATA, 0, 1) * 100


def priorities() -> Flood:
    """CVE-2019-9513."""
    while True:
        yield frame(PRIORITY, 0, 1, struct.pack(">IB", 3, 1)) * 100


def windows() -> Flood:
    while True:
        yield frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)) * 100


def resets_of_nothing() -> Flood:
    yield frame(RST_STREAM, 0, 1, CANCEL)
    while True:
        yield frame(RST_STREAM, 0, 3, CANCEL) * 100


def headers_that_grow() -> Flood:
    """A few bytes that mean 4000 each: CVE-2016-6581."""
    yield frame(HEADERS, END_STREAM | END_HEADERS, 1, block(GET_AS_USER) + b"\x40\x01x\x7f\xa1\x1e" + b"x" * 4000)
    for stream in range(3, 200_000, 2):
        yield frame(HEADERS, END_STREAM | END_HEADERS, stream, block(GET_AS_USER) + b"\xbe" * 10_000)


FLOODS: list[Callable[[], Flood]] = [
    *(rapid_resets, resets_that_the_edge_is_made_to_send, endless_headers, endless_empty_headers, settings, pings),
    *(empty_data, priorities, windows, resets_of_nothing, headers_that_grow),
]


@dataclass
class Day:
    """What came of all floods at once."""

    sent: dict[str, int] = field(default_factory=dict)
    """Bytes that the edge, or the sockets on the way to it, took of each flood until it was ended."""
    answers: list[httpx.Response] = field(default_factory=list)
    """What others got meanwhile."""
    slowest: float = 0.0
    """Seconds."""
    grown: int = 0
    """Bytes of memory."""

    def flood(self, edge: Edge, flood: Callable[[], Flood]) -> None:
        """Sends a flood until it is ended."""
        with Connection(edge.port, seconds=30) as connection:
            for data in flood():
                if connection.sent > MOST or not connection.send(data):
                    break
            if connection.closed or connection.is_ended():
                self.sent[flood.__name__] = connection.sent

    def ask(self, edge: Edge, over: threading.Event) -> None:
        """Asks for something again and again."""
        with httpx.Client(base_url=edge.url, timeout=30) as client:
            while not over.wait(0.02):
                start = time.monotonic()
                self.answers.append(client.get("/api/v1/accounts", headers=AUTHORIZED))
                self.slowest = max(self.slowest, time.monotonic() - start)


@pytest.fixture(scope="module")
def day(edge: Edge) -> Day:
    """All floods at once, while others ask for something."""
    day, over, before = Day(), threading.Event(), edge.stat("server.memory_allocated")
    with ThreadPoolExecutor(max_workers=len(FLOODS) + 2) as threads:
        users = [threads.submit(day.ask, edge, over) for _ in range(2)]
        floods = [threads.submit(day.flood, edge, flood) for flood in FLOODS]
        try:
            for flood in floods:
                flood.result()
            wait_until(lambda: len(day.answers) > 50, "nobody is answered any more")
            day.grown = edge.stat("server.memory_allocated") - before
        finally:
            over.set()
        for user in users:
            user.result()
    return day


@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
def test_who_floods_loses_the_connection(day: Day, flood: Callable[[], Flood]) -> None:
    assert day.sent[flood.__name__] < MOST


def test_others_notice_nothing(day: Day) -> None:
    assert {answer.status_code for answer in day.answers} == {200}
    assert day.slowest < 10


def test_memory_stays_bounded(day: Day, edge: Edge) -> None:
    assert day.grown < 64 * MIB
    assert edge.is_ready()
    assert edge.is_live()


def test_there_are_a_hundred_requests_on_a_connection_at_once(edge: Edge, backend: Backend) -> None:
    over = threading.Event()

    def wait(context: grpc.ServicerContext) -> Iterator[Message]:
        over.wait(20)
        yield backend.message("payment.v1.ListAccountsResponse")

    try:
        with backend.answering("/payment.v1.AccountService/ListAccounts", wait), Connection(edge.port) as connection:
            connection.send(b"".join(request(stream) for stream in range(1, 203, 2)))
            assert connection.is_refused(201)
    finally:
        over.set()
