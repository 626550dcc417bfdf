"""Every process of the stack: how it is started, with which environment, and how one sees that it is ready."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scripts.stack import nats, postgres, probes
from scripts.stack.folder import CONTRACT, REPOSITORY, RunFolder, program
from scripts.stack.settings import SERVICES, Settings
from services.runtime import probe

WISHES = {
    "authz": ("OUTSIDE_ISSUERS",),
    "user": ("LOGIN_FAILURES_PER_ACCOUNT", "LOGIN_FAILURES_PER_ADDRESS"),
    "payment": ("SETTLEMENT_DELAY_SECONDS", "REVIEW_EXPIRE_SECONDS", "MAX_STREAMS_PER_USER", "MAX_STREAMS"),
    "document": (
        *("MAX_UPLOAD_BYTES", "MAX_DOCUMENTS_PER_USER", "MAX_UPLOADS_PER_USER", "MAX_UPLOADS", "TMPDIR"),
        *("OBJECT_STORE_URL", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ),
    "compliance": ("VELOCITY_LIMIT_PER_HOUR",),
    "notification": ("SMTP_URL", "SMTP_FROM", "SMS_URL", "SMS_SECRET", "PUSH_URL", "PUSH_SECRET"),
}
"""Variables that `make up` hands on to these processes, where they are set."""
LIMITS = {"production": {"user": {"LOGIN_FAILURES_PER_ACCOUNT": "5", "LOGIN_FAILURES_PER_ADDRESS": "100"}}}
"""What else is as in production where LIMITS says so: beside the edge's limits, which envoy/rate_limits.yaml has."""
TOKENS = {"TOKEN_ISSUER": "https://drawbridge.localhost", "TOKEN_AUDIENCE": "drawbridge"}


@dataclass(frozen=True, slots=True)
class Process:
    """One process, as supervisor runs it."""

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path = REPOSITORY
    stop_signal: str = "TERM"
    user: str | None = None


def mark(folder: RunFolder) -> str:
    """Returns what the commands of servers have among their options, for those that hide their environment."""
    return f"run_folder={folder.path}"


def stores(settings: Settings) -> list[Process]:
    """Returns what has to run before the services."""
    folder, port = settings.folder, settings.ports["nats"]
    return [
        Process(
            "postgres",
            postgres.command(folder),
            lambda: postgres.ready(folder),
            stop_signal="INT",  # TERM would wait for the clients
            user=postgres.USER,
        ),
        Process("nats", nats.command(folder), lambda: nats.ready(port)),
    ]


def edge(settings: Settings) -> list[Process]:
    """Returns what can start beside the stores: Envoy and authz."""
    ports, folder = settings.ports, settings.folder
    options = ["-c", "bootstrap.yaml", "--disable-hot-restart", "--concurrency", "2", "-l", "warning"]
    flushing = ["--file-flush-interval-msec", "500"]  # or whoever reads the access log waits for it up to 10 s
    envoy = [program("envoy"), *options, *flushing]
    return [
        Process("envoy", envoy, lambda: probes.ready(ports["probes"]), directory=folder.path / "envoy"),
        _server(
            settings,
            "authz",
            {
                **TOKENS,
                "JWKS_URL": f"https://localhost:{ports['keys']}/.well-known/jwks.json",
                "NATS_URL": nats.url(ports["nats"]),
                "USER_ADDRESS": settings.address("user"),
                **_wishes(settings, "authz"),
            },
            module="authz",
        ),
    ]


def services(settings: Settings) -> list[Process]:
    """Returns the services."""
    own = {
        "user": {**TOKENS, **settings.secrets},
        "payment": {
            "USER_ADDRESS": settings.address("user"),
            "COMPLIANCE_ADDRESS": settings.address("compliance"),
            "DOCUMENT_ADDRESS": settings.address("document"),
        },
        "compliance": {
            "SANCTIONS_LIST": str(REPOSITORY / "services/compliance/sanctions_sample.csv"),
            **{f"{name.upper()}_ADDRESS": settings.address(name) for name in SERVICES if name != "compliance"},
        },
        "document": {
            "OBJECT_STORE_URL": (settings.folder.data / "documents").as_uri(),
            "USER_ADDRESS": settings.address("user"),
        },
        "notification": {"USER_ADDRESS": settings.address("user"), "WEBHOOK_TARGETS": "any"},
    }
    return [
        _server(settings, name, {**_stores(settings, name), **own[name], **_wishes(settings, name)})
        for name in SERVICES
    ]


def _wishes(settings: Settings, service: str) -> dict[str, str]:
    wishes = settings.wishes
    limits = LIMITS.get(wishes.get("LIMITS", ""), {}).get(service, {})
    return {**limits, **{name: wishes[name] for name in WISHES.get(service, ()) if name in wishes}}


def _stores(settings: Settings, service: str) -> dict[str, str]:
    return {
        "DATABASE_URL": postgres.url(settings.folder, service, service),
        "NATS_URL": nats.url(settings.ports["nats"]),
    }


def _server(settings: Settings, name: str, own: Mapping[str, str], module: str = "") -> Process:
    certificates, health = settings.folder.certificates, settings.address(f"{name}_health")
    environment = {
        "LISTEN_ADDRESS": settings.address(name),
        "HEALTH_ADDRESS": health,
        "TLS_CERT": str(certificates / f"{name}.pem"),
        "TLS_KEY": str(certificates / f"{name}.key"),
        "TLS_CA": str(certificates / "ca.pem"),
        "CONTRACT": str(CONTRACT),
        **own,
    }
    command = [sys.executable, "-X", mark(settings.folder), "-m", module or f"services.{name}"]
    return Process(name, command, lambda: probe.serving(health), environment)
