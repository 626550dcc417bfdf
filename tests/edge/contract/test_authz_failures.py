"""Nothing gets past an authz that is away, hangs or talks nonsense: it is 503, soon, and only as long as that lasts."""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from ext_authz import external_auth_pb2 as authz

from tests.edge.contract.backend import USER, Backend, serving
from tests.edge.contract.edge import AUTHORIZED, Edge, reason_of, running, server_ports
from tests.edge.contract.grpc_client import Channel
from tests.edge.contract.http2 import SETTINGS, frame
from tests.waiting import wait_until

Answer = Callable[[authz.CheckRequest, grpc.ServicerContext], bytes]

ACCOUNTS = "/payment.v1.AccountService/ListAccounts"
REQUESTS = [
    ("GET", "/api/v1/accounts", b""),
    ("POST", "/api/v1/payments", b"{}"),
    ("POST", "/api/v1/documents/upload", b"x" * 100_000),
    ("GET", "/.well-known/jwks.json", b""),
]


def option(name: str, value: str) -> authz.HeaderValueOption:
    """Returns a header as authz says it."""
    return authz.HeaderValueOption(header=authz.HeaderValue(key=name, value=value))


def granting(*headers: tuple[str, str], code: int = 0) -> Answer:
    """Grants, with these headers."""
    response = authz.CheckResponse(ok_response=authz.OkHttpResponse(headers=[option(*header) for header in headers]))
    response.status.code = code
    return lambda request, context: response.SerializeToString()


def denying(status: int, body: str, code: int = 16, content_type: str = "") -> Answer:
    """Denies, with this answer."""
    denied = authz.DeniedHttpResponse(status=authz.HttpStatus(code=status), body=body)
    if content_type:
        denied.headers.append(option("content-type", content_type))
    response = authz.CheckResponse(denied_response=denied)
    response.status.code = code
    return lambda request, context: response.SerializeToString()


def failing(code: grpc.StatusCode) -> Answer:
    """Answers with an error."""

    def fail(request: authz.CheckRequest, context: grpc.ServicerContext) -> bytes:
        context.abort(code, "It went wrong.")

    return fail


def honest(request: authz.CheckRequest, context: grpc.ServicerContext) -> bytes:
    """Grants what is asked for."""
    rpc = request.attributes.context_extensions["rpc"]
    return granting(("x-user-rpc", rpc), ("x-user-id", USER))(request, context)


# `x-user-rpc` is what the answer is about. None of these grants anything.
NONSENSE: dict[str, Answer] = {
    "nothing": lambda request, context: b"",
    "noise": lambda request, context: b"\xff\xfe\x00 noise",
    "text": lambda request, context: b"HTTP/1.1 200 OK\r\n\r\n",
    "yes, and no more": granting(),
    "yes, to whom": granting(("x-user-id", USER)),
    "yes, to another": granting(("x-user-rpc", "/user.v1.UserService/ListUsers"), ("x-user-id", USER)),
    "yes, to a part": granting(("x-user-rpc", ACCOUNTS[:-1]), ("x-user-id", USER)),
    "yes, to two": granting(("x-user-rpc", f"{ACCOUNTS},/user.v1.UserService/ListUsers")),
    "yes, by another name": granting(("X-User_Rpc", ACCOUNTS)),
    "yes, but no": granting(("x-user-rpc", ACCOUNTS), code=7),
    "yes, with more": granting(("x-user-rpc", ACCOUNTS), ("x-user-id", "a\r\nx-user-id: b")),
    "yes, at length": granting(("x-user-rpc", ACCOUNTS), ("x-user-id", "x" * 5_000_000)),
    "no, but yes": denying(200, '{"accounts": []}', code=0),
    "no, with a success": denying(200, '{"accounts": []}', content_type="application/json"),
    "no, with no status": denying(0, ""),
    "no, with a wrong status": denying(999, "?"),
    "no, as a page": denying(403, "<html>", content_type="text/html"),
    "no, without a word": denying(403, ""),
    **{code.name: failing(code) for code in grpc.StatusCode if code is not grpc.StatusCode.OK},
}


@dataclass
class Scene:
    """An edge in front of recording services, with an authz that says what a test wants."""

    edge: Edge
    backend: Backend
    port: int
    certificates: Path
    answer: Answer = honest

    def credentials(self) -> tuple[bytes, bytes]:
        """Returns authz's key and certificate."""
        return (self.certificates / "authz.key").read_bytes(), (self.certificates / "authz.pem").read_bytes()

    @contextmanager
    def running_authz(self) -> Iterator[None]:
        """Runs authz."""
        handler: grpc.RpcMethodHandler[authz.CheckRequest, bytes] = grpc.unary_unary_rpc_method_handler(
            self._check,
            request_deserializer=authz.CheckRequest.FromString,
        )
        handlers = grpc.method_handlers_generic_handler("envoy.service.auth.v3.Authorization", {"Check": handler})
        options = [("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0)]
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), handlers=[handlers], options=options)
        root = (self.certificates / "ca.pem").read_bytes()
        server.add_secure_port(f"127.0.0.1:{self.port}", grpc.ssl_server_credentials([self.credentials()], root, True))
        server.start()
        try:
            yield
        finally:
            server.stop(grace=None).wait()

    @contextmanager
    def babbler(self, said: bytes) -> Iterator[None]:
        """Runs what says this to everybody, in TLS, and is no gRPC server."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificates / "authz.pem", self.certificates / "authz.key")
        context.set_alpn_protocols(["h2"])
        over = threading.Event()

        def accept() -> None:
            while not over.is_set():
                with suppress(OSError):
                    connection, _ = listener.accept()
                    with connection, context.wrap_socket(connection, server_side=True) as secured:
                        secured.sendall(said)

        with socket.create_server(("127.0.0.1", self.port)) as listener, futures.ThreadPoolExecutor() as threads:
            listener.settimeout(0.2)
            threads.submit(accept)
            try:
                yield
            finally:
                over.set()

    def _check(self, request: authz.CheckRequest, context: grpc.ServicerContext) -> bytes:
        return self.answer(request, context)

    def refuses_all(self) -> None:
        """Expects that nothing gets through, and that all are told so alike."""
        self.backend.calls.clear()
        for verb, path, body in REQUESTS:
            start = time.monotonic()
            answer = httpx.request(verb, self.edge.url + path, content=body, headers=AUTHORIZED, timeout=20)
            assert (answer.status_code, reason_of(answer)) == (503, "SERVICE_UNAVAILABLE")
            assert answer.headers["retry-after"] == "1"
            assert time.monotonic() - start < 4  # 1 s, on a machine that has time
        with grpc.insecure_channel(f"127.0.0.1:{self.edge.port}") as channel:
            with pytest.raises(grpc.RpcError) as refused:
                Channel(channel, self.backend).call(ACCOUNTS, [*AUTHORIZED.items()])
            assert refused.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED}
        assert self.backend.calls == []

    def is_well(self) -> bool:
        """Tells whether a request is served."""
        return httpx.get(f"{self.edge.url}/api/v1/accounts", headers=AUTHORIZED, timeout=20).status_code == 200


@pytest.fixture(scope="module")
def scene(_backend: Backend, certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One for all tests."""
    services = server_ports(_backend.methods)
    others: Mapping[str, int] = {name: port for name, port in services.items() if name != "authz"}
    with (
        serving(_backend, certificates, others),
        running(tmp_path_factory.mktemp("edge"), certificates, services) as edge,
    ):
        yield Scene(edge, _backend, services["authz"], certificates)


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_grants_nothing(scene: Scene, name: str) -> None:
    with scene.running_authz():
        scene.answer = NONSENSE[name]
        scene.refuses_all()
        scene.answer = honest
        assert scene.is_well()


def test_an_authz_that_hangs_grants_nothing(scene: Scene) -> None:
    over = threading.Event()

    def hang(request: authz.CheckRequest, context: grpc.ServicerContext) -> bytes:
        over.wait(60)
        return honest(request, context)

    with scene.running_authz():
        scene.answer = hang
        try:
            scene.refuses_all()
        finally:
            over.set()
        scene.answer = honest
        wait_until(scene.is_well, "it stays refused")
    assert {call.rpc for call in scene.backend.calls} == {ACCOUNTS}  # of who was served again


def test_an_authz_that_is_away_grants_nothing_and_is_found_when_it_is_back(scene: Scene) -> None:
    scene.answer = honest
    for _ in range(3):
        scene.refuses_all()
        with scene.running_authz():
            wait_until(scene.is_well, "it stays refused", seconds=10)


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", bytes(100_000), frame(SETTINGS, 0, 0) * 2000],
    ids=["nothing", "HTTP/1.1", "zeros", "settings"],
)
def test_what_is_no_authz_grants_nothing(scene: Scene, said: bytes) -> None:
    with scene.babbler(said):
        scene.refuses_all()
