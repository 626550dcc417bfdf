"""That data, and what clients hold of it, outlives all containers."""

import pytest

from tests.compose.project import Project
from tests.edge.people import Json, People, Person, scan
from tests.waiting import wait_until

LISTS = ("/api/v1/users/me", "/api/v1/payments", "/api/v1/accounts", "/api/v1/documents", "/api/v1/notifications")


@pytest.mark.parametrize("by", ["restart", "down"])
def test_after_a_restart_of_everything_all_is_as_it_was(people: People, stack: Project, by: str) -> None:
    payer, payee, content = people.payer(10), people.sign_up(), scan()
    document = payer.read(payer.upload(content, "bill.png", "PROOF_OF_ADDRESS").json()["id"])
    first = payer.pay(payee, 1, key="before")
    payer.settled(first.json()["id"])
    wait_until(lambda: len(_told(payer)) == 4, "the payer was not told of both documents and of both states")
    before = _known_of(payer)

    stack.compose(by)
    stack.compose("up", "--detach", "--wait")

    assert _known_of(payer) == before
    assert payer.client.get(f"/api/v1/documents/{document['id']}/content").content == content
    assert payer.pay(payee, 1, key="before").content == first.content
    assert payer.settled(payer.pay(payee, 1, key="after").json()["id"])["state"] == "SETTLED"
    assert people.log_in(payer.id, payer.email, payer.password).client.get("/api/v1/users/me").status_code == 200


def _told(person: Person) -> list[Json]:
    notifications: list[Json] = person.client.get("/api/v1/notifications").raise_for_status().json()["notifications"]
    return notifications


def _known_of(person: Person) -> dict[str, bytes]:
    """Returns what the system says of somebody, asked with the token that they have had from the beginning."""
    return {path: person.client.get(path).raise_for_status().content for path in LISTS}
