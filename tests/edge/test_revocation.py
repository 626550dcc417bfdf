"""What ended before its time gets nobody in any more, at whichever of two authz the edge asks, restarted or not."""

import os
import subprocess
from collections.abc import Callable, Iterator

import httpx
import jwt
import pytest

from scripts.stack.processes import services
from tests.edge.contract.edge import reason_of
from tests.edge.people import People, Person
from tests.edge.replica import second_replica
from tests.edge.stack import Stack
from tests.waiting import wait_until

ASKED = 6
"""So often that both authz are asked: the edge asks them in turn."""


@pytest.fixture(scope="module")
def _two(stack: Stack) -> Iterator[None]:
    with second_replica(stack, "authz"):
        yield


pytestmark = pytest.mark.usefixtures("_two")


def answers(person: Person) -> set[str]:
    """What somebody is told, as often as it takes for both authz to say it: reasons, or `200`."""
    return {_said(person.client.get("/api/v1/users/me")) for _ in range(ASKED)}


def _said(response: httpx.Response) -> str:
    return "200" if response.status_code == httpx.codes.OK else reason_of(response)


def wait_until_refused(person: Person, reason: str) -> None:
    wait_until(lambda: answers(person) == {reason}, f"somebody is not told {reason}", seconds=10)


def suspended(people: People, person: Person) -> None:
    people.admin.client.patch(
        f"/api/v1/users/{person.id}?updateMask=state", json={"state": "SUSPENDED"}
    ).raise_for_status()


def stripped(people: People, person: Person) -> None:
    people.admin.client.patch(
        f"/api/v1/users/{person.id}?updateMask=roles", json={"roles": ["customer"]}
    ).raise_for_status()


def logged_out(_: People, person: Person) -> None:
    person.client.delete("/api/v1/sessions/current").raise_for_status()


@pytest.mark.parametrize("end", [logged_out, suspended, stripped])
def test_a_session_that_ended_is_refused_by_all_and_after_a_restart(
    people: People, stack: Stack, end: Callable[[People, Person], None]
) -> None:
    person, other = people.officer(), people.sign_up()
    assert answers(person) == answers(other) == {"200"}
    end(people, person)
    wait_until_refused(person, "SESSION_ENDED")
    stack.kill("authz")
    wait_until(lambda: answers(other) == {"200"}, "others do not get in after a restart")
    assert answers(person) == {"SESSION_ENDED"}


def test_a_session_that_ended_stays_so_while_nats_is_away(people: People, stack: Stack) -> None:
    person, other = people.sign_up(), people.sign_up()
    logged_out(people, person)
    wait_until_refused(person, "SESSION_ENDED")
    with stack.without("nats"):
        assert answers(person) == {"SESSION_ENDED"}
        assert answers(other) == {"200"}


def test_a_revoked_key_is_refused_by_all_and_the_next_session_of_its_owner_is_not(people: People) -> None:
    owner = people.sign_up()
    made = owner.client.post("/api/v1/apiKeys", json={"displayName": "shop"}).raise_for_status().json()
    program = people.program(owner, made["key"])
    assert answers(program) == {"200"}
    owner.client.delete(f"/api/v1/apiKeys/{made['id']}").raise_for_status()
    wait_until_refused(program, "INVALID_API_KEY")
    assert answers(owner) == {"200"}


def test_a_signing_key_that_leaked_is_revoked_by_a_command_and_all_its_tokens_with_it(
    people: People, stack: Stack
) -> None:
    person = people.sign_up()
    token = person.client.headers["authorization"].removeprefix("Bearer ")
    kid = jwt.get_unverified_header(token)["kid"]
    user = next(process for process in services(stack.settings) if process.name == "user")
    command = [user.command[0], "-m", "services.user.rotate", "--revoke"]
    environment = {**os.environ, **user.environment}
    subprocess.run([*command, kid], cwd=user.directory, env=environment, check=True)
    wait_until_refused(person, "INVALID_TOKEN")

    def can_log_in() -> bool:
        return answers(people.log_in(person.id, person.email, person.password)) == {"200"}

    wait_until(can_log_in, "nobody can log in after a key was revoked")
    keys = people.nobody.get("/.well-known/jwks.json").raise_for_status().json()["keys"]
    assert kid not in {key["kid"] for key in keys}
    unknown = subprocess.run(
        [*command, kid], cwd=user.directory, env=environment, capture_output=True, text=True, check=False
    )
    assert (unknown.returncode, unknown.stderr.splitlines()[-1]) == (1, f"There is no signing key {kid}")
