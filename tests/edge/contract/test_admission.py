"""The edge lets in as many requests as a service can carry out, and refuses the others before anybody is asked."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import httpx
import pytest
import yaml
from google.protobuf.message import Message

from services.runtime.contract import Method
from tests.edge.contract.backend import Backend, serving
from tests.edge.contract.edge import AUTHORIZED, CONTRACT, Edge, reason_of, running, server_ports
from tests.edge.contract.grpc_client import Channel
from tests.waiting import wait_until

LIST = "/payment.v1.AccountService/ListAccounts"
_ADMISSION = yaml.safe_load(Path("envoy/admission.yaml").read_text())["typed_config"]["gradient_controller_config"]
LEAST: int = _ADMISSION["min_rtt_calc_params"]["min_concurrency"]
"""What is let in of an edge that has just begun, and has seen nothing yet."""
PAYMENT = b'{"payeeId": "usr_2"}'


@dataclass
class Scene:
    """An edge, and services that let requests wait when they are told to."""

    edge: Edge
    backend: Backend
    client: httpx.Client
    go_on: threading.Event = field(default_factory=threading.Event)
    waiting: list[object] = field(default_factory=list)

    def ask(self, path: str = "/api/v1/accounts") -> httpx.Response:
        return self.client.get(path)

    @contextmanager
    def open(self, number: int, request: str) -> Iterator[list[socket.socket]]:
        """Has so many clients send this."""
        with ExitStack() as connections:
            address = ("127.0.0.1", self.edge.port)
            clients = [connections.enter_context(socket.create_connection(address)) for _ in range(number)]
            for one in clients:
                one.sendall(request.encode())
            yield clients

    @contextmanager
    def full(self) -> Iterator[None]:
        """Has as many requests wait as are let in. They are answered when they need not wait any more."""
        with self.backend.answering(LIST, self._wait), self.open(LEAST, _head("GET", "/api/v1/accounts")) as clients:
            try:
                wait_until(lambda: len(self.waiting) == LEAST, "they were not all let in")
                yield
            finally:
                self.go_on.set()
            assert {one.recv(12) for one in clients} == {b"HTTP/1.1 200"}

    def _wait(self, context: grpc.ServicerContext) -> Iterator[Message]:
        self.waiting.append(context)
        self.go_on.wait()
        yield self.backend.message("payment.v1.ListAccountsResponse")


def _head(verb: str, path: str, *more: str) -> str:
    lines = [f"{verb} {path} HTTP/1.1", "host: edge", f"authorization: {AUTHORIZED['authorization']}", *more]
    return "\r\n".join([*lines, "", ""])


@pytest.fixture
def scene(methods: Mapping[str, Method], certificates: Path, tmp_path: Path) -> Iterator[Scene]:
    backend, services = Backend(CONTRACT, methods), server_ports(methods)
    with (
        serving(backend, certificates, services, LEAST + 16),
        running(tmp_path, certificates, services) as edge,
        httpx.Client(base_url=edge.url, headers=AUTHORIZED, timeout=15) as client,
    ):
        yield Scene(edge, backend, client)


def test_what_is_more_than_can_be_carried_out_is_refused_before_anybody_is_asked(scene: Scene) -> None:
    with scene.full():
        checks = len(scene.backend.checks)
        refused = [scene.ask() for _ in range(30)]
        assert Counter((one.status_code, reason_of(one)) for one in refused) == {(503, "OVERLOADED"): 30}
        assert {one.headers["retry-after"] for one in refused} == {"1", "2", "3"}
        assert all(one.headers["x-request-id"] for one in refused)
        assert len(scene.backend.checks) == checks
    assert scene.ask().status_code == 200


def test_a_grpc_client_is_told_in_its_own_words(scene: Scene) -> None:
    with (
        scene.full(),
        grpc.insecure_channel(f"127.0.0.1:{scene.edge.port}") as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        Channel(channel, scene.backend).call(LIST, [*AUTHORIZED.items()])
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "There is more to do than can be done right now." in str(refused.value.details())


def test_other_services_and_streams_go_on(scene: Scene) -> None:
    with scene.full():
        assert scene.ask("/api/v1/users/me").status_code == 200
        assert scene.ask("/api/v1/payments/pay_1/status").status_code == 200


def test_a_connection_is_kept_when_a_request_on_it_is_refused(scene: Scene) -> None:
    headers = {"content-type": "application/json", "idempotency-key": "k"}
    with scene.full():
        answers = [scene.client.post("/api/v1/payments", content=PAYMENT, headers=headers) for _ in range(3)]
    assert [(one.status_code, one.headers.get("connection")) for one in answers] == [(503, None)] * 3


def test_those_whose_bodies_are_slow_take_no_room(scene: Scene) -> None:
    head = _head("POST", "/api/v1/payments", "content-type: application/json", f"content-length: {len(PAYMENT)}")
    with scene.open(LEAST + 10, head + "{") as slow:
        wait_until(lambda: scene.edge.stat("http.edge.downstream_rq_active") == len(slow), "they have not begun")
        assert scene.ask().status_code == 200


def test_it_lets_more_in_when_answers_are_fast(scene: Scene) -> None:
    def limit() -> int:
        return scene.edge.stat("http.edge.adaptive_concurrency.gradient_controller.concurrency_limit")

    def more() -> bool:
        assert scene.ask().status_code == 200
        return limit() > 2 * LEAST

    wait_until(more, "it lets no more in than in the beginning")
