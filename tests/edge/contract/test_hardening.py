"""Nothing is reached but what the contract opens, however a path, a host or a header is spelled."""

import httpx
import pytest

from tests.edge.contract.backend import Backend
from tests.edge.contract.edge import AUTHORIZED, Edge, reason_of
from tests.edge.contract.http2 import GET, Connection, request
from tests.edge.contract.raw import CREDENTIAL, exchange_all

# To a protected path, if one reads them so.
SPELLINGS = [
    *("//api/v1/accounts", "/api//v1/accounts", "/./api/v1/accounts", "/api/./v1/accounts", "/x/../api/v1/accounts"),
    *(
        "/%61pi/v1/accounts",
        "/api/v1/%61ccounts",
        "/%2e/api/v1/accounts",
        "/x/%2e%2e/api/v1/accounts",
        "/api/v1/x/..;/accounts",
    ),
    *(
        "/api%2fv1%2faccounts",
        "/api/v1%2Faccounts",
        "/api%5cv1%5caccounts",
        "/api\\v1\\accounts",
        "/api/v1/..%2fv1/accounts",
    ),
    *("/api/v1/accounts/", "/api/v1/accounts//", "/api/v1/accounts/.", "/api/v1/accounts%2f", "/api/v1/accounts%00"),
    *("/api/v1/accounts;x=y", "/api/v1/accounts;", "/api/v1/accounts%3b", "/api/v1/accounts%3f", "/api/v1/accounts%23"),
    *(
        "/api/v1/accounts%20",
        "/api/v1/accounts%0a",
        "/api/v1/accounts%0d%0a",
        "/api/v1/accounts.json",
        "/api/v1/accounts%09",
    ),
    *("/API/V1/ACCOUNTS", "/api/v1/Accounts", "/api/v1/accounts%252f", "/%2561pi/v1/accounts", "/api/v1/%c0%aeccounts"),
    *("/api/v1/accounts?", "/api/v1/accounts??x", "/api/v1/accounts%u002f", "/api/v1/accounts%", "/api/v1/accounts%zz"),
    *(
        "/.well-known/../api/v1/accounts",
        "/.well-known/jwks.json/../../api/v1/accounts",
        "/api/v1/sessions/../accounts",
    ),
    *("/.well-known/jwks.json%2f..%2f..%2fapi/v1/accounts", "/api/v1/sessions;/../accounts", "/../../api/v1/accounts"),
]
# Of services, and of gRPC's own helpers, that are there for the mesh at the most.
INSIDE = [
    *("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", "/grpc.channelz.v1.Channelz/GetServers"),
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "/envoy.service.auth.v3.Authorization/Check",
    "/payment.v1.PaymentService/",
    "/payment.v1.PaymentService",
    "//payment.v1.PaymentService/GetPayment",
    "/payment.v1.PaymentService/getpayment",
    "/payment.v1.PaymentService/GetPayment/",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_no_spelling_of_a_path_is_without_its_guard(edge: Edge, backend: Backend, spelling: str) -> None:
    head = f"GET {spelling} HTTP/1.1\r\nHost: x\r\n".encode()
    stranger, user = exchange_all(edge.port, [(head + b"\r\n", 1), (head + CREDENTIAL + b"\r\n", 1)])
    assert stranger.statuses()[0] in {400, 401, 404}
    assert user.statuses()[0] in {200, 400, 404}
    for answer in (*stranger.answers, *user.answers):
        assert answer.status_code == 200 or reason_of(answer)
    assert len(backend.calls) == (user.statuses() == [200])
    assert {call.rpc for call in backend.calls} <= {"/payment.v1.AccountService/ListAccounts"}


@pytest.mark.parametrize("spelling", ["/api/v1/payments/a%2fb", "/api/v1/payments/a%5Cb", "/api/v1/payments/%2e%2e%2f"])
def test_an_escaped_slash_is_refused(client: httpx.Client, backend: Backend, spelling: str) -> None:
    answer = client.get(spelling, headers=AUTHORIZED)
    assert (answer.status_code, reason_of(answer)) == (400, "MALFORMED_REQUEST")
    assert backend.calls == []


@pytest.mark.parametrize("rpc", INSIDE)
@pytest.mark.parametrize(
    "content_type", ["application/grpc", "application/grpc-web+proto", "application/json", "application/grpcx"]
)
def test_nothing_that_grpc_brings_along_is_reached(
    client: httpx.Client, backend: Backend, rpc: str, content_type: str
) -> None:
    answer = client.post(rpc, content=bytes(5), headers=AUTHORIZED | {"content-type": content_type})
    assert backend.calls == backend.checks == []
    if content_type.startswith("application/grpc") and not content_type.endswith("x"):
        assert answer.headers["grpc-status"] == "12"
    else:
        assert (answer.status_code, reason_of(answer)) == (404, "ROUTE_NOT_FOUND")


@pytest.mark.parametrize(
    "authority", ["", "a,b", "a b", "a/b", "a@b", "a:b", "a:1:2", "[::1", "\xe9", "a?b", "a#b", "*"]
)
def test_a_host_that_is_none_is_refused_in_http2_too(edge: Edge, backend: Backend, authority: str) -> None:
    fields = [(name, authority if name == ":authority" else value) for name, value in GET]
    with Connection(edge.port) as connection:
        connection.send(request(1, [*fields, *AUTHORIZED.items()]))
        assert connection.status_of(1) in {400, None}
    assert backend.calls == []


@pytest.mark.parametrize(
    "fields",
    [
        [*GET, ("transfer-encoding", "chunked")],
        [*GET, ("connection", "close")],
        [*GET, ("te", "gzip")],
        [*GET, ("content-length", "5")],
        [*GET, ("x", "y\r\nx-user-id: usr_2")],
        [*GET, ("x", "y\x00")],
        [*GET, ("x\r\nx-user-id", "usr_2")],
        [*GET, ("x y", "z")],
        [*GET, ("X-Upper", "z")],
        [*GET, ("", "z")],
        [*GET, (":path", "/api/v1/payments")],
        [*GET, (":status", "200")],
        [("x", "y"), *GET],
        [*GET[:3], (":path", "")],
        [*GET[:3], (":path", "api/v1/accounts")],
        [*GET[:3], (":path", "/api/v1/accounts HTTP/1.1\r\nHost: y\r\n\r\nGET /x")],
        [*GET[:3], (":path", "/api/v1/accounts#x")],
        GET[:3],
        GET[1:],
        [(":method", "GET /x HTTP/1.1\r\n"), *GET[1:]],
        [(":method", "CONNECT"), *GET[1:], (":protocol", "websocket")],
        [(":method", "TRACE"), *GET[1:]],
        [GET[0], (":scheme", "file"), *GET[2:]],
        [GET[0], *GET[2:]],
        [*GET, ("host", "y")],
    ],
    ids=str,
)  # fmt: skip
def test_what_http1_could_not_say_is_not_said_in_http2(
    edge: Edge, backend: Backend, fields: list[tuple[str, str]]
) -> None:
    with Connection(edge.port) as connection, Connection(edge.port) as other:
        connection.send(request(1, [*fields, *AUTHORIZED.items()]))
        assert connection.status_of(1) in {None, 200, 400, 404, 405}
        other.send(request(1))
        assert other.status_of(1) == 200
    for call in backend.calls:
        assert (call.rpc, call.values("x-user-id")) == ("/payment.v1.AccountService/ListAccounts", ["usr_1"])
    assert len(backend.calls) <= 2


@pytest.mark.parametrize(
    "header",
    [
        *(("x-foo-bin", "%%%"), ("grpc-trace-bin", "\xff"), ("lb-cost-bin", "AAAA"), ("grpc-encoding", "cow")),
        *(("grpc-encoding", "gzip"), ("grpc-timeout", "1n"), ("grpc-timeout", "soon"), ("grpc-status", "16")),
        *(("grpc-message", "%"), ("grpc-internal-encoding-request", "gzip"), ("grpc-previous-rpc-attempts", "9")),
        *(("x-http-code", "204"), ("x-content-length", "1"), ("content-encoding", "gzip"), ("x-large", "x" * 20_000)),
    ],
)
def test_no_header_upsets_a_service(client: httpx.Client, backend: Backend, header: tuple[str, str]) -> None:
    known = [(name.encode(), value.encode()) for name, value in AUTHORIZED.items()]
    answer = client.get("/api/v1/accounts", headers=[*known, (header[0].encode(), header[1].encode("latin-1"))])
    assert answer.status_code == 200
    [call] = backend.calls
    assert not [name for name, _ in call.metadata if name.endswith("-bin") or name.startswith("grpc-")]
