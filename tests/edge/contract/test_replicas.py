"""A service at several addresses: one that cannot be reached costs no request."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import grpc
import httpx
import pytest
from google.protobuf.message import Message

from scripts.stack import ports
from services.runtime.contract import Method
from tests.edge.contract.backend import Backend, serving
from tests.edge.contract.edge import AUTHORIZED, CONTRACT, running, server_ports
from tests.waiting import wait_until

LIST = "/payment.v1.AccountService/ListAccounts"


@pytest.mark.parametrize("service", ["payment", "authz"])
def test_what_a_replica_that_is_down_does_not_take_another_does(
    backend: Backend, certificates: Path, tmp_path: Path, service: str
) -> None:
    services = server_ports(backend.methods)
    down, also_down = ports.free(2, but=[*services.values()])
    ejected = f"cluster.{service}.outlier_detection.ejections_active"
    with serving(backend, certificates, services), running(tmp_path, certificates, services) as edge:
        edge.add_replicas(service, down, also_down)
        with httpx.Client(base_url=edge.url, headers=AUTHORIZED) as client:
            answers = {client.get("/api/v1/accounts").status_code for _ in range(30)}
            wait_until(lambda: edge.stat(ejected) == 0, "the replicas are not tried again")
        assert edge.stat(f"cluster.{service}.outlier_detection.ejections_enforced_total") >= 2
    assert answers == {200}


def test_the_last_replica_is_always_tried(certificates: Path, methods: Mapping[str, Method], tmp_path: Path) -> None:
    with running(tmp_path, certificates, server_ports(methods)) as edge:
        for _ in range(5):
            assert httpx.get(f"{edge.url}/api/v1/accounts", headers=AUTHORIZED).status_code == 503
        assert edge.stat("cluster.authz.outlier_detection.ejections_enforced_total") == 0
        assert edge.stat("cluster.authz.upstream_cx_connect_fail") > 5  # with what is tried again


def test_a_replica_is_not_passed_over_for_what_it_answers(
    methods: Mapping[str, Method], certificates: Path, tmp_path: Path
) -> None:
    services = server_ports(methods)
    good, bad = Backend(CONTRACT, methods), Backend(CONTRACT, methods)
    [other] = ports.free(1, but=[*services.values()])

    def refuse(context: grpc.ServicerContext) -> NoReturn:
        context.abort(grpc.StatusCode.UNAVAILABLE, "compliance is away")

    with (
        serving(good, certificates, services),
        serving(bad, certificates, {"payment": other}),
        running(tmp_path, certificates, services) as edge,
        httpx.Client(base_url=edge.url, headers=AUTHORIZED) as client,
    ):
        edge.add_replicas("payment", other)

        def has_refused_much() -> bool:
            client.get("/api/v1/accounts")
            return len(bad.calls) >= 60

        with bad.answering(LIST, refuse):
            wait_until(has_refused_much, "it is not asked")
            assert client.get("/api/v1/payments").status_code == 200
        assert edge.stat("cluster.payment.outlier_detection.ejections_enforced_total") == 0


def test_a_call_that_a_server_drops_as_it_stops_is_made_again(backend: Backend, client: httpx.Client) -> None:
    dropped = iter([True])

    def answer(context: grpc.ServicerContext) -> list[Message]:
        if next(dropped, False):
            context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")
        return [backend.message("payment.v1.Payment")]

    with backend.answering("/payment.v1.PaymentService/CreatePayment", answer):
        made = client.post(
            "/api/v1/payments", json={"payeeId": "usr_2"}, headers={**AUTHORIZED, "idempotency-key": "1"}
        )
    assert made.status_code == 200


def test_a_stream_waits_for_a_service_that_starts_anew_and_another_call_does_not(
    methods: Mapping[str, Method], certificates: Path, tmp_path: Path
) -> None:
    services = server_ports(methods)
    backend = Backend(CONTRACT, methods)
    authz = {"authz": services["authz"]}
    stream = "/api/v1/payments/pay_1/status"
    with (
        serving(backend, certificates, authz),
        running(tmp_path, certificates, services) as edge,
        ThreadPoolExecutor() as pool,
        httpx.Client(base_url=edge.url, headers=AUTHORIZED, timeout=20) as client,
    ):
        assert client.get("/api/v1/payments").status_code == 503
        waiting = pool.submit(client.get, stream)
        wait_until(lambda: edge.stat("cluster.payment.upstream_rq_retry") > 5, "the stream is not tried again")
        with serving(backend, certificates, {"payment": services["payment"]}):
            assert waiting.result().status_code == 200
