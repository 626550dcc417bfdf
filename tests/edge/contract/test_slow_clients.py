"""Clients that take or send nothing are let go of; slow ones are not. With the limits of the edge made short."""

import asyncio
import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import h2.connection
import httpx
import pytest
from google.protobuf.message import Message

from services.runtime.contract import Method
from tests.edge.contract.backend import Backend, serving
from tests.edge.contract.edge import AUTHORIZED, Edge, reason_of, rendered, server_ports, started
from tests.edge.contract.raw import CREDENTIAL
from tests.waiting import wait_until

DOWNLOAD = "/document.v1.DocumentService/DownloadDocument"
EVENTS = "/payment.v1.PaymentService/StreamPayments"
SHORT = {
    "listeners.yaml": {
        "int_value: 45000": "int_value: 5000",
        "stream_idle_timeout: 60s": "stream_idle_timeout: 3s",
        "request_headers_timeout: 10s": "request_headers_timeout: 1s",
        "idle_timeout: 45s": "idle_timeout: 4s",
        "transport_socket_connect_timeout: 5s": "transport_socket_connect_timeout: 1s",
    },
    "routes.yaml": {
        "max_stream_duration: 6s": "max_stream_duration: 4s",
        "max_stream_duration: 11s": "max_stream_duration: 4s",
    },
}
USER = CREDENTIAL.decode()
# How each begins, what it sends every 0.2 s, whether to the port of TLS, and the status that it gets if any.
SLOW = {
    "who says nothing": ("", "", False, None),
    "who says nothing in TLS": ("", "", True, None),
    "who shakes hands for ever": ("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "x", True, None),
    "whose headers drip": ("GET / HTTP/1.1\r\nX: ", "x", False, 408),
    "whose first line never comes": ("", "\r\n", False, 408),
    "whose JSON drips": (
        f"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\n{USER}Content-Length: 999\r\n\r\n{{",
        " ",
        False,
        408,
    ),
    "whose chunks drip": (
        f"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\n{USER}Transfer-Encoding: chunked\r\n\r\n",
        "1\r\n \r\n",
        False,
        408,
    ),
    "whose trailers drip": (
        f"POST /api/v1/payments HTTP/1.1\r\nHost: x\r\n{USER}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nX: ",
        "x",
        False,
        408,
    ),
    "who drips to the public": (
        "POST /api/v1/sessions HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{",
        " ",
        False,
        408,
    ),
    "who drips where nothing is asked": (
        f"GET /api/v1/accounts HTTP/1.1\r\nHost: x\r\n{USER}Content-Length: 999\r\n\r\n",
        "x",
        False,
        408,
    ),
    "who drips where a stream is": (
        f"GET /api/v1/payments/events HTTP/1.1\r\nHost: x\r\n{USER}Content-Length: 999\r\n\r\n",
        "x",
        False,
        408,
    ),
    "who drips where nothing is": ("POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n", "x", False, 404),
    "who asks no more": (f"GET /api/v1/accounts HTTP/1.1\r\nHost: x\r\n{USER}\r\n", "", False, 200),
}
OF_EACH = 20


class Stream:
    """An answer that goes on as long as the edge takes it, and tells when it does no longer."""

    def __init__(self, backend: Backend) -> None:
        self.sent = 0
        self.over = threading.Event()
        self._backend = backend

    def __call__(self, context: grpc.ServicerContext) -> Iterator[Message]:
        context.add_callback(self.over.set)
        while not self.over.is_set():
            self.sent += 65536
            yield self._backend.message("google.api.HttpBody", content_type="text/event-stream", data=b":" * 65536)


@pytest.fixture(scope="module")
def impatient(
    methods: Mapping[str, Method], _backend: Backend, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    """An edge with short limits."""
    services, folder = server_ports(methods), tmp_path_factory.mktemp("impatient")
    edge = rendered(folder, certificates, services)
    for file, limits in SHORT.items():
        text = (folder / file).read_text()
        for usual, short in limits.items():
            assert usual in text
            text = text.replace(usual, short)
        (folder / file).write_text(text)
    with serving(_backend, certificates, services), started(edge):
        wait_until(edge.is_ready, f"Envoy is not ready; see envoy.log in {folder}")
        yield edge


def ask(edge: Edge, path: str) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    connection.connect(("127.0.0.1", edge.port))
    connection.sendall(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {AUTHORIZED['authorization']}\r\n\r\n".encode()
    )
    assert connection.recv(12) == b"HTTP/1.1 200"
    return connection


@pytest.mark.parametrize(
    ("rpc", "path"), [(DOWNLOAD, "/api/v1/documents/doc_1/content"), (EVENTS, "/api/v1/payments/events")]
)
def test_who_takes_nothing_is_cut_off_and_holds_little_until_then(
    impatient: Edge, backend: Backend, rpc: str, path: str
) -> None:
    stream = Stream(backend)
    with backend.answering(rpc, stream), ask(impatient, path):
        assert stream.over.wait(30), "the call goes on"
        wait_until(lambda: impatient.stat("http.edge.downstream_rq_active") == 0, "the request is kept")
    assert stream.sent < 2 * 1024 * 1024


def test_who_opens_no_window_in_http2_is_cut_off(impatient: Edge, backend: Backend) -> None:
    stream, http2 = Stream(backend), h2.connection.H2Connection()
    request = {":method": "GET", ":scheme": "http", ":authority": "x", ":path": "/api/v1/documents/doc_1/content"}
    with backend.answering(DOWNLOAD, stream), socket.create_connection(("127.0.0.1", impatient.port)) as connection:
        http2.initiate_connection()
        http2.send_headers(1, [*(request | AUTHORIZED).items()], end_stream=True)
        connection.sendall(http2.data_to_send())
        assert stream.over.wait(30), "the call goes on"
    assert stream.sent < 2 * 1024 * 1024


def test_who_takes_little_is_served(impatient: Edge, backend: Backend) -> None:
    stream = Stream(backend)
    with backend.answering(DOWNLOAD, stream), ask(impatient, "/api/v1/documents/doc_1/content") as connection:
        for _ in range(40):  # much longer than one may take nothing at all
            assert len(connection.recv(65536)) > 0
            assert not stream.over.wait(0.2), "the call was ended"
    assert stream.over.wait(30), "the call goes on"


@pytest.mark.parametrize("path", ["/api/v1/payments", "/api/v1/sessions"])
def test_who_stops_sending_is_told_so(impatient: Edge, path: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", impatient.port, timeout=15)
    connection.putrequest("POST", path)
    connection.putheader("authorization", AUTHORIZED["authorization"])
    connection.putheader("content-length", "9")
    connection.endheaders(b"{")
    with contextlib.closing(connection), connection.getresponse() as answer:
        assert answer.status == 408
        response = httpx.Response(408, headers=dict(answer.getheaders()), content=answer.read())
    assert reason_of(response) == "REQUEST_TIMEOUT"


async def drip(port: int, begin: str, byte: str) -> bytes:
    """Sends slowly until the edge closes the connection. Returns all that it said. Raises TimeoutError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    said = b""
    try:
        writer.write(begin.encode("latin-1"))
        async with asyncio.timeout(60):
            while not reader.at_eof():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.2):
                        said += await reader.read(65536)
                writer.write(byte.encode())
    except ConnectionError:
        pass
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return said


async def serve(edge: Edge, over: asyncio.Event) -> list[int]:
    """Asks for something again and again. Returns the statuses."""
    statuses = []
    async with httpx.AsyncClient(base_url=edge.url, timeout=30) as client:
        while not over.is_set():
            statuses.append((await client.get("/api/v1/accounts", headers=AUTHORIZED)).status_code)
            await asyncio.sleep(0.05)
    return statuses


@pytest.fixture(scope="module")
def said(impatient: Edge) -> Mapping[str, list[bytes]]:
    """What the edge said to many of each kind, all at once, until it cut them off. Meanwhile it serves others."""

    async def run() -> Mapping[str, list[bytes]]:
        over = asyncio.Event()
        good = asyncio.create_task(serve(impatient, over))
        clients = {
            name: asyncio.gather(
                *(drip(impatient.tls_port if tls else impatient.port, begin, byte) for _ in range(OF_EACH))
            )
            for name, (begin, byte, tls, _) in SLOW.items()
        }
        try:
            said = {name: await several for name, several in clients.items()}
        finally:
            over.set()
            assert {*await good} == {200}
        return said

    return asyncio.run(run())


@pytest.mark.parametrize("name", SLOW)
def test_who_is_slow_is_cut_off_and_others_are_served(said: Mapping[str, list[bytes]], name: str) -> None:
    status = SLOW[name][-1]
    assert len(said[name]) == OF_EACH
    for one in said[name]:
        assert one.startswith(b"" if status is None else b"HTTP/1.1 %d" % status)
        assert bool(one) == (status is not None) or SLOW[name][2]  # TLS has words of its own for it
