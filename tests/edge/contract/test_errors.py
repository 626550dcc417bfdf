"""Every error that the edge makes has the one shape (tests/edge/error.schema.json)."""

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import httpx
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from tests.edge.contract.backend import Backend, serving
from tests.edge.contract.edge import AUTHORIZED, Edge, reason_of, running, server_ports
from tests.edge.contract.grpc_client import Channel

JSON = AUTHORIZED | {"content-type": "application/json"}
_TEXT = {"CreatePayment": "description", "WatchPayment": "payment_id"}
TOO_LARGE = "The request is too large: a message may have 256 KiB, and GET and DELETE nothing."
LARGE = b'{"payeeId": "' + b"x" * 256 * 1024 + b'"}'


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{bad", "Expected :"),
        (b'{"amount": 5}', "amount: invalid value 5"),
        (b'{"amount": {"units": "many"}}', 'amount.units: invalid value "many"'),
        (b"[]", "Root element must be a message"),
        (b'{"payeeId": "\xff"}', "non UTF-8"),
    ],
)
def test_json_that_does_not_fit_the_contract_is_malformed(
    client: httpx.Client, backend: Backend, body: bytes, complaint: str
) -> None:
    response = client.post("/api/v1/payments", content=body, headers=JSON)
    assert (response.status_code, reason_of(response)) == (400, "MALFORMED_REQUEST")
    assert complaint in response.json()["message"]
    assert backend.calls == []


@pytest.mark.parametrize(
    ("query", "complaint"),
    [("colour=red", '"colour"'), ("pageSize=many", "page_size"), ("pageSize=99999999999", "page_size")],
)
def test_a_query_that_does_not_fit_the_contract_is_malformed(
    client: httpx.Client, backend: Backend, query: str, complaint: str
) -> None:
    response = client.get(f"/api/v1/payments?{query}", headers=AUTHORIZED)
    assert (response.status_code, reason_of(response)) == (400, "MALFORMED_REQUEST")
    assert complaint in response.json()["message"]
    assert backend.calls == []


def test_a_word_that_the_enum_does_not_have_is_malformed(client: httpx.Client) -> None:
    response = client.patch("/api/v1/users/me", content=b'{"state": "TIRED"}', headers=JSON)
    assert (response.status_code, reason_of(response)) == (400, "MALFORMED_REQUEST")
    assert "TIRED" in response.json()["message"]


def test_nothing_is_parsed_for_strangers(client: httpx.Client) -> None:
    response = client.post("/api/v1/payments", content=b"{bad", headers={"content-type": "application/json"})
    assert response.status_code == 401


@pytest.mark.parametrize("chunked", [False, True])
def test_a_json_body_over_a_quarter_of_a_mebibyte_is_too_large(edge: Edge, backend: Backend, chunked: bool) -> None:
    content = iter([LARGE]) if chunked else LARGE
    response = httpx.post(f"{edge.url}/api/v1/payments", content=content, headers=JSON)
    assert (response.status_code, reason_of(response)) == (413, "REQUEST_TOO_LARGE")
    assert backend.calls == []


@pytest.mark.parametrize(
    ("verb", "path"),
    [("GET", "/api/v1/payments"), ("GET", "/api/v1/payments/events"), ("DELETE", "/api/v1/documents/d")],
)
def test_where_nothing_is_to_be_much_is_too_large_whoever_sends_it(client: httpx.Client, verb: str, path: str) -> None:
    response = client.request(verb, path, content=b"x" * 2000)
    assert (response.status_code, reason_of(response)) == (413, "REQUEST_TOO_LARGE")


@pytest.mark.parametrize("rpc", ["CreatePayment", "WatchPayment"])
def test_so_is_a_message_of_grpc(channel: Channel, backend: Backend, rpc: str) -> None:
    request = backend.message(f"payment.v1.{rpc}Request", **{_TEXT[rpc]: "x" * 300_000})
    with pytest.raises(grpc.RpcError) as refused:
        channel.call(f"/payment.v1.PaymentService/{rpc}", [*AUTHORIZED.items()], request)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert all(call.messages != [request] for call in backend.calls)


@pytest.mark.parametrize("rpc", ["CreatePayment", "WatchPayment"])
def test_and_under_that_it_is_not(channel: Channel, backend: Backend, rpc: str) -> None:
    request = backend.message(f"payment.v1.{rpc}Request", **{_TEXT[rpc]: "x" * 262_000})
    channel.call(f"/payment.v1.PaymentService/{rpc}", [*AUTHORIZED.items()], request)
    assert [call.messages for call in backend.calls] == [[request]]


def test_a_json_body_under_that_is_not(client: httpx.Client, backend: Backend) -> None:
    response = client.post("/api/v1/payments", content=b'{"payeeId": "' + b"x" * 262_000 + b'"}', headers=JSON)
    assert response.status_code == 200
    assert len(backend.calls[0].messages[0].payee_id) == 262_000  # type: ignore[attr-defined]


def test_an_upload_may_be_larger(client: httpx.Client, backend: Backend) -> None:
    response = client.post("/api/v1/documents/upload", content=LARGE, headers=AUTHORIZED)
    assert response.status_code == 200
    assert b"".join(one.content.data for one in backend.calls[0].messages) == LARGE  # type: ignore[attr-defined]


@pytest.mark.parametrize("headers", [{"x-large": "x" * 40_000}, {f"x-{number}": "x" for number in range(70)}])
def test_headers_may_be_neither_too_large_nor_too_many(edge: Edge, headers: dict[str, str]) -> None:
    response = httpx.get(f"{edge.url}/api/v1/payments", headers=headers)
    assert (response.status_code, reason_of(response)) == (431, "HEADERS_TOO_LARGE")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"NONSENSE", b"400"),
        (b"GET / HTTP/1.0\r\nHost: x", b"426"),
        (b"GET / HTTP/1.1", b"400"),
        (b"GET /api/v1/users HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket", b"501"),
        (b"POST /api/v1/users HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked", b"400"),
    ],
)
def test_what_is_not_http_is_refused_in_the_same_shape(edge: Edge, request_line: bytes, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", edge.port)) as connection:
        connection.sendall(request_line + b"\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == status
    assert b"x-request-id: " in head
    assert reason_of(httpx.Response(200, headers={"content-type": "application/json"}, content=body))


def test_a_service_that_takes_too_long_is_cut_off(edge: Edge, backend: Backend, channel: Channel) -> None:
    def wait(context: grpc.ServicerContext) -> Iterator[status_pb2.Status]:
        over = threading.Event()
        context.add_callback(over.set)
        over.wait()
        yield from ()

    rpc = "/payment.v1.AccountService/ListAccounts"
    with backend.answering(rpc, wait), ThreadPoolExecutor() as pool:
        rest = pool.submit(httpx.get, f"{edge.url}/api/v1/accounts", headers=AUTHORIZED, timeout=15)
        with pytest.raises(grpc.RpcError) as refused:
            channel.call(rpc, [*AUTHORIZED.items()])
    assert (rest.result().status_code, reason_of(rest.result())) == (504, "DEADLINE_EXCEEDED")
    assert refused.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_a_grpc_client_is_told_the_same_in_its_own_words(channel: Channel, backend: Backend) -> None:
    request = backend.message("payment.v1.CreatePaymentRequest", description="x" * 1_100_000)
    with pytest.raises(grpc.RpcError) as refused:
        channel.call("/payment.v1.PaymentService/CreatePayment", [*AUTHORIZED.items()], request)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.details() == TOO_LARGE


@pytest.mark.parametrize("path", ["/user.v1.UserService%2fGetUser", "/api/v1/accounts%00", "/api%5cv1", "/x#y"])
def test_a_grpc_client_with_a_path_that_cannot_be_read_is_told_so(edge: Edge, path: str) -> None:
    with socket.create_connection(("127.0.0.1", edge.port)) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/grpc\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"\r\ngrpc-status: 3\r\n" in answer
    assert b"\r\ngrpc-message: This is not an HTTP request that can be read.\r\n" in answer
    assert b"\r\nx-request-id: " in answer


def test_an_error_of_a_service_passes_with_its_details(client: httpx.Client, backend: Backend) -> None:
    info = error_details_pb2.ErrorInfo(
        reason="ETAG_MISMATCH", domain="drawbridge", metadata={"etag": "", "id": "usr_1"}
    )
    detail = any_pb2.Any()
    detail.Pack(info)
    status = status_pb2.Status(code=10, message="It has changed.", details=[detail])

    def fail(context: grpc.ServicerContext) -> Iterator[status_pb2.Status]:
        context.set_trailing_metadata(
            (
                ("grpc-status-details-bin", status.SerializeToString()),
                ("x-http-code", "412"),
                ("retry-after", "3"),
                ("www-authenticate", "Bearer"),
            )
        )
        context.set_code(grpc.StatusCode.ABORTED)
        context.set_details(status.message)
        yield from ()

    with backend.answering("/user.v1.UserService/GetUser", fail):
        response = client.get("/api/v1/users/me", headers=AUTHORIZED)
    assert (response.status_code, reason_of(response)) == (412, "ETAG_MISMATCH")
    assert response.headers["retry-after"] == "3"
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["details"][0]["metadata"] == {"etag": "", "id": "usr_1"}


@pytest.mark.parametrize("reachable", [(), ("authz",)], ids=["without authz", "without services"])
def test_what_cannot_be_reached_is_unavailable(
    backend: Backend, certificates: Path, tmp_path: Path, reachable: tuple[str, ...]
) -> None:
    services = server_ports(backend.methods)
    up = {name: services[name] for name in reachable}
    with serving(backend, certificates, up), running(tmp_path, certificates, services) as edge:
        response = httpx.get(f"{edge.url}/api/v1/accounts", headers=AUTHORIZED)
        assert (response.status_code, reason_of(response)) == (503, "SERVICE_UNAVAILABLE")
        assert response.headers["retry-after"] == "1"
        assert "x-request-id" in response.headers
    assert backend.calls == []
