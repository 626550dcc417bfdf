"""One edge for all contract tests, with recording services behind it."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import httpx
import pytest

from scripts.stack import certificates as issuer
from services.runtime import contract
from services.runtime.contract import Method
from tests.edge.contract.backend import Backend, serving
from tests.edge.contract.edge import CONTRACT, Edge, running, server_ports
from tests.edge.contract.grpc_client import Channel


@pytest.fixture(scope="session")
def methods() -> Mapping[str, Method]:
    """The contract."""
    return contract.load(CONTRACT)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the mesh's and the public certificates."""
    folder = tmp_path_factory.mktemp("mesh") / "certs"
    issuer.issue(folder)
    return folder


@pytest.fixture(scope="session")
def _backend(methods: Mapping[str, Method]) -> Backend:
    return Backend(CONTRACT, methods)


@pytest.fixture(scope="session")
def edge(
    methods: Mapping[str, Method], _backend: Backend, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    """An edge that reaches everything."""
    services = server_ports(methods)
    with (
        serving(_backend, certificates, services),
        running(tmp_path_factory.mktemp("edge"), certificates, services) as edge,
    ):
        yield edge


@pytest.fixture
def own_edge(methods: Mapping[str, Method], certificates: Path, tmp_path: Path) -> Iterator[Edge]:
    """An edge for one test, which may change it. It reaches nothing."""
    with running(tmp_path, certificates, server_ports(methods)) as edge:
        yield edge


@pytest.fixture
def backend(_backend: Backend, edge: Edge) -> Backend:
    """What is behind the edge, with nothing recorded yet."""
    _backend.calls.clear()
    _backend.checks.clear()
    return _backend


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def client(request: pytest.FixtureRequest, edge: Edge) -> Iterator[httpx.Client]:
    """A REST client of either protocol."""
    http2 = request.param == "HTTP/2"
    with httpx.Client(base_url=edge.url, http1=not http2, http2=http2, timeout=15) as client:
        yield client


@pytest.fixture
def channel(edge: Edge, backend: Backend) -> Iterator[Channel]:
    """A gRPC client."""
    with grpc.insecure_channel(f"127.0.0.1:{edge.port}") as channel:
        yield Channel(channel, backend)
