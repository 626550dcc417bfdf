"""Mutual TLS: every process has a certificate with its SPIFFE id, and talks only to those that have one.

Renewed files are taken up by the next handshake; calls in flight go on. What cannot be used, a key that does not fit
its certificate say, changes nothing: the files may be replaced one by one.
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog

from services.runtime.config import TlsSettings

_log = structlog.get_logger()

Stamp = tuple[tuple[int, int], ...]
"""Tells versions of the three files apart."""


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
        """For serving: refuses peers without a certificate at the handshake, and looks then whether ours is new."""
        used = self.stamp()

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal used
            new = self.renewed_since(used)
            if new == used:
                return None
            used = new
            return self._configuration()

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            renewed,  # type: ignore[arg-type]  # None means no change
            require_client_authentication=True,
        )

    def channel(self) -> grpc.ChannelCredentials:
        """For calling another service."""
        return grpc.ssl_channel_credentials(self.ca.read_bytes(), self.key.read_bytes(), self.cert.read_bytes())

    def context(self) -> ssl.SSLContext:
        """For clients that are not gRPC: NATS, HTTPS."""
        context = ssl.create_default_context(cafile=str(self.ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.cert, self.key)
        return context

    def stamp(self) -> Stamp:
        """Returns which version of the files there is. Raises OSError."""
        found = (path.stat() for path in (self.cert, self.key, self.ca))
        return tuple((one.st_mtime_ns, one.st_ino) for one in found)

    def renewed_since(self, used: Stamp) -> Stamp:
        """Returns the version of the files if it is another one and good, else the one that is used."""
        try:
            new = self.stamp()
            if new != used:
                self.context()
                _log.info("certificates renewed", certificate=str(self.cert))
        except (OSError, ssl.SSLError) as error:
            _log.warning("certificates not renewed", certificate=str(self.cert), error=str(error))
            return used
        return new

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        pair = (self.key.read_bytes(), self.cert.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], self.ca.read_bytes())
