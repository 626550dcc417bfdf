"""What the edge is to browsers and to those who run it: TLS, redirects, headers of answers, and when it is too full."""

import contextlib
import http.client
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import httpx
import pytest
import yaml

from services.runtime.contract import Method
from tests.edge.contract.backend import Backend, serving
from tests.edge.contract.edge import AUTHORIZED, Edge, reason_of, rendered, running, server_ports, started
from tests.edge.contract.grpc_client import Channel
from tests.waiting import wait_until

ENVIRONMENTS = list(yaml.safe_load(Path("envoy/environments.yaml").read_text()))
HSTS = "max-age=31536000; includeSubDomains"


@pytest.fixture(scope="module")
def public(
    methods: Mapping[str, Method], _backend: Backend, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    """The edge of an installation."""
    services = server_ports(methods)
    hosts = {"LISTEN_HOST": "127.0.0.1", **{f"{service.upper()}_HOST": "127.0.0.1" for service in services}}
    with (
        serving(_backend, certificates, services),
        running(tmp_path_factory.mktemp("public"), certificates, services, "kubernetes", **hosts) as edge,
    ):
        yield edge


def trusting(edge: Edge) -> ssl.SSLContext:
    """Returns a client's side of TLS."""
    return ssl.create_default_context(cafile=str(edge.certificates / "edge-ca.pem"))


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_browsers_are_told_what_not_to_do(edge: Edge, backend: Backend, tls: bool) -> None:
    url = f"https://localhost:{edge.tls_port}" if tls else edge.url
    asked = {"origin": "http://localhost:3000", "access-control-request-method": "GET"}
    lie = {"x-forwarded-proto": "http" if tls else "https"}
    with httpx.Client(base_url=url, verify=trusting(edge)) as client:
        answers = [
            client.get("/api/v1/accounts", headers=AUTHORIZED | lie),
            client.get("/api/v1/accounts", headers=lie),
            client.get("/nothing", headers=lie),
            client.put("/api/v1/accounts", headers=lie),
            client.options("/api/v1/accounts", headers=asked | lie),
            client.post("/api/v1/payments", content=b"{bad", headers=AUTHORIZED | lie),
        ]
    assert [answer.status_code for answer in answers] == [200, 401, 404, 405, 200, 400]
    for answer in answers:
        assert answer.headers.get_list("x-content-type-options") == ["nosniff"]
        assert answer.headers.get_list("cache-control") == ["no-store"]
        assert answer.headers.get_list("strict-transport-security") == ([HSTS] if tls else [])


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://localhost:1.evil.example", "http://localhost", "*"]
)
@pytest.mark.parametrize("verb", ["GET", "POST", "OPTIONS"])
def test_a_foreign_page_may_read_nothing(client: httpx.Client, backend: Backend, origin: str, verb: str) -> None:
    headers = {"origin": origin, "access-control-request-method": "POST"} | (AUTHORIZED if verb != "OPTIONS" else {})
    answer = client.request(verb, "/api/v1/accounts", headers=headers)
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_no_page_is_trusted_with_what_a_browser_sends_by_itself(client: httpx.Client, backend: Backend) -> None:
    own = {"origin": "http://localhost:3000", "cookie": "session=1", "access-control-request-method": "GET"}
    for verb in ("GET", "OPTIONS"):
        answer = client.request(verb, "/api/v1/accounts", headers=own | AUTHORIZED)
        assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
        assert "access-control-allow-credentials" not in answer.headers
    assert client.get("/api/v1/accounts", headers=own).status_code == 401
    assert [call.values("cookie") for call in backend.calls] == [[]]


@pytest.mark.parametrize("verb", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/api/v1/accounts?pageSize=3", "/nothing", "/payment.v1.PaymentService/GetPayment"])
def test_an_installation_sends_everybody_to_https(public: Edge, backend: Backend, verb: str, path: str) -> None:
    lies = {"x-forwarded-proto": "https", "x-forwarded-host": "evil.example", "x-forwarded-port": "1"}
    answer = httpx.request(verb, f"{public.url}{path}", headers=AUTHORIZED | lies | {"host": "api.example"})
    assert (answer.status_code, reason_of(answer)) == (308, "HTTPS_REQUIRED")
    assert answer.headers["location"] == f"https://api.example{path}"
    assert backend.calls == backend.checks == []


def test_an_installation_serves_https(public: Edge, backend: Backend) -> None:
    with httpx.Client(verify=trusting(public), base_url=f"https://localhost:{public.tls_port}") as client:
        assert client.get("/api/v1/accounts", headers=AUTHORIZED | {"x-forwarded-proto": "http"}).status_code == 200


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_what_rules_envoy_is_on_loopback_only(
    methods: Mapping[str, Method], certificates: Path, tmp_path: Path, environment: str
) -> None:
    edge = rendered(tmp_path, certificates, server_ports(methods, "ratelimit"), environment)
    bootstrap = yaml.safe_load((edge.folder / "bootstrap.yaml").read_text())
    assert bootstrap["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    "ciphers",
    [
        "AES128-SHA",
        "AES256-GCM-SHA384",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA384",
        "DHE-RSA-AES128-GCM-SHA256",
    ],
)
def test_what_has_no_forward_secrecy_or_aead_is_refused(edge: Edge, ciphers: str) -> None:
    old = trusting(edge)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers(f"{ciphers}:@SECLEVEL=0")
    with socket.create_connection(("127.0.0.1", edge.tls_port)) as connection, pytest.raises(ssl.SSLError):
        old.wrap_socket(connection, server_hostname="localhost")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_is_modern_is_spoken(edge: Edge, version: ssl.TLSVersion) -> None:
    modern = trusting(edge)
    modern.minimum_version = modern.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", edge.tls_port)) as connection,
        modern.wrap_socket(connection, server_hostname="localhost") as secured,
    ):
        assert secured.version() == version.name.replace("_", ".")


@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0302])
def test_an_old_version_of_tls_is_refused(edge: Edge, version: int) -> None:
    suites = struct.pack(">4H", 0xC009, 0xC013, 0xC02B, 0xC02F)
    hello = struct.pack(">H", version) + bytes(32) + b"\x00" + struct.pack(">H", len(suites)) + suites + b"\x01\x00"
    handshake = b"\x01" + struct.pack(">I", len(hello))[1:] + hello
    with socket.create_connection(("127.0.0.1", edge.tls_port), timeout=20) as connection:
        connection.sendall(b"\x16" + struct.pack(">HH", version, len(handshake)) + handshake)
        kind, _, _, level, alert = struct.unpack(">BHHBB", connection.recv(7))
    assert (kind, level) == (21, 2)
    assert alert in {70, 40, 47}  # protocol_version, handshake_failure, illegal_parameter


def test_plain_http_is_not_spoken_where_tls_is(edge: Edge) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", edge.tls_port, timeout=20)
    with contextlib.closing(connection), pytest.raises((http.client.HTTPException, ConnectionError)):
        connection.request("GET", "/api/v1/accounts")
        connection.getresponse()


def test_there_are_only_so_many_connections(methods: Mapping[str, Method], certificates: Path, tmp_path: Path) -> None:
    with (
        contextlib.ExitStack() as crowd,
        running(tmp_path, certificates, server_ports(methods), MAX_CONNECTIONS="20") as edge,
    ):
        for _ in range(40):
            crowd.enter_context(socket.create_connection(("127.0.0.1", edge.port)))
        wait_until(lambda: edge.stat("http.edge.downstream_cx_active") == 20, "not 20 connections are open")
        with pytest.raises(httpx.TransportError):
            httpx.get(edge.url)
        assert edge.is_ready()
        assert edge.is_live()
        crowd.close()
        wait_until(lambda: edge.stat("http.edge.downstream_cx_active") == 0, "the connections are kept")
        assert httpx.get(edge.url).status_code == 404


def test_without_memory_it_refuses_and_can_still_be_asked_how_it_is(
    backend: Backend, certificates: Path, tmp_path: Path
) -> None:
    edge = rendered(tmp_path, certificates, server_ports(backend.methods), MEMORY="1000000")
    bootstrap = tmp_path / "bootstrap.yaml"
    settings = yaml.safe_load(bootstrap.read_text())
    kept = [one for one in settings["overload_manager"]["actions"] if not one["name"].endswith("connections")]
    settings["overload_manager"]["actions"] = kept
    bootstrap.write_text(yaml.safe_dump(settings))
    with started(edge):
        wait_until(edge.is_ready, "it is not ready")
        wait_until(lambda: httpx.get(edge.url).status_code == 503, "it takes requests")
        answer = httpx.get(f"{edge.url}/api/v1/accounts", headers=AUTHORIZED)
        assert (answer.status_code, reason_of(answer)) == (503, "SERVICE_UNAVAILABLE")
        assert answer.headers["retry-after"]
        assert edge.is_ready()
        with grpc.insecure_channel(f"127.0.0.1:{edge.port}") as channel, pytest.raises(grpc.RpcError) as refused:
            Channel(channel, backend).call("/payment.v1.AccountService/ListAccounts", [*AUTHORIZED.items()])
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
