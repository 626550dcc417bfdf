"""gRPC, gRPC-Web and REST on the same port, TLS on the other, and the signing keys on the third."""

import ssl
import struct

import grpc
import httpx
import pytest

from services.runtime import contract
from services.runtime.contract import Method
from tests.edge.contract.backend import Backend
from tests.edge.contract.edge import AUTHORIZED, CONTRACT, Edge, reason_of
from tests.edge.contract.grpc_client import Channel

METHODS = contract.load(CONTRACT).values()
OUTSIDE = [pytest.param(method, id=method.rpc) for method in METHODS if method.access != "none"]
INSIDE = [pytest.param(method, id=method.rpc) for method in METHODS if method.access == "none"]
EMPTY_FRAME = struct.pack(">BI", 0, 0)
GRPC_WEB = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1"}


@pytest.mark.parametrize("method", OUTSIDE)
def test_grpc_clients_reach_the_same_rpcs_under_the_same_rules(
    channel: Channel, backend: Backend, method: Method
) -> None:
    [answer] = channel.call(method.rpc, [*AUTHORIZED.items()])
    assert answer == backend.message(method.response_type)
    [call] = backend.calls
    assert call.values("x-user-rpc") == [method.rpc]
    assert call.seconds_left is not None and call.seconds_left <= method.deadline + 1
    if method.access == "token":
        with pytest.raises(grpc.RpcError) as refused:
            channel.call(method.rpc, [])
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert refused.value.details() == "An access token is needed."


@pytest.mark.parametrize("method", OUTSIDE)
def test_grpc_web_clients_reach_the_same_rpcs(client: httpx.Client, backend: Backend, method: Method) -> None:
    response = client.post(method.rpc, content=EMPTY_FRAME, headers=AUTHORIZED | GRPC_WEB)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/grpc-web+proto"
    assert response.content.startswith(EMPTY_FRAME + b"\x80")
    assert b"grpc-status:0\r\n" in response.content
    assert [call.rpc for call in backend.calls] == [method.rpc]


@pytest.mark.parametrize("method", INSIDE)
@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc-web+proto", "application/json"])
def test_internal_rpcs_cannot_be_reached_from_outside(
    channel: Channel, client: httpx.Client, backend: Backend, method: Method, content_type: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        channel.call(method.rpc, [*AUTHORIZED.items()])
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    client.post(method.rpc, content=EMPTY_FRAME, headers=AUTHORIZED | {"content-type": content_type})
    assert backend.calls == []
    assert backend.checks == []


@pytest.mark.parametrize("method", OUTSIDE)
def test_an_rpc_is_not_reached_as_json_by_its_name(client: httpx.Client, backend: Backend, method: Method) -> None:
    response = client.post(method.rpc, json={}, headers=AUTHORIZED)
    assert (response.status_code, reason_of(response)) == (404, "ROUTE_NOT_FOUND")
    assert backend.calls == []


@pytest.mark.parametrize("http2", [False, True])
def test_tls_clients_see_the_public_certificate(edge: Edge, backend: Backend, http2: bool) -> None:
    trust = ssl.create_default_context(cafile=str(edge.certificates / "edge-ca.pem"))
    with httpx.Client(verify=trust, http2=http2) as client:
        response = client.get(f"https://localhost:{edge.tls_port}/api/v1/accounts", headers=AUTHORIZED)
    assert (response.status_code, response.http_version) == (200, "HTTP/2" if http2 else "HTTP/1.1")
    assert backend.calls[0].values("x-forwarded-proto") == ["https"]


def test_the_keys_are_served_to_the_mesh_without_asking_authz(edge: Edge, backend: Backend) -> None:
    trust = ssl.create_default_context(cafile=str(edge.certificates / "ca.pem"))
    trust.load_cert_chain(edge.certificates / "authz.pem", edge.certificates / "authz.key")
    url = f"https://localhost:{edge.keys_port}"
    with httpx.Client(verify=trust) as client:
        assert client.get(f"{url}/.well-known/jwks.json").json() == {"keys": []}
        assert client.get(f"{url}/api/v1/users").status_code == 404
        assert client.post(f"{url}/.well-known/jwks.json").status_code == 404
    assert [call.values("x-user-rpc") for call in backend.calls] == [["/user.v1.SessionService/GetJwks"]]
    assert backend.checks == []


def test_the_keys_are_not_served_to_strangers(edge: Edge, backend: Backend) -> None:
    trust = ssl.create_default_context(cafile=str(edge.certificates / "ca.pem"))
    with httpx.Client(verify=trust) as client, pytest.raises(httpx.TransportError):
        client.get(f"https://localhost:{edge.keys_port}/.well-known/jwks.json")
    assert backend.calls == []
