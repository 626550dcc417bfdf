"""Starts authz."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Annotated

import grpc
import uvloop
from ext_authz import external_auth_pb2_grpc
from pydantic import AnyUrl, UrlConstraints

from authz.jwks import Keys, download
from authz.policy import Policy
from authz.service import Authorization
from authz.tokens import Tokens
from services.runtime import config, contract, server
from services.runtime.config import ServerSettings
from services.runtime.tls import Identity


class Settings(ServerSettings):
    """What authz needs to know."""

    jwks_url: Annotated[AnyUrl, UrlConstraints(allowed_schemes=["https"])]
    jwks_ca: Path | None = None
    """Whom the issuer's certificate must come from (PEM), where that is not the mesh's own CA."""
    token_issuer: str
    token_audience: str


async def main(settings: Settings) -> None:
    """Composes authz and serves."""
    identity = Identity(settings.tls_cert, settings.tls_key, settings.jwks_ca or settings.tls_ca)
    keys = Keys(partial(asyncio.to_thread, download, str(settings.jwks_url), identity))
    tokens = Tokens(keys, settings.token_issuer, settings.token_audience)
    authorization = Authorization(Policy(contract.load(settings.contract)), tokens)
    built = grpc.aio.server(options=server.OPTIONS)
    external_auth_pb2_grpc.add_AuthorizationServicer_to_server(authorization, built)
    await server.run("authz", built, settings, background=[keys.run()], ready=[keys.ready])


if __name__ == "__main__":
    uvloop.run(main(config.load(Settings)))
