"""What the edge makes of a service's answer: status, headers, streams, log and trace."""

import threading
from collections.abc import Iterator

import grpc
import httpx
import pytest
from google.protobuf.message import Message

from tests.edge.contract.backend import USER, Backend
from tests.edge.contract.edge import AUTHORIZED, Edge
from tests.edge.contract.grpc_client import Channel

TELL_TALES = ("server", "via", "x-powered-by", "x-http-code", "x-content-length")
TRACE = "0af7651916cd43dd8448eb211c80319c"
ORIGIN = "http://localhost:3000"


def test_a_create_answers_201_with_its_location(client: httpx.Client, backend: Backend) -> None:
    def created(context: grpc.ServicerContext) -> list[Message]:
        context.send_initial_metadata((("x-http-code", "201"), ("location", "/api/v1/payments/pay_1")))
        return [backend.message("payment.v1.Payment", id="pay_1")]

    with backend.answering("/payment.v1.PaymentService/CreatePayment", created):
        response = client.post("/api/v1/payments", json={}, headers=AUTHORIZED)
    assert (response.status_code, response.headers["location"]) == (201, "/api/v1/payments/pay_1")
    assert response.json()["id"] == "pay_1"
    assert_clean(response)


@pytest.mark.parametrize(
    ("rpc", "verb", "path", "has_message"),
    [
        ("/document.v1.DocumentService/DeleteDocument", "DELETE", "/api/v1/documents/doc_1", True),
        ("/payment.v1.PaymentService/StreamPaymentStatus", "GET", "/api/v1/payments/pay_1/status", False),
    ],
)
def test_nothing_to_say_is_204_without_a_body(
    client: httpx.Client, backend: Backend, rpc: str, verb: str, path: str, has_message: bool
) -> None:
    def no_content(context: grpc.ServicerContext) -> list[Message]:
        context.send_initial_metadata((("x-http-code", "204"),))
        return [backend.message(backend.methods[rpc].response_type)] if has_message else []

    with backend.answering(rpc, no_content):
        response = client.request(verb, path, headers=AUTHORIZED)
    assert (response.status_code, response.content) == (204, b"")
    assert {"content-type", "content-length"}.isdisjoint(response.headers)
    assert_clean(response)


def test_a_status_stream_arrives_event_by_event_as_it_was_written(client: httpx.Client, backend: Backend) -> None:
    events = [b"retry: 1500\n: hello\n\n", b'id: 1\nevent: payment\ndata: {"a":1}\n\n', b"event: end\ndata:\n\n"]

    arrived = threading.Semaphore(0)

    def stream(context: grpc.ServicerContext) -> Iterator[Message]:
        for event in events:
            yield backend.message("google.api.HttpBody", content_type="text/event-stream", data=event)
            arrived.acquire(timeout=10)

    headers = AUTHORIZED | {"last-event-id": "7"}
    with (
        backend.answering("/payment.v1.PaymentService/StreamPaymentStatus", stream),
        client.stream("GET", "/api/v1/payments/pay_1/status", headers=headers) as response,
    ):
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-store"  # a token may be in the URL
        for event, received in zip(events, response.iter_raw(), strict=True):
            assert received == event
            arrived.release()
    assert backend.calls[0].values("last-event-id") == ["7"]
    assert_clean(response)


def test_a_typed_stream_is_a_line_of_json_for_each_message(client: httpx.Client, backend: Backend) -> None:
    def stream(context: grpc.ServicerContext) -> Iterator[Message]:
        for sequence in (1, 2):
            yield backend.message("payment.v1.PaymentEvent", sequence=sequence)

    with backend.answering("/payment.v1.PaymentService/WatchPayment", stream):
        response = client.get("/api/v1/payments/pay_1/events", headers=AUTHORIZED)
    assert [httpx.Response(200, text=line).json()["sequence"] for line in response.text.splitlines()] == [1, 2]
    assert_clean(response)


def test_a_download_has_the_type_and_headers_of_the_file(client: httpx.Client, backend: Backend) -> None:
    def stream(context: grpc.ServicerContext) -> Iterator[Message]:
        context.send_initial_metadata((("content-disposition", 'attachment; filename="a.png"'),))
        for _ in range(3):
            yield backend.message("google.api.HttpBody", content_type="image/png", data=b"\x89" * 100_000)

    with backend.answering("/document.v1.DocumentService/DownloadDocument", stream):
        response = client.get("/api/v1/documents/doc_1/content", headers=AUTHORIZED)
    assert response.headers["content-type"] == "image/png"
    assert response.headers["content-disposition"] == 'attachment; filename="a.png"'
    assert response.content == b"\x89" * 300_000


@pytest.mark.parametrize("path", ["/api/v1/accounts", "/api/v1/payments?x=1", "/nothing", "/api/v1/users/"])
@pytest.mark.parametrize("headers", [{}, AUTHORIZED])
def test_every_response_has_a_request_id_of_the_edge_and_tells_no_tales(
    client: httpx.Client, path: str, headers: dict[str, str]
) -> None:
    response = client.get(path, headers=headers | {"x-request-id": "mine"})
    assert response.headers["x-request-id"] not in ("", "mine")
    assert_clean(response)


def test_a_trace_goes_on_to_authz_and_the_service_and_into_the_log(
    client: httpx.Client, backend: Backend, edge: Edge
) -> None:
    response = client.get("/api/v1/accounts", headers=AUTHORIZED | {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
    request_id = response.headers["x-request-id"]
    [call] = backend.calls
    assert [str(value).split("-")[1] for value in call.values("traceparent")] == [TRACE]
    assert call.values("x-request-id") == [request_id]
    assert backend.check_traces[-1].split("-")[1] == TRACE
    entry = edge.wait_for_log(lambda entry: entry.get("request_id") == request_id)
    assert (entry["trace_id"], entry["user"], entry["route"]) == (TRACE, USER, call.rpc)
    assert (entry["method"], entry["path"], entry["status"]) == ("GET", "/api/v1/accounts", 200)


def test_every_request_has_a_trace(client: httpx.Client, backend: Backend, edge: Edge) -> None:
    response = client.get("/api/v1/accounts?pageToken=secret", headers=AUTHORIZED)
    entry = edge.wait_for_log(lambda entry: entry.get("request_id") == response.headers["x-request-id"])
    assert [str(value).split("-")[1] for value in backend.calls[0].values("traceparent")] == [entry["trace_id"]]
    assert entry["path"] == "/api/v1/accounts"


def test_the_log_has_the_status_of_a_grpc_call(channel: Channel, edge: Edge) -> None:
    rpc = "/payment.v1.AccountService/GetAccount"
    channel.call(rpc, [*AUTHORIZED.items()])
    assert edge.wait_for_log(lambda entry: entry.get("path") == rpc)["grpc_status"] == "0"


def test_a_browser_of_our_origin_may_call_and_of_another_may_not(client: httpx.Client) -> None:
    preflight = {"access-control-request-method": "POST"}
    ours = client.options("/api/v1/payments", headers=preflight | {"origin": ORIGIN})
    assert (ours.status_code, ours.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "idempotency-key" in ours.headers["access-control-allow-headers"]
    other = client.options("/api/v1/payments", headers=preflight | {"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    answer = client.get("/api/v1/payments", headers={"origin": ORIGIN})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (401, ORIGIN)


@pytest.mark.parametrize(("verb", "path", "status"), [("GET", "/nothing", 404), ("PUT", "/api/v1/payments", 405)])
def test_a_page_may_read_what_it_did_wrong(client: httpx.Client, verb: str, path: str, status: int) -> None:
    response = client.request(verb, path, headers={"origin": ORIGIN})
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (status, "*")


def test_what_a_browser_says_of_itself_goes_no_further(client: httpx.Client, backend: Backend) -> None:
    own = {
        "accept-language": "de",
        "cookie": "a=b",
        "referer": ORIGIN,
        "sec-fetch-mode": "cors",
        "cache-control": "no-cache",
    }
    client.get("/api/v1/accounts", headers=AUTHORIZED | own | {"last-event-id": "7"})
    [call] = backend.calls
    told = {str(key) for key, _ in call.metadata}
    assert told.isdisjoint({*own, "accept-encoding"})
    assert "last-event-id" in told


def assert_clean(response: httpx.Response) -> None:
    """Asserts that nothing tells which software made a response."""
    told = [name for name in response.headers if name.startswith(("grpc-", "x-envoy-")) or name in TELL_TALES]
    assert told == []
