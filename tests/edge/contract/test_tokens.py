"""Every attack on access tokens through a real Envoy and the real authz: nobody gets in, and all are told so alike."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import grpc
import httpx
import pytest
from ext_authz import external_auth_pb2_grpc

from authz.api_keys import ApiKeys
from authz.issuers import Issuer
from authz.jwks import Keys
from authz.policy import Policy
from authz.requests import Requests
from authz.service import Authorization
from authz.tokens import Tokens
from services.runtime.contract import Method
from services.runtime.tls import Identity
from tests.attacks import attacks
from tests.edge.contract.backend import Backend, serving
from tests.edge.contract.edge import CONTRACT, Edge, reason_of, running, server_ports
from tests.issuer import AUDIENCE, ISSUER, NOW, Heard, Publisher, token
from tests.keeper import KEY, Keeper

PATH = "/api/v1/accounts"
GOOD = f"Bearer {token()}"
REFUSED = {"INVALID_TOKEN", "TOKEN_EXPIRED", "TOKEN_AMBIGUOUS"}
HeaderList = list[tuple[str, str]]


class Guarded:
    """An edge that asks the real authz, and what is behind it."""

    def __init__(self, edge: Edge, backend: Backend, client: httpx.AsyncClient) -> None:
        self.edge = edge
        self.backend = backend
        self.client = client

    async def refused(self, headers: HeaderList, path: str = PATH) -> str:
        """Returns the reason for which a request is refused, or that it is not, or not as it should be."""
        before = len(self.backend.calls)
        response = await self.client.get(path, headers=headers)
        if response.status_code == 200 or len(self.backend.calls) > before:
            return "admitted"
        if response.status_code != 401 or not response.headers["www-authenticate"].startswith("Bearer"):
            return f"{response.status_code} {response.headers}"
        return reason_of(response)


@pytest.fixture(scope="module", params=["HTTP/1.1", "HTTP/2"])
async def guarded(
    request: pytest.FixtureRequest,
    methods: Mapping[str, Method],
    certificates: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Guarded]:
    keys, heard = Keys(Publisher().fetch), Heard()
    await keys.refresh()
    tokens = Tokens([Issuer(ISSUER, AUDIENCE, keys)], heard, lambda: NOW)
    servicer = Authorization(Policy(methods), tokens, ApiKeys(Keeper().resolve, heard), Requests(CONTRACT, methods))
    server = grpc.aio.server()
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(servicer, server)
    identity = Identity(certificates / "authz.pem", certificates / "authz.key", certificates / "ca.pem")
    ports = server_ports(methods)
    server.add_secure_port(f"127.0.0.1:{ports['authz']}", identity.server())
    await server.start()
    backend = Backend(CONTRACT, methods)
    others = {name: port for name, port in ports.items() if name != "authz"}
    http2 = request.param == "HTTP/2"
    with (
        serving(backend, certificates, others),
        running(tmp_path_factory.mktemp("guarded"), certificates, ports) as edge,
    ):
        async with httpx.AsyncClient(base_url=edge.url, http1=not http2, http2=http2, timeout=30) as client:
            yield Guarded(edge, backend, client)
    await server.stop(None)


async def test_no_attack_on_tokens_gets_in_and_each_is_refused_as_what_it_is(guarded: Guarded) -> None:
    good = await guarded.client.get(PATH, headers={"authorization": GOOD})
    assert good.status_code == 200, good.text
    told = {name: await guarded.refused([("authorization", f"Bearer {attack}")]) for name, attack in attacks().items()}
    assert len(told) > 300
    wrong = {name: how for name, how in told.items() if how not in REFUSED}
    assert wrong == {}
    assert len(guarded.backend.calls) == 1


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "TOKEN_REQUIRED"),
        ([("authorization", "")], "TOKEN_REQUIRED"),
        ([("authorization", "Bearer")], "INVALID_TOKEN"),
        ([("authorization", token())], "TOKEN_REQUIRED"),
        ([("authorization", f"Bearer\t{token()}")], "TOKEN_REQUIRED"),
        ([("authorization", f"Bearer:{token()}")], "TOKEN_REQUIRED"),
        ([("authorization", f"Bearer={token()}")], "TOKEN_REQUIRED"),
        ([("authorization", f"Bearer Bearer {token()}")], "INVALID_TOKEN"),
        ([("authorization", f"Basic {token()}")], "TOKEN_REQUIRED"),
        ([("authorization", f"Digest {token()}")], "TOKEN_REQUIRED"),
        ([("authorization", f"DPoP {token()}")], "TOKEN_REQUIRED"),
        ([("authorization", f"Token {token()}")], "TOKEN_REQUIRED"),
        ([("authorization", f"JWT {token()}")], "TOKEN_REQUIRED"),
        ([("authorization", f"Basic dTpw, {GOOD}")], "TOKEN_AMBIGUOUS"),
        ([("authorization", f"{GOOD}, Basic dTpw")], "TOKEN_AMBIGUOUS"),
        ([("authorization", GOOD), ("authorization", GOOD)], "TOKEN_AMBIGUOUS"),
        ([("authorization", GOOD), ("Authorization", "Basic dTpw")], "TOKEN_AMBIGUOUS"),
        ([("authorization", GOOD), ("x-api-key", KEY)], "TOKEN_AMBIGUOUS"),
        ([("authorization", GOOD), ("x-api-key", "")], "TOKEN_AMBIGUOUS"),
        ([("x-api-key", KEY), ("x-api-key", KEY)], "TOKEN_AMBIGUOUS"),
        ([("x-api-key", f"{KEY},{KEY}")], "INVALID_API_KEY"),
        ([("x-api-key", "")], "INVALID_API_KEY"),
        ([("x-api-key", token())], "INVALID_API_KEY"),
        ([("authorization", f"Bearer {KEY}")], "INVALID_TOKEN"),
        ([("authorization_", GOOD)], "TOKEN_REQUIRED"),
        ([("proxy-authorization", GOOD)], "TOKEN_REQUIRED"),
        ([("x-authorization", GOOD)], "TOKEN_REQUIRED"),
        ([("x-forwarded-authorization", GOOD)], "TOKEN_REQUIRED"),
        ([("cookie", f"access_token={token()}")], "TOKEN_REQUIRED"),
        ([("x-user-id", "usr_1"), ("x-user-rpc", "/payment.v1.AccountService/ListAccounts")], "TOKEN_REQUIRED"),
    ],
)
async def test_a_credential_in_any_other_place_or_form_is_none(
    guarded: Guarded, headers: HeaderList, reason: str
) -> None:
    assert await guarded.refused(headers) == reason


async def test_a_token_in_the_query_counts_only_where_a_stream_is_opened(guarded: Guarded) -> None:
    assert await guarded.refused([], f"{PATH}?access_token={token()}") == "TOKEN_REQUIRED"
    for path in ("/api/v1/payments/pay_1/status", "/api/v1/payments/events"):
        for attack in ("", "a.b.c", token()[:-2], token(exp=1)):
            assert await guarded.refused([], f"{path}?access_token={attack}") in {"INVALID_TOKEN", "TOKEN_EXPIRED"}
        twice = f"{path}?access_token={token()}&access_token={token()}"
        assert await guarded.refused([], twice) == "TOKEN_AMBIGUOUS"
        assert await guarded.refused([("authorization", GOOD)], f"{path}?access_token=") == "TOKEN_AMBIGUOUS"


async def test_a_program_gets_in_with_its_key_and_no_service_sees_it(guarded: Guarded) -> None:
    response = await guarded.client.get(PATH, headers={"x-api-key": KEY})
    assert response.status_code == 200, response.text
    call = guarded.backend.calls[-1]
    assert call.values("x-user-session") == ["key_1"]
    assert KEY not in str(call.metadata)
    assert KEY not in guarded.edge.log_text()
