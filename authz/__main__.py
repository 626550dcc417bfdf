"""Starts authz."""

import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import uvloop
from ext_authz import external_auth_pb2_grpc
from pydantic import Field, Json, ValidationInfo, field_validator
from user.v1 import api_key_pb2_grpc

from authz.api_keys import ApiKeys
from authz.issuers import HttpsUrl, Issuer, OutsideIssuer
from authz.jwk import ALGORITHMS
from authz.jwks import Keys, download
from authz.policy import Policy
from authz.requests import Requests
from authz.service import Authorization
from authz.tokens import Tokens
from services.runtime import clients, config, contract, server
from services.runtime.bus import open_bus
from services.runtime.config import BusSettings, ServerSettings
from services.runtime.revocations import Revocations
from services.runtime.tls import Identity

MOST_CHECKS = 2000
"""At once. More wait for a service that does not answer; the edge refuses them with 503."""


class Settings(ServerSettings, BusSettings):
    """What authz needs to know."""

    jwks_url: HttpsUrl
    jwks_ca: Path | None = None
    """Whom the issuer's certificate must come from (PEM), where that is not the mesh's own CA."""
    token_issuer: str
    token_audience: str
    outside_issuers: Json[tuple[OutsideIssuer, ...]] = Field(default=(), validate_default=False)
    """Other identity providers, as a JSON list of objects."""
    user_address: str

    @field_validator("outside_issuers", mode="after")
    @classmethod
    def _distinct(cls, issuers: tuple[OutsideIssuer, ...], info: ValidationInfo) -> tuple[OutsideIssuer, ...]:
        names = [info.data.get("token_issuer"), *(one.issuer for one in issuers)]
        if len({*names}) < len(names):
            raise ValueError("each issuer must be another one, and none TOKEN_ISSUER")
        return issuers


async def main(settings: Settings) -> None:
    """Composes authz and serves."""
    identity = Identity.of(settings)
    methods = contract.load(settings.contract)
    async with open_bus(settings.nats_url, identity) as bus:
        revocations = Revocations(bus)
        issuer = _built_in(settings)
        revocations.listen(issuer.keys.drop_revoked)
        issuers = [issuer, *map(_outside, settings.outside_issuers)]
        tokens = Tokens(issuers, revocations)
        users = api_key_pb2_grpc.ApiKeyServiceStub(clients.connect("user", settings.user_address, identity, methods))
        api_keys = ApiKeys(users.ResolveApiKey, revocations)
        authorization = Authorization(Policy(methods), tokens, api_keys, Requests(settings.contract, methods))
        built = grpc.aio.server(options=server.OPTIONS, maximum_concurrent_rpcs=MOST_CHECKS)
        external_auth_pb2_grpc.add_AuthorizationServicer_to_server(authorization, built)
        background = [revocations.run(), *(one.keys.run() for one in issuers)]
        ready = [issuer.keys.ready, revocations.ready]
        await server.run("authz", built, settings, background=background, ready=ready)


def _built_in(settings: Settings) -> Issuer:
    identity = Identity(settings.tls_cert, settings.tls_key, settings.jwks_ca or settings.tls_ca)
    fetch = partial(download, str(settings.jwks_url), identity.context)
    return Issuer(settings.token_issuer, settings.token_audience, Keys(fetch))


def _outside(one: OutsideIssuer) -> Issuer:
    context: Callable[[], ssl.SSLContext] = partial(ssl.create_default_context, cafile=one.jwks_ca)
    keys = Keys(partial(download, str(one.jwks_url), context), ALGORITHMS)
    return Issuer(one.issuer, one.audience, keys, one.user_claim, one.roles_claim, one.roles)


if __name__ == "__main__":
    uvloop.run(main(config.load(Settings)))
