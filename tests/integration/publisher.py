"""A hand-written HTTPS server that publishes the keys of an issuer, or whatever it is told to."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Publisher(ThreadingHTTPServer):
    """Answers every GET with what it is told to."""

    status = 200
    body = b""
    asked = 0

    @property
    def url(self) -> str:
        """Where its keys are."""
        return f"https://localhost:{self.server_port}/.well-known/jwks.json"


class Answer(BaseHTTPRequestHandler):
    """What the publisher was told to say."""

    server: Publisher

    def do_GET(self) -> None:  # the standard library's name
        self.server.asked += 1
        self.send_response(self.server.status)
        self.send_header("location", "https://localhost/elsewhere")
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the standard library's name
        pass


@contextmanager
def publishing(certificates: Path, name: str, *, mutual: bool = True) -> Iterator[Publisher]:
    """Serves with the certificate of that name: to peers of the mesh only, or to anybody."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
    context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
    with Publisher(("127.0.0.1", 0), Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
