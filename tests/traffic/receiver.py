"""A server that users' webhooks lead to: it keeps what is posted to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

Post = tuple[dict[str, str], bytes]
"""The headers, by their names in lower case, and the body."""


@contextmanager
def receiving() -> Iterator[tuple[str, list[Post]]]:
    """Runs a server on this machine that keeps what is posted to it: yields its URL and what came."""
    posts: list[Post] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            posts.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", posts
        server.shutdown()
