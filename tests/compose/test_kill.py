"""What clients see while containers are killed under them, and that nothing is lost or done twice."""

import pytest

from tests.compose.project import Project
from tests.edge.people import People
from tests.traffic import books
from tests.traffic.customers import paying
from tests.waiting import wait_until

PAYING = {"pay", "pay again", "payment", "accounts"}
EVERYTHING = PAYING | {"profile"}
SUFFERS = {"payment": PAYING, "authz": EVERYTHING, "postgres": EVERYTHING}


@pytest.mark.parametrize("part", SUFFERS)
def test_what_is_killed_costs_documented_errors_where_it_is_needed(people: People, stack: Project, part: str) -> None:
    with paying(people) as customers:
        customers.do_well()
        with stack.without(part):
            customers.do_anything()
        customers.do_well()
    assert customers.errors
    assert {error.asked for error in customers.errors} <= SUFFERS[part]
    customers.check_errors()
    books.check(customers)


def test_clients_do_not_notice_that_nats_is_killed(people: People, stack: Project) -> None:
    with paying(people) as customers:
        customers.do_well()
        with stack.without("nats"):
            customers.do_well(10)
        customers.do_well()
    assert customers.errors == []
    books.check(customers)


def test_services_that_come_back_at_each_others_addresses_are_found(people: People, stack: Project) -> None:
    with paying(people) as customers:
        customers.do_well()
        with stack.without("user", "compliance", "document", "notification"):
            customers.do_anything()
        customers.do_well()
    customers.check_errors()
    books.check(customers)


def test_without_the_edge_nobody_is_answered_and_nothing_is_lost(people: People, stack: Project) -> None:
    with paying(people) as customers:
        customers.do_well()
        with stack.without("envoy"):
            customers.do_anything()
        customers.do_well()
    assert {error.status for error in customers.errors} <= {0, 503}
    books.check(customers)


def test_a_process_that_dies_is_started_again(people: People, stack: Project) -> None:
    payer, payee = people.payer(10), people.sign_up()
    payment = payer.pay(payee, 1).json()
    container = stack.container("payment")
    before = container.attrs["RestartCount"]
    container.exec_run(["python", "-c", "import os, signal; os.kill(-1, signal.SIGKILL)"])

    def was_restarted() -> bool:
        container.reload()
        return bool(container.attrs["RestartCount"] > before)

    wait_until(was_restarted, "it was not started again")
    stack.wait_until_ready(container)
    assert payer.settled(payment["id"])["state"] == "SETTLED"
