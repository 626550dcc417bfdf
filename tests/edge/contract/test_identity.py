"""Only the edge says who the caller is: what a client says about it never arrives."""

import httpx
import pytest

from tests.edge.contract.backend import USER, Backend, Call, headers_of
from tests.edge.contract.edge import AUTHORIZED, Edge
from tests.edge.contract.grpc_client import Channel
from tests.edge.contract.http2 import DATA, END_HEADERS, Connection, frame, request

PUBLIC = "/user.v1.SessionService/GetJwks"
PROTECTED = "/payment.v1.AccountService/ListAccounts"
SPELLINGS = [
    "x-user-id",
    "X-User-Id",
    "X-USER-ID",
    "x_user_id",
    "x-user_id",
    "x-user-roles",
    "x-user-session",
    "x-user-rpc",
    "x-user-rpc-bin",
    "x-user-anything",
    "x-envoy-original-path",
    "x-envoy-upstream-rq-timeout-ms",
]
spelled = pytest.mark.parametrize("name", SPELLINGS)


def identity(call: Call) -> dict[str, list[str | bytes]]:
    """Returns every header that says who the caller is, or looks as if it did."""
    names = {name for name, _ in call.metadata if name.replace("_", "-").startswith("x-user-")}
    return {name: call.values(name) for name in names}


@spelled
def test_a_stranger_cannot_claim_to_be_somebody(client: httpx.Client, backend: Backend, name: str) -> None:
    response = client.get("/.well-known/jwks.json", headers=[(name, "admin"), (name, "officer")])
    assert response.status_code == 200
    [call] = backend.calls
    assert identity(call) == {"x-user-rpc": [PUBLIC]}
    assert "admin" not in dict(call.metadata).values()


@spelled
def test_a_user_cannot_claim_to_be_somebody_else(client: httpx.Client, backend: Backend, name: str) -> None:
    response = client.get("/api/v1/accounts", headers=[*AUTHORIZED.items(), (name, "admin"), (name, "officer")])
    assert response.status_code == 200
    [call] = backend.calls
    assert identity(call) == {"x-user-rpc": [PROTECTED], "x-user-id": [USER], "x-user-roles": ["customer"]}
    assert "admin" not in dict(call.metadata).values()


@pytest.mark.parametrize("name", [name.lower() for name in SPELLINGS if not name.endswith("-bin")])
def test_a_grpc_client_cannot_claim_to_be_somebody_else(channel: Channel, backend: Backend, name: str) -> None:
    channel.call(PROTECTED, [*AUTHORIZED.items(), (name, "admin"), (name, "officer")])
    [call] = backend.calls
    assert identity(call) == {"x-user-rpc": [PROTECTED], "x-user-id": [USER], "x-user-roles": ["customer"]}
    assert "admin" not in dict(call.metadata).values()


def test_authz_sees_only_the_headers_it_needs_and_no_service_sees_the_token(
    client: httpx.Client, backend: Backend
) -> None:
    client.get("/api/v1/accounts", headers=AUTHORIZED | {"cookie": "secret", "x-user-id": "admin"})
    [check] = backend.checks
    assert headers_of(check) == AUTHORIZED
    assert backend.calls[0].values("authorization") == []


@pytest.mark.parametrize(
    ("path", "request_type", "fields"),
    [
        ("/api/v1/payments/pay_1/events", "WatchPaymentRequest", {"payment_id": "pay_1"}),
        ("/api/v1/payments/pay_1/status", "StreamPaymentStatusRequest", {"payment_id": "pay_1"}),
        ("/api/v1/payments/events", "StreamPaymentsRequest", {}),
    ],
)
def test_a_token_in_the_query_reaches_neither_the_service_nor_the_log(
    client: httpx.Client, backend: Backend, edge: Edge, path: str, request_type: str, fields: dict[str, object]
) -> None:
    token = AUTHORIZED["authorization"].removeprefix("Bearer ")
    with client.stream("GET", f"{path}?access_token={token}&afterSequence=3") as response:
        assert response.status_code == 200
    [call] = backend.calls
    assert call.messages == [backend.message(f"payment.v1.{request_type}", after_sequence=3, **fields)]
    assert token not in str(call.metadata)
    edge.wait_for_log(lambda entry: entry.get("request_id") == response.headers["x-request-id"])
    assert token not in edge.log_text()


def test_a_token_in_the_query_counts_on_stream_paths_only(client: httpx.Client, backend: Backend) -> None:
    token = AUTHORIZED["authorization"].removeprefix("Bearer ")
    assert client.get(f"/api/v1/accounts?access_token={token}").status_code == 401
    assert client.get(f"/api/v1/accounts?access_token={token}", headers=AUTHORIZED).status_code == 400
    assert backend.calls == []


LIES = [
    *(("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "6.6.6.6, 127.0.0.1"), ("X-Forwarded-For", "::1")),
    *(
        ("x-forwarded-host", "6.6.6.6"),
        ("x-forwarded-port", "6666"),
        ("x-forwarded-proto", "6.6.6.6"),
        ("via", "6.6.6.6"),
    ),
    *(("forwarded", "for=6.6.6.6;proto=https"), ("x-real-ip", "6.6.6.6"), ("x-forwarded-prefix", "/6.6.6.6")),
    *(("x-forwarded-client-cert", "URI=spiffe://drawbridge/6.6.6.6"), ("x-envoy-external-address", "6.6.6.6")),
    *(
        ("x-envoy-original-path", "/6.6.6.6"),
        ("x-envoy-original-method", "6.6.6.6"),
        ("x-envoy-decorator-operation", "6.6.6.6"),
    ),
    *(("x-envoy-internal", "6.6.6.6"), ("x-envoy-force-trace", "6.6.6.6"), ("x-envoy-retry-on", "6.6.6.6")),
    *(("x_forwarded_for", "6.6.6.6"), ("x-request-id", "6.6.6.6"), ("cookie", "6.6.6.6"), ("user-agent", "6.6.6.6")),
]


@pytest.mark.parametrize("lie", LIES, ids=str)
def test_where_a_request_came_from_is_not_for_its_client_to_say(
    client: httpx.Client, backend: Backend, lie: tuple[str, str]
) -> None:
    assert client.get("/api/v1/accounts", headers=[*AUTHORIZED.items(), lie, lie]).status_code == 200
    [call] = backend.calls
    assert "6.6.6.6" not in str(call.metadata)
    assert "6666" not in str(call.values("x-forwarded-port"))
    assert call.values("x-forwarded-proto") == ["http"]
    [address] = call.values("x-forwarded-for")
    assert "," not in str(address) and address != "::1"
    assert call.values("x-user-id") == [USER]


@pytest.mark.parametrize(
    "named", ["x-user-id", "x-user-rpc, x-user-id", "x-user-roles, close", "host", ":path", "te, x-user-id"]
)
def test_nothing_that_the_edge_says_is_taken_off_by_naming_it_in_connection(
    edge: Edge, backend: Backend, named: str
) -> None:
    connection = {"connection": named, "x-user-id": "admin", "te": "trailers"}
    response = httpx.get(f"{edge.url}/api/v1/accounts", headers=AUTHORIZED | connection)
    assert response.status_code in {200, 400, 403}
    for call in backend.calls:
        assert identity(call) == {"x-user-rpc": [PROTECTED], "x-user-id": [USER], "x-user-roles": ["customer"]}
    assert len(backend.calls) == (response.status_code == 200)


def test_nobody_says_who_they_are_in_trailers(edge: Edge, backend: Backend) -> None:
    post = [(":method", "POST"), (":scheme", "http"), (":authority", "x"), (":path", PROTECTED)]
    grpc = [*post, ("content-type", "application/grpc"), ("te", "trailers"), *AUTHORIZED.items()]
    trailers = [("x-user-id", "admin"), ("x-user-roles", "admin"), ("authorization", "admin")]
    with Connection(edge.port) as connection:
        connection.send(request(1, grpc, END_HEADERS) + frame(DATA, 0, 1, bytes(5)) + request(1, trailers))
        assert connection.status_of(1) == 200
    [call] = backend.calls
    assert identity(call) == {"x-user-rpc": [PROTECTED], "x-user-id": [USER], "x-user-roles": ["customer"]}
    assert "admin" not in str(call.metadata)
