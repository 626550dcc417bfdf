"""Environment to settings. Read once, in a __main__, and passed on from there.

What is secret may be a file instead, in /run/secrets, named as the setting: signing_key_secret.
"""

import sys
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings


class TlsSettings(BaseSettings):
    """What every process of the mesh needs to know."""

    tls_cert: Path
    tls_key: Path
    tls_ca: Path


class ServerSettings(TlsSettings):
    """What every server needs to know."""

    listen_address: str
    """host:port of gRPC over mutual TLS."""
    health_address: str
    """host:port of grpc.health.v1 in plaintext, and of nothing else."""
    contract: Path
    """The descriptor set made by scripts/generate."""


class DatabaseSettings(BaseSettings):
    """What everything that has a database needs to know."""

    database_url: str


class BusSettings(BaseSettings):
    """What every server that publishes or consumes events needs to know."""

    nats_url: Annotated[str, Field(pattern=r"^tls://[^/]+$")]


_SECRETS = Path("/run/secrets")

Settings = TypeVar("Settings", bound=BaseSettings)


def load(settings: type[Settings], secrets: Path = _SECRETS) -> Settings:
    """Reads settings from the environment, and those it lacks from the folder of secrets.

    Ends the process naming all that are missing or wrong at once.
    """
    try:
        return settings(_secrets_dir=secrets if secrets.is_dir() else None)
    except ValidationError as error:
        problems = [f"{one['loc'][0]!s}".upper() + f": {one['msg']}" for one in error.errors()]
        sys.exit("\n  ".join(["The environment does not say all that is needed:", *problems]))
