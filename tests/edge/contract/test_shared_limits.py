"""The limits per client address that all edges share, where an installation has k8s/components/ratelimit."""

import ssl
from collections.abc import Iterable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import httpx
import pytest

from tests.edge.contract.backend import Backend, serving
from tests.edge.contract.edge import AUTHORIZED, Edge, reason_of, rendered, running, server_ports, started
from tests.edge.contract.grpc_client import Channel

ENVIRONMENT = "kubernetes_ratelimit"
# envoy.service.ratelimit.v3.RateLimitResponse: overall_code OK or OVER_LIMIT, and a status with the same code, a limit
# of 10 a minute of which none is left, and 7 seconds until more are.
_OK, _OVER_LIMIT = (
    bytes([0x08, code, 0x12, 12, 0x08, code, 0x12, 4, 0x08, 10, 0x10, 2, 0x22, 2, 0x08, 7]) for code in (1, 2)
)


class Limiter(grpc.GenericRpcHandler):
    """Stands in for envoyproxy/ratelimit: admits all or nobody."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.answer = _OK

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """Returns the handler of the only RPC."""
        if handler_call_details.method != "/envoy.service.ratelimit.v3.RateLimitService/ShouldRateLimit":
            return None

        def decide(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.requests.append(request)
            return self.answer

        return grpc.unary_unary_rpc_method_handler(decide)


@contextmanager
def limiting(limiter: Limiter, certificates: Path, port: int) -> Iterator[None]:
    """Serves the limiter, by the name of NATS: the development CA has no certificate for it."""
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), handlers=[limiter])
    pair = ((certificates / "nats.key").read_bytes(), (certificates / "nats.pem").read_bytes())
    server.add_secure_port(
        f"127.0.0.1:{port}", grpc.ssl_server_credentials([pair], (certificates / "ca.pem").read_bytes(), True)
    )
    server.start()
    try:
        yield
    finally:
        server.stop(grace=None).wait()


@pytest.fixture(scope="module")
def limiter() -> Limiter:
    """What counts."""
    return Limiter()


@pytest.fixture(scope="module")
def limited(
    _backend: Backend, certificates: Path, limiter: Limiter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    """An edge with a limit."""
    services = server_ports(_backend.methods, "ratelimit")
    edge = rendered(tmp_path_factory.mktemp("limited"), certificates, services, ENVIRONMENT, **on_loopback(services))
    clusters = edge.folder / "clusters.yaml"
    clusters.write_text(clusters.read_text().replace("spiffe://drawbridge/ratelimit", "spiffe://drawbridge/nats"))
    port = services.pop("ratelimit")
    with limiting(limiter, certificates, port), serving(_backend, certificates, services), started(edge):
        yield edge


def test_every_request_is_counted_by_the_address_of_its_client(limited: Edge, limiter: Limiter) -> None:
    limiter.answer = _OK
    limiter.requests.clear()
    response = ask(limited, {"x-forwarded-for": "10.1.2.3"})
    assert response.status_code == 200
    [request] = limiter.requests
    assert all(
        part in request for part in (b"drawbridge", b"rate_class", b"read", b"masked_remote_address", b"127.0.0.1/32")
    )
    assert b"10.1.2.3" not in request


def test_too_many_requests_are_refused_before_anything_else_is_done(
    limited: Edge, limiter: Limiter, backend: Backend
) -> None:
    limiter.answer = _OVER_LIMIT
    response = ask(limited)
    assert (response.status_code, reason_of(response)) == (429, "RATE_LIMITED")
    assert response.headers["retry-after"] == "7"
    assert backend.checks == []
    with (
        grpc.secure_channel(f"localhost:{limited.tls_port}", credentials(limited)) as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        Channel(channel, backend).call("/payment.v1.AccountService/ListAccounts", [*AUTHORIZED.items()])
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.details() == "There are too many requests; try again later."


def test_without_what_counts_nobody_is_refused(backend: Backend, certificates: Path, tmp_path: Path) -> None:
    services = server_ports(backend.methods, "ratelimit")
    up = {name: port for name, port in services.items() if name != "ratelimit"}
    with (
        serving(backend, certificates, up),
        running(tmp_path, certificates, services, ENVIRONMENT, **on_loopback(services)) as edge,
    ):
        assert ask(edge).status_code == 200


def ask(edge: Edge, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Asks for accounts, by https as in production."""
    tls = ssl.create_default_context(cafile=edge.certificates / "edge-ca.pem")
    url = f"https://localhost:{edge.tls_port}/api/v1/accounts"
    return httpx.get(url, headers={**AUTHORIZED, **(headers or {})}, verify=tls)


def credentials(edge: Edge) -> grpc.ChannelCredentials:
    """Returns whom a gRPC client trusts."""
    return grpc.ssl_channel_credentials((edge.certificates / "edge-ca.pem").read_bytes())


def on_loopback(services: Iterable[str]) -> dict[str, str]:
    """Returns where to listen, and where the services are."""
    return {"LISTEN_HOST": "127.0.0.1"} | {f"{service.upper()}_HOST": "127.0.0.1" for service in services}
