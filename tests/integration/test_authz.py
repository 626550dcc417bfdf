"""authz as the edge asks it, over mutual TLS, with the contract's own policy."""

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from ext_authz import external_auth_pb2_grpc
from google.rpc import error_details_pb2, status_pb2

from authz.api_keys import ApiKeys
from authz.issuers import Issuer
from authz.jwks import Keys
from authz.policy import Policy
from authz.requests import Requests
from authz.service import Authorization
from authz.tokens import Tokens
from tests.integration.asking import Edge, headers_of, reason
from tests.integration.serving import CONTRACT, METHODS, identity
from tests.issuer import AUDIENCE, ISSUER, NOW, Heard, Publisher, token
from tests.keeper import KEY, PROGRAM, Keeper

GET_USER = "/user.v1.UserService/GetUser"
LIST_USERS = "/user.v1.UserService/ListUsers"
CREATE_USER = "/user.v1.UserService/CreateUser"
STREAM = "/payment.v1.PaymentService/StreamPaymentStatus"
GOOD = token()
BEARER = ("authorization", f"Bearer {GOOD}")


async def started(issuer: Publisher, certificates: Path, *, with_keys: bool) -> tuple[grpc.aio.Server, int]:
    keys = Keys(issuer.fetch)
    if with_keys:
        await keys.refresh()
    server = grpc.aio.server()
    heard = Heard()
    api_keys = ApiKeys(Keeper().resolve, heard)
    tokens, requests = Tokens([Issuer(ISSUER, AUDIENCE, keys)], heard, lambda: NOW), Requests(CONTRACT, METHODS)
    servicer = Authorization(Policy(METHODS), tokens, api_keys, requests)
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(servicer, server)
    port = server.add_secure_port("127.0.0.1:0", identity(certificates, "authz").server())
    await server.start()
    return server, port


@pytest.fixture(scope="module")
async def port(certificates: Path) -> AsyncIterator[int]:
    server, port = await started(Publisher(), certificates, with_keys=True)
    yield port
    await server.stop(None)


@pytest.fixture(scope="module")
async def edge(port: int, certificates: Path) -> AsyncIterator[Edge]:
    edge = Edge(port, certificates)
    yield edge
    await edge.channel.close()


async def test_a_user_is_granted_the_rpc_with_all_that_backends_believe(edge: Edge) -> None:
    granted = await edge.granted(GET_USER, BEARER)
    assert headers_of(granted) == {
        "x-user-rpc": GET_USER,
        "x-user-id": "usr_1",
        "x-user-roles": "admin,customer",
        "x-user-session": "ses_1",
    }
    assert list(granted.headers_to_remove) == ["authorization", "x-api-key"]


async def test_a_user_without_session_and_roles_has_neither_rather_than_the_clients(edge: Edge) -> None:
    granted = await edge.granted(GET_USER, ("authorization", f"Bearer {token(roles=[], sid='s')}"))
    assert headers_of(granted)["x-user-roles"] == ""


async def test_anybody_is_granted_a_public_rpc_and_nothing_but_its_name(edge: Edge) -> None:
    for headers in ((), (BEARER,), (("authorization", "Bearer rubbish"), ("authorization", "Basic x"))):
        granted = await edge.granted(CREATE_USER, *headers)
        assert headers_of(granted) == {"x-user-rpc": CREATE_USER}
        removed = {"authorization", "x-api-key", "x-user-id", "x-user-roles", "x-user-session"}
        assert set(granted.headers_to_remove) == removed


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
async def test_the_scheme_is_bearer_in_any_case(edge: Edge, scheme: str) -> None:
    await edge.granted(GET_USER, ("authorization", f"{scheme} {GOOD}"))


@pytest.mark.parametrize("rpc", ["", "/user.v1.UserService/BatchGetUsers", "/user.v1.UserService/Nothing"])
async def test_what_cannot_be_called_from_outside_is_denied_to_everybody(edge: Edge, rpc: str) -> None:
    denied = await edge.denied(rpc, BEARER)
    assert (denied.status.code, reason(denied)) == (403, "RPC_NOT_REACHABLE")


@pytest.mark.parametrize("headers", [(), (("authorization", "Basic dTpw"),), (("authorization", ""),)])
async def test_without_a_token_the_challenge_says_only_what_is_needed(
    edge: Edge, headers: tuple[tuple[str, str], ...]
) -> None:
    denied = await edge.denied(GET_USER, *headers)
    assert (denied.status.code, reason(denied)) == (401, "TOKEN_REQUIRED")
    assert headers_of(denied) == {"www-authenticate": "Bearer", "content-type": "application/json"}


async def test_a_bad_token_is_denied_in_the_shape_of_every_error(edge: Edge) -> None:
    denied = await edge.denied(GET_USER, ("authorization", "Bearer a.b.c"))
    assert denied.status.code == 401
    assert headers_of(denied)["www-authenticate"] == (
        'Bearer error="invalid_token", error_description="The access token is not valid: it is no JWT."'
    )
    assert json.loads(denied.body) == {
        "code": 16,
        "message": "The access token is not valid: it is no JWT.",
        "details": [
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "INVALID_TOKEN",
                "domain": "drawbridge",
                "metadata": {"problem": "it is no JWT"},
            }
        ],
    }


async def test_an_expired_token_says_so(edge: Edge) -> None:
    denied = await edge.denied(GET_USER, ("authorization", f"Bearer {token(exp=NOW - 60)}"))
    assert (denied.status.code, reason(denied)) == (401, "TOKEN_EXPIRED")


@pytest.mark.parametrize("second", [BEARER, ("authorization", "Basic dTpw"), ("authorization", "")])
async def test_two_authorization_headers_are_one_too_many(edge: Edge, second: tuple[str, str]) -> None:
    denied = await edge.denied(GET_USER, BEARER, second)
    assert (denied.status.code, reason(denied)) == (401, "TOKEN_AMBIGUOUS")
    assert 'error="invalid_request"' in headers_of(denied)["www-authenticate"]


async def test_a_missing_role_is_named(edge: Edge) -> None:
    denied = await edge.denied(LIST_USERS, ("authorization", f"Bearer {token(roles=['customer'])}"))
    assert (denied.status.code, reason(denied)) == (403, "ROLE_REQUIRED")
    assert headers_of(denied)["www-authenticate"] == (
        'Bearer error="insufficient_scope", error_description="This needs the role admin."'
    )


async def test_a_stream_takes_its_token_from_the_query_and_passes_it_on_to_nobody(edge: Edge) -> None:
    path = f"/api/v1/payments/pay_1/status?afterSequence=3&access_token={GOOD}"
    granted = await edge.granted(STREAM, path=path)
    assert headers_of(granted)["x-user-id"] == "usr_1"
    assert list(granted.query_parameters_to_remove) == ["access_token"]
    twice = await edge.denied(STREAM, path=f"{path}&access_token={GOOD}")
    both = await edge.denied(STREAM, BEARER, path=path)
    assert reason(twice) == reason(both) == "TOKEN_AMBIGUOUS"


async def test_elsewhere_a_token_in_the_query_is_none(edge: Edge) -> None:
    denied = await edge.denied(GET_USER, path=f"/api/v1/users/me?access_token={GOOD}")
    assert reason(denied) == "TOKEN_REQUIRED"


@pytest.mark.parametrize("content_type", ["application/grpc", "application/grpc+proto", "application/grpc-web-text"])
async def test_grpc_clients_get_the_message_and_the_details_apart(edge: Edge, content_type: str) -> None:
    denied = await edge.denied(GET_USER, ("content-type", content_type))
    assert denied.body == "This needs an access token: send it as Authorization: Bearer."
    details = headers_of(denied)["grpc-status-details-bin"]
    status = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert (status.code, info.reason) == (16, "TOKEN_REQUIRED")


async def test_before_there_are_keys_the_client_is_told_when_to_come_again(certificates: Path) -> None:
    server, port = await started(Publisher(), certificates, with_keys=False)
    edge = Edge(port, certificates)
    denied = await edge.denied(GET_USER, BEARER)
    assert (denied.status.code, reason(denied), headers_of(denied)["retry-after"]) == (503, "KEYS_UNAVAILABLE", "1")
    await edge.granted(CREATE_USER)
    await edge.channel.close()
    await server.stop(None)


async def test_only_the_edge_may_ask(port: int, certificates: Path) -> None:
    payment = Edge(port, certificates, peer="payment")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await payment.check(GET_USER, BEARER)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await payment.channel.close()


async def test_a_program_is_granted_what_it_is_for_and_counted_as_its_owner(edge: Edge) -> None:
    granted = await edge.granted(GET_USER, ("x-api-key", KEY))
    assert headers_of(granted) == {
        "x-user-rpc": GET_USER,
        "x-user-id": "usr_1",
        "x-user-roles": "customer",
        "x-user-session": PROGRAM,
    }
    assert list(granted.headers_to_remove) == ["authorization", "x-api-key"]


async def test_a_program_cannot_do_what_only_persons_may(edge: Edge) -> None:
    denied = await edge.denied("/user.v1.ApiKeyService/CreateApiKey", ("x-api-key", KEY))
    assert (denied.status.code, reason(denied)) == (403, "PERSON_REQUIRED")
    assert reason(await edge.denied(LIST_USERS, ("x-api-key", KEY))) == "ROLE_REQUIRED"


@pytest.mark.parametrize(
    "key", ["", " ", KEY[:-1], KEY + "k", KEY.upper(), f" {KEY}", f"{KEY}, {KEY}", "dbk_" + "x" * 43]
)
async def test_any_other_key_is_no_credential(edge: Edge, key: str) -> None:
    denied = await edge.denied(GET_USER, ("x-api-key", key))
    assert (denied.status.code, reason(denied)) == (401, "INVALID_API_KEY")
    assert headers_of(denied)["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("second", [BEARER, ("authorization", "Basic dTpw"), ("authorization", ""), ("x-api-key", KEY)])
async def test_a_key_and_anything_else_are_one_too_many(edge: Edge, second: tuple[str, str]) -> None:
    denied = await edge.denied(GET_USER, ("x-api-key", KEY), second)
    assert (denied.status.code, reason(denied)) == (401, "TOKEN_AMBIGUOUS")
    in_query = await edge.denied(STREAM, ("x-api-key", KEY), path=f"/status?access_token={GOOD}")
    assert reason(in_query) == "TOKEN_AMBIGUOUS"


@pytest.mark.parametrize("value", [f"{BEARER[1]},{BEARER[1]}", f"{BEARER[1]}, Basic dTpw", f"Basic dTpw, {BEARER[1]}"])
async def test_headers_that_envoy_joined_are_still_more_than_one(edge: Edge, value: str) -> None:
    assert reason(await edge.denied(GET_USER, ("authorization", value))) == "TOKEN_AMBIGUOUS"
