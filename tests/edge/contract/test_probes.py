"""What the edge tells those who run it, and how it takes its leave."""

import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import grpc
import httpx
import pytest

from services.runtime.contract import Method
from tests.edge.contract.backend import Backend, serving
from tests.edge.contract.edge import AUTHORIZED, Edge, reason_of, rendered, running, server_ports, started
from tests.edge.contract.grpc_client import Channel
from tests.waiting import wait_until

RPC = "/payment.v1.AccountService/ListAccounts"


@pytest.fixture(scope="session")
def services(methods: Mapping[str, Method]) -> Mapping[str, int]:
    """A free port for each server."""
    return server_ports(methods)


@pytest.mark.parametrize("path", ["/ready", "/live"])
def test_an_edge_that_serves_is_ready_and_live(edge: Edge, path: str) -> None:
    assert edge.probe(path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/stats", "/quitquitquit", "/healthcheck/fail", "/ready/", "/drain/now"])
def test_nothing_else_can_be_asked(edge: Edge, path: str) -> None:
    answer = edge.probe(path)
    assert (answer.status_code, reason_of(answer)) == (404, "ROUTE_NOT_FOUND")


@pytest.mark.parametrize("path", ["/ready", "/live", "/drain"])
@pytest.mark.parametrize("method", ["POST", "HEAD", "DELETE"])
def test_a_probe_has_no_other_method(edge: Edge, method: str, path: str) -> None:
    assert httpx.request(method, f"http://127.0.0.1:{edge.probes_port}{path}").status_code == 404
    assert edge.probe("/ready").status_code == 200  # it does not drain


@pytest.mark.parametrize("path", ["/ready", "/live", "/drain"])
def test_the_world_has_no_probes(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("file", ["routes.yaml", "public_certificate.yaml"])
def test_without_a_part_of_its_configuration_it_is_live_and_not_ready(
    certificates: Path, services: Mapping[str, int], tmp_path: Path, file: str
) -> None:
    edge = rendered(tmp_path, certificates, services)
    (tmp_path / file).rename(tmp_path / "away")
    with started(edge):
        answer = edge.probe("/ready")
        assert (answer.status_code, reason_of(answer)) == (503, "SERVICE_UNAVAILABLE")
        assert edge.probe("/live").status_code == 200


def test_as_long_as_a_service_has_no_address_yet_it_is_live_and_not_ready(
    certificates: Path, services: Mapping[str, int], tmp_path: Path
) -> None:
    edge = rendered(tmp_path, certificates, services, USER_HOST="user.invalid")
    with started(edge):
        assert edge.probe("/ready").status_code == 503
        assert edge.probe("/live").status_code == 200


def test_while_it_drains_it_serves_on_and_sends_its_clients_away(
    backend: Backend, certificates: Path, services: Mapping[str, int], tmp_path: Path
) -> None:
    states: list[grpc.ChannelConnectivity] = []
    with (
        serving(backend, certificates, services),
        running(tmp_path, certificates, services, DRAIN_SECONDS="2") as edge,
        closing(HTTPConnection("127.0.0.1", edge.port)) as http1,
        grpc.insecure_channel(f"127.0.0.1:{edge.port}") as http2,
        ThreadPoolExecutor() as pool,
    ):
        http2.subscribe(states.append)
        assert ask(http1) == (200, "stays open")
        Channel(http2, backend).call(RPC, [*AUTHORIZED.items()])
        assert states[-1] is grpc.ChannelConnectivity.READY
        draining = pool.submit(edge.probe, "/drain")
        wait_until(lambda: edge.probe("/ready").status_code == 503, "it does not drain")
        assert edge.probe("/live").status_code == 200
        assert ask(http1) == (200, "is closed")
        assert ask(http1) == (200, "is closed")  # a new connection
        Channel(http2, backend).call(RPC, [*AUTHORIZED.items()])
        wait_until(lambda: states[-1] is grpc.ChannelConnectivity.IDLE, "there was no GOAWAY")
        assert not draining.done()
        assert draining.result().status_code == 200


def test_ending_one_of_two_edges_after_it_has_drained_loses_nothing(
    backend: Backend, certificates: Path, services: Mapping[str, int], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    answers: Counter[int] = Counter()
    over = threading.Event()
    with ExitStack() as all_day, ExitStack() as until_drained, ThreadPoolExecutor() as pool:
        all_day.enter_context(serving(backend, certificates, services))
        going = until_drained.enter_context(running(first, certificates, services, DRAIN_SECONDS="2"))
        staying = all_day.enter_context(running(second, certificates, services))
        all_day.callback(over.set)

        def ask_on_and_on() -> None:
            while not over.is_set():  # one connection after another, to an edge that says it is ready
                edge = going if going.is_ready() else staying
                with closing(HTTPConnection("127.0.0.1", edge.port, timeout=5)) as connection:
                    then = "stays open"
                    while then == "stays open" and not over.is_set():
                        status, then = ask(connection)
                        answers[status] += 1

        askers = [pool.submit(ask_on_and_on) for _ in range(4)]
        wait_until(lambda: going.stat("http.edge.downstream_cx_active") == len(askers), "nobody asks the first")
        assert going.probe("/drain").status_code == 200
        assert going.stat("http.edge.downstream_cx_active") == 0
        until_drained.close()
        asked = answers.total()
        wait_until(lambda: answers.total() > asked + 100, "the second does not answer")
        over.set()
        for asker in askers:
            asker.result()
    assert set(answers) == {200}


def ask(connection: HTTPConnection) -> tuple[int, str]:
    """Makes a request, and returns the status and what becomes of the connection."""
    connection.request("GET", "/api/v1/accounts", headers=AUTHORIZED)
    with connection.getresponse() as response:
        response.read()
        return response.status, "is closed" if response.will_close else "stays open"
