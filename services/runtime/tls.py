"""Mutual TLS: every process has a certificate with its SPIFFE id, and talks only to those that have one."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from services.runtime.config import TlsSettings


@dataclass(frozen=True, slots=True)
class Identity:
    """This process's certificate and key, and the CA that all others' must come from (PEM)."""

    cert: Path
    key: Path
    ca: Path

    @classmethod
    def of(cls, settings: TlsSettings) -> "Identity":
        """Takes it from the settings."""
        return cls(settings.tls_cert, settings.tls_key, settings.tls_ca)

    def server(self) -> grpc.ServerCredentials:
        """For serving: refuses peers without a certificate at the handshake."""
        pair = (self.key.read_bytes(), self.cert.read_bytes())
        return grpc.ssl_server_credentials([pair], self.ca.read_bytes(), require_client_auth=True)

    def channel(self) -> grpc.ChannelCredentials:
        """For calling another service."""
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), self.key.read_bytes(), self.cert.read_bytes())

    def context(self) -> ssl.SSLContext:
        """For clients that are not gRPC: NATS, HTTPS."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.cert, self.key)
        return context
