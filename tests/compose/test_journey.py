"""The journeys that the native stack is tested with, over the ports that compose publishes: by http and by https."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from payment.v1 import payment_pb2, payment_pb2_grpc

from tests.compose.project import Project
from tests.edge.people import People

# pytest collects these here too, with the fixtures of this folder.
from tests.edge.test_documents import (  # noqa: F401
    test_a_document_comes_back_as_it_was_and_is_gone_when_deleted,
)
from tests.edge.test_journey import (  # noqa: F401
    test_a_payment_from_sign_up_to_settlement,
    test_a_stream_that_is_finished_answers_204_and_a_broken_one_resumes,
    test_over_tls_the_same_edge_answers,
    test_the_same_rpcs_are_there_for_grpc_clients,
)


@pytest.fixture(scope="module", params=["http", "https"])
def people(stack: Project, request: pytest.FixtureRequest) -> Iterator[People]:
    """Users of one of the two published ports."""
    with ExitStack() as clients:
        yield People(stack if request.param == "http" else replace(stack, edge_url=stack.edge_tls_url), clients)


def test_grpc_clients_are_served_over_tls_as_well(people: People, stack: Project) -> None:
    payer, payee = people.payer(10), people.sign_up()
    payment = payer.pay(payee, 1).json()
    trust = grpc.ssl_channel_credentials(Path(stack.edge_ca).read_bytes())
    with grpc.secure_channel(stack.edge_tls_url.removeprefix("https://"), trust) as channel:
        watched = payment_pb2_grpc.PaymentServiceStub(channel).WatchPayment(
            payment_pb2.WatchPaymentRequest(payment_id=payment["id"]),
            metadata=(("authorization", payer.client.headers["authorization"]),),
        )
        assert [event.state for event in watched] == [payment_pb2.Payment.AUTHORIZED, payment_pb2.Payment.SETTLED]
