"""How often a client may ask: by address before anybody is asked who it is, by user after that."""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from itertools import count
from pathlib import Path

import grpc
import httpx
import pytest
import yaml

from services.runtime import contract
from services.runtime.contract import RateClass
from tests.edge.contract.backend import serving
from tests.edge.contract.crowd import Client, Crowd, client
from tests.edge.contract.edge import CONTRACT, Edge, reason_of, rendered, server_ports, started
from tests.edge.contract.grpc_client import Channel
from tests.waiting import wait_until

BY_ADDRESS, BY_USER = 8, 4
HOUR = 3600
"""In which so many requests of every class come back: none while a test runs."""
OF_CLASS: dict[RateClass, str] = {
    "login": "/user.v1.PasswordService/ChangePassword",
    "write": "/payment.v1.PaymentService/CreatePayment",
    "read": "/payment.v1.PaymentService/GetPayment",
    "stream": "/payment.v1.PaymentService/WatchPayment",
    "upload": "/document.v1.DocumentService/UploadDocument",
}
READ, ALSO_READ, WRITE = OF_CLASS["read"], "/payment.v1.InvoiceService/GetInvoice", OF_CLASS["write"]
PUBLIC = "/user.v1.SessionService/CreateSession"
Join = Callable[[], AbstractContextManager[Client]]
User = Callable[[], str]


@pytest.fixture(scope="module")
def crowd() -> Crowd:
    """What is behind the edge."""
    return Crowd(CONTRACT, contract.load(CONTRACT))


@pytest.fixture(scope="module")
def limited(crowd: Crowd, certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """An edge with production's limits, but for the numbers."""
    services = server_ports(crowd.methods)
    edge = rendered(tmp_path_factory.mktemp("limited"), certificates, services, LIMITS="production")
    _lower(edge.folder / "listeners.yaml")
    with serving(crowd, certificates, services), started(edge):
        wait_until(edge.is_ready, "Envoy is not ready")
        yield edge


def _lower(path: Path) -> None:
    listeners = yaml.safe_load(path.read_text())
    filters = listeners["resources"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    for name, number in (("limits_by_address", BY_ADDRESS), ("limits_by_user", BY_USER)):
        [limits] = [one["typed_config"] for one in filters if one["name"] == name]
        assert len(limits["descriptors"]) == len(OF_CLASS)
        for descriptor in limits["descriptors"]:
            descriptor["token_bucket"] = {
                "max_tokens": number,
                "tokens_per_fill": number,
                "fill_interval": f"{HOUR}s",
            }
    path.write_text(yaml.safe_dump(listeners))


@pytest.fixture
def join(limited: Edge, crowd: Crowd) -> Join:
    """Opens clients, each at an address of its own."""
    return partial(client, limited, crowd)


@pytest.fixture(scope="module")
def user() -> User:
    """Names users, no two alike."""
    numbers = count(1)
    return lambda: f"usr_{next(numbers)}"


def statuses(*answers: httpx.Response) -> list[int]:
    return [answer.status_code for answer in answers]


def is_refusal(answer: httpx.Response) -> bool:
    return answer.status_code == httpx.codes.TOO_MANY_REQUESTS and reason_of(answer) == "RATE_LIMITED"


@pytest.mark.parametrize("rate_class", OF_CLASS)
def test_an_address_may_do_so_much_of_each_class(join: Join, user: User, rate_class: RateClass) -> None:
    with join() as one, join() as other:
        assert {one.call(OF_CLASS[rate_class], user()).is_success for _ in range(BY_ADDRESS)} == {True}
        assert is_refusal(one.call(OF_CLASS[rate_class], user()))
        assert other.call(OF_CLASS[rate_class], user()).is_success
        assert {one.call(rpc, user()).is_success for name, rpc in OF_CLASS.items() if name != rate_class} == {True}


@pytest.mark.parametrize("rate_class", OF_CLASS)
def test_a_user_may_do_so_much_of_each_class_wherever_from(join: Join, user: User, rate_class: RateClass) -> None:
    someone = user()
    for _ in range(BY_USER):
        with join() as client:
            assert client.call(OF_CLASS[rate_class], someone).is_success
    with join() as client:
        assert is_refusal(client.call(OF_CLASS[rate_class], someone))
        assert client.call(OF_CLASS[rate_class], user()).is_success
        assert {client.call(rpc, someone).is_success for name, rpc in OF_CLASS.items() if name != rate_class} == {True}


def test_an_address_that_asked_too_often_is_refused_before_anybody_is_asked_who_it_is(join: Join, crowd: Crowd) -> None:
    with join() as client:
        while client.call(PUBLIC).is_success:
            pass
        crowd.checks.clear()
        assert is_refusal(client.call(PUBLIC))
        assert crowd.checks == []


def test_what_a_user_asks_too_often_reaches_no_service(join: Join, user: User, crowd: Crowd) -> None:
    someone = user()
    with join() as client:
        while client.call(WRITE, someone).is_success:
            pass
        crowd.calls.clear()
        assert is_refusal(client.call(WRITE, someone))
        assert crowd.calls == []


def test_all_methods_of_a_class_are_counted_together_and_those_that_are_none(join: Join, user: User) -> None:
    with join() as client:
        for _ in range(BY_ADDRESS // 4):
            answers = [
                client.call(READ, user()),
                client.call(ALSO_READ, user()),
                client.ask("GET", "/api/v1/nowhere"),
                client.ask("PUT", "/api/v1/payments/pay_1"),
            ]
            assert statuses(*answers) == [200, 200, 404, 405]
        assert is_refusal(client.ask("GET", "/api/v1/nowhere"))
        assert is_refusal(client.ask("PUT", "/api/v1/payments/pay_1"))
        assert is_refusal(client.call(READ, user()))


def test_a_preflight_costs_nothing(join: Join) -> None:
    asked = {"origin": "http://localhost:3000", "access-control-request-method": "GET"}
    with join() as client:
        for _ in range(BY_ADDRESS + 1):
            answer = client.ask("OPTIONS", "/api/v1/payments/pay_1", asked)
            assert "access-control-allow-origin" in answer.headers
            assert answer.status_code == httpx.codes.OK


def test_whoever_is_refused_for_want_of_a_token_is_counted(join: Join) -> None:
    with join() as client:
        assert statuses(*(client.call(READ) for _ in range(BY_ADDRESS + 1))) == [401] * BY_ADDRESS + [429]


@pytest.mark.parametrize(
    "header",
    ["x-forwarded-for", "x-real-ip", "forwarded", "true-client-ip", "x-envoy-external-address", "x-user-id"],
)
def test_a_client_cannot_say_that_it_is_another(join: Join, user: User, header: str) -> None:
    with join() as client:
        for number in range(BY_ADDRESS):
            assert client.call(READ, user(), {header: f"10.1.2.{number}"}).is_success
        assert is_refusal(client.call(READ, user(), {header: "10.1.2.99"}))


def test_many_others_do_not_make_the_edge_forget_anybody(join: Join, user: User) -> None:
    someone = user()
    with join() as client:
        while client.call(READ, someone).is_success:
            pass
        for _ in range(100):
            with join() as other:
                assert other.call(READ, user()).is_success
        assert is_refusal(client.call(READ, someone))


def test_grpc_and_rest_are_counted_together(limited: Edge, crowd: Crowd) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{limited.port}") as connection:
        channel = Channel(connection, crowd)
        for _ in range(BY_ADDRESS - 1):
            channel.call(PUBLIC, [])
        assert httpx.post(f"{limited.url}/api/v1/sessions", json={}).is_success
        with pytest.raises(grpc.RpcError) as refused:
            channel.call(PUBLIC, [])
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert refused.value.details() == "There are too many requests; try again later."
    [seconds] = [one.value for one in refused.value.trailing_metadata() if one.key == "retry-after"]
    assert int(seconds) >= 1
    assert is_refusal(httpx.post(f"{limited.url}/api/v1/sessions", json={}))


def test_every_answer_says_what_is_left_and_a_request_is_counted_once(join: Join, user: User) -> None:
    someone = user()
    with join() as client:
        answers = [client.call(WRITE, someone) for _ in range(BY_USER)]
        public = client.call(PUBLIC)
        unknown = client.ask("GET", "/api/v1/nowhere")
    left = [re.findall(r'"([\w-]+)";r=(\d+);t=[1-9]\d*', answer.headers["ratelimit"]) for answer in answers]
    assert left == [
        [("write", f"{BY_USER - number}"), ("write-address", f"{BY_ADDRESS - number}")]
        for number in range(1, BY_USER + 1)
    ]
    assert answers[0].headers["ratelimit-policy"] == f'"write";q={BY_USER};w=60, "write-address";q={BY_ADDRESS};w=60'
    assert public.headers["ratelimit-policy"] == f'"login-address";q={BY_ADDRESS};w=60'
    assert unknown.headers["ratelimit-policy"] == f'"read-address";q={BY_ADDRESS};w=60'
    assert not [name for answer in (*answers, public, unknown) for name in answer.headers if name.startswith("x-rate")]


def test_a_refusal_says_when_to_try_again_and_pages_may_read_it(join: Join, user: User) -> None:
    someone = user()
    page = {"origin": "http://localhost:3000"}
    with join() as client:
        while (answer := client.call(WRITE, someone, page)).is_success:
            pass
    seconds = int(answer.headers["retry-after"])
    assert 1 <= seconds <= HOUR / BY_USER
    assert answer.headers["ratelimit"].startswith(f'"write";r=0;t={seconds}, "write-address";r=')
    exposed = answer.headers["access-control-expose-headers"].split(",")
    assert {"retry-after", "ratelimit", "ratelimit-policy"} <= {name.strip() for name in exposed}
