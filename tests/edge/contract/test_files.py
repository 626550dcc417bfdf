"""What the edge makes of files on their way out and in: lengths, ranges, conditions, and transfers that break off."""

import socket
import threading
import time
from collections.abc import Iterator

import grpc
import h2.exceptions
import httpx
import pytest
from google.protobuf.message import Message

from tests.edge.contract.backend import Backend
from tests.edge.contract.edge import AUTHORIZED, Edge, reason_of
from tests.edge.contract.grpc_client import Channel
from tests.edge.contract.test_answers import assert_clean

DOWNLOAD = "/document.v1.DocumentService/DownloadDocument"
CONTENT = "/api/v1/documents/doc_1/content"
UPLOAD = "/api/v1/documents/upload"
PIECE = b"\x89" * 100_000


@pytest.mark.parametrize(("code", "status"), [("", 200), ("206", 206)])
def test_a_download_says_how_long_it_is(client: httpx.Client, backend: Backend, code: str, status: int) -> None:
    def stream(context: grpc.ServicerContext) -> Iterator[Message]:
        context.send_initial_metadata((("x-content-length", "300000"), *([("x-http-code", code)] if code else [])))
        for _ in range(3):
            yield backend.message("google.api.HttpBody", content_type="image/png", data=PIECE)

    with backend.answering(DOWNLOAD, stream):
        response = client.get(CONTENT, headers=AUTHORIZED)
    assert (response.status_code, response.headers["content-length"]) == (status, "300000")
    assert "transfer-encoding" not in response.headers
    assert response.content == PIECE * 3
    assert_clean(response)


def test_a_download_is_not_held_back_until_it_is_whole(client: httpx.Client, backend: Backend) -> None:
    def stream(context: grpc.ServicerContext) -> Iterator[Message]:
        context.send_initial_metadata((("x-content-length", "2"), ("x-http-code", "206")))
        for letter in (b"a", b"b"):
            yield backend.message("google.api.HttpBody", content_type="text/plain", data=letter)
            arrived.wait(timeout=10)

    arrived = threading.Event()
    with backend.answering(DOWNLOAD, stream), client.stream("GET", CONTENT, headers=AUTHORIZED) as response:
        assert response.status_code == 206
        pieces = response.iter_raw()
        assert next(pieces) == b"a"
        arrived.set()
        assert b"".join(pieces) == b"b"


def test_a_download_that_breaks_off_is_seen_to(client: httpx.Client, backend: Backend) -> None:
    def stream(context: grpc.ServicerContext) -> Iterator[Message]:
        context.send_initial_metadata((("x-content-length", "300000"),))
        yield backend.message("google.api.HttpBody", content_type="image/png", data=PIECE)
        context.abort(grpc.StatusCode.UNAVAILABLE, "The store is away.")

    with (
        backend.answering(DOWNLOAD, stream),
        pytest.raises((httpx.RemoteProtocolError, h2.exceptions.InvalidBodyLengthError)),
    ):
        client.get(CONTENT, headers=AUTHORIZED)


def test_what_the_client_has_already_is_304_without_a_body(client: httpx.Client, backend: Backend) -> None:
    def unchanged(context: grpc.ServicerContext) -> list[Message]:
        context.send_initial_metadata((("x-http-code", "304"), ("etag", '"abc"')))
        return []

    with backend.answering(DOWNLOAD, unchanged):
        response = client.get(CONTENT, headers=AUTHORIZED)
    assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", '"abc"')
    assert {"content-type", "content-length", "transfer-encoding"}.isdisjoint(response.headers)
    assert_clean(response)


def test_a_range_that_is_not_there_is_416(client: httpx.Client, backend: Backend) -> None:
    def refuse(context: grpc.ServicerContext) -> Iterator[Message]:
        context.set_trailing_metadata((("x-http-code", "416"), ("content-range", "bytes */7")))
        context.abort(grpc.StatusCode.OUT_OF_RANGE, "There are only 7 bytes.")
        yield from ()

    with backend.answering(DOWNLOAD, refuse):
        response = client.get(CONTENT, headers=AUTHORIZED)
    assert (response.status_code, response.headers["content-range"]) == (416, "bytes */7")
    assert response.json()["message"] == "There are only 7 bytes."
    assert_clean(response)


def test_grpc_clients_are_told_no_status_and_no_length_of_http(channel: Channel, backend: Backend) -> None:
    def stream(context: grpc.ServicerContext) -> Iterator[Message]:
        context.send_initial_metadata((("x-content-length", "1"), ("x-http-code", "206"), ("etag", '"abc"')))
        yield backend.message("google.api.HttpBody", data=b"a")

    with backend.answering(DOWNLOAD, stream):
        metadata = channel.initial_metadata(DOWNLOAD, [*AUTHORIZED.items()])
    assert metadata["etag"] == '"abc"'
    assert {"x-content-length", "x-http-code", "content-length"}.isdisjoint(metadata)


CONDITIONS = {
    "range": "bytes=0-6",
    "if-range": '"abc"',
    "if-match": '"abc"',
    "if-none-match": '"abc", W/"def"',
    "if-modified-since": "Sat, 21 Nov 2026 18:00:00 GMT",
    "if-unmodified-since": "Sat, 21 Nov 2026 18:00:00 GMT",
}


def test_a_service_is_told_which_part_is_wanted_and_on_which_conditions(client: httpx.Client, backend: Backend) -> None:
    client.get(CONTENT, headers=AUTHORIZED | CONDITIONS)
    [call] = backend.calls
    assert {name: call.values(name) for name in CONDITIONS} == {name: [value] for name, value in CONDITIONS.items()}


def test_a_service_is_told_what_an_upload_says_of_itself(client: httpx.Client, backend: Backend) -> None:
    said = {"content-digest": "sha-256=:AAAA:", "idempotency-key": '"key"'}
    client.post(UPLOAD, content=PIECE, headers=AUTHORIZED | said)
    [call] = backend.calls
    assert {name: call.values(name) for name in said} == {name: [value] for name, value in said.items()}
    assert call.values("x-content-length") == ["100000"]


def test_a_service_is_not_told_a_length_that_the_client_made_up(client: httpx.Client, backend: Backend) -> None:
    for content in (iter([PIECE]), PIECE):  # the first has no length
        client.post(UPLOAD, content=content, headers=AUTHORIZED | {"x-content-length": "1", "X_Content_Length": "2"})
    assert [call.values("x-content-length") for call in backend.calls] == [[], ["100000"]]


def test_a_browser_may_ask_for_parts_and_read_what_they_are(client: httpx.Client) -> None:
    origin = {"origin": "http://localhost:3000"}
    preflight = client.options(CONTENT, headers=origin | {"access-control-request-method": "GET"})
    allowed = set(preflight.headers["access-control-allow-headers"].split(", "))
    assert allowed >= {*CONDITIONS, "content-digest", "idempotency-key", "last-event-id", "cache-control"}
    answer = client.get(CONTENT, headers=origin)
    assert reason_of(answer) == "ACCESS_TOKEN_MISSING"
    exposed = set(answer.headers["access-control-expose-headers"].split(", "))
    assert exposed >= {"etag", "content-range", "content-length", "accept-ranges", "content-disposition", "repr-digest"}


def test_a_client_that_pauses_gets_the_end_of_a_download(edge: Edge, backend: Backend) -> None:
    def stream(context: grpc.ServicerContext) -> Iterator[Message]:
        context.send_initial_metadata((("x-content-length", str(100 * len(PIECE))),))
        for _ in range(100):
            yield backend.message("google.api.HttpBody", content_type="image/png", data=PIECE)

    request = f"GET {CONTENT} HTTP/1.1\r\nHost: x\r\nAuthorization: {AUTHORIZED['authorization']}\r\n\r\n".encode()
    with backend.answering(DOWNLOAD, stream), socket.create_connection(("127.0.0.1", edge.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.sendall(request)
        with connection.makefile("rb") as response:
            assert response.readline().split()[1] == b"200"
            while response.readline() != b"\r\n":
                pass
            received = len(response.read(97 * len(PIECE)))
            # Envoy has the end and closes when it is flushed: until then it must bear a pause of more than a second.
            time.sleep(2)
            received += len(response.read())
    assert received == 100 * len(PIECE)
