"""Environment to settings. Read once, in a __main__, and passed on from there."""

import sys
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings


class ServerSettings(BaseSettings):
    """What every server needs to know."""

    listen_address: str
    """host:port of gRPC over mutual TLS."""
    health_address: str
    """host:port of grpc.health.v1 in plaintext, and of nothing else."""
    tls_cert: Path
    tls_key: Path
    tls_ca: Path
    contract: Path
    """The descriptor set made by scripts/generate."""


class DatabaseSettings(BaseSettings):
    """What everything that has a database needs to know."""

    database_url: str


class BusSettings(BaseSettings):
    """What every server that publishes or consumes events needs to know."""

    nats_url: Annotated[str, Field(pattern=r"^tls://[^/]+$")]


Settings = TypeVar("Settings", bound=BaseSettings)


def load(settings: type[Settings]) -> Settings:
    """Reads settings from the environment. Ends the process naming all that are missing or wrong at once."""
    try:
        return settings()
    except ValidationError as error:
        problems = [f"{one['loc'][0]!s}".upper() + f": {one['msg']}" for one in error.errors()]
        sys.exit("\n  ".join(["The environment does not say all that is needed:", *problems]))
