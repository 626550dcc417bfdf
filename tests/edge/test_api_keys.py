"""API keys, through the real edge: a program acts for the user who made its key, until it may not any more."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.edge.contract.edge import reason_of
from tests.edge.people import Json, People, Person
from tests.edge.stack import Stack
from tests.waiting import wait_until

KEYS = "/api/v1/apiKeys"


def make(person: Person, **fields: Any) -> Json:
    """Makes a key."""
    made: Json = person.client.post(KEYS, json={"displayName": "cash desk", **fields}).raise_for_status().json()
    return made


def revoke(person: Person, key: Json) -> None:
    person.client.delete(f"{KEYS}/{key['id']}").raise_for_status()


def set_roles(people: People, person: Person, *roles: str) -> None:
    path = f"/api/v1/users/{person.id}?updateMask=roles"
    people.admin.client.patch(path, json={"roles": roles}).raise_for_status()


def set_state(people: People, person: Person, state: str) -> None:
    path = f"/api/v1/users/{person.id}?updateMask=state"
    people.admin.client.patch(path, json={"state": state}).raise_for_status()


def me(program: Person) -> httpx.Response:
    return program.client.get("/api/v1/users/me")


def wait_until_refused(program: Person) -> None:
    """Waits, much shorter than a key is cached for, until it is refused as one that never was."""
    wait_until(lambda: me(program).status_code == 401, "the key works still", seconds=10)
    refused = me(program)
    assert reason_of(refused) == "INVALID_API_KEY"
    assert refused.headers["www-authenticate"]


def test_a_program_pays_for_the_owner_of_its_key_until_the_key_is_revoked(people: People, stack: Stack) -> None:
    payer, payee = people.payer(100), people.sign_up("Grace Hopper")
    created = payer.client.post(KEYS, json={"displayName": "cash desk"})
    key = created.json()
    assert (created.status_code, created.headers["location"]) == (201, f"{KEYS}/{key['id']}")
    program = people.program(payer, key["key"])
    assert me(program).json()["id"] == payer.id
    paid = program.pay(payee, 40)
    assert paid.status_code == 201
    assert program.settled(paid.json()["id"])["payerId"] == payer.id

    listed = payer.client.get(KEYS)
    assert [one["id"] for one in listed.json()["apiKeys"]] == [key["id"]]
    assert key["key"] not in listed.text + payer.client.get(f"{KEYS}/{key['id']}").text

    def is_used() -> bool:
        return bool(payer.client.get(f"{KEYS}/{key['id']}").json().get("lastUseTime"))

    wait_until(is_used, "nobody noted that the key was used")
    revoke(payer, key)
    wait_until_refused(program)
    assert payer.client.get(f"{KEYS}/{key['id']}").status_code == 404
    assert payer.client.get(KEYS).json()["apiKeys"] == []
    last = me(program)
    stack.wait_until_logged("envoy", created, last)
    for process in ("envoy", "authz", "user", "payment", "notification", "compliance", "nats", "postgres"):
        assert key["key"] not in stack.log(process)


def test_a_key_is_good_for_its_roles_only(people: People) -> None:
    officer, somebody = people.officer(), people.sign_up()
    as_customer = people.program(officer, make(officer)["key"])
    as_officer = people.program(officer, make(officer, roles=["officer"])["key"])
    assert reason_of(as_customer.client.get(f"/api/v1/users/{somebody.id}")) == "NOT_THE_OWNER"
    assert as_officer.client.get(f"/api/v1/users/{somebody.id}").json()["id"] == somebody.id
    too_much = officer.client.post(KEYS, json={"displayName": "x", "roles": ["admin"]})
    assert (too_much.status_code, reason_of(too_much)) == (403, "ROLE_NOT_HELD")

    set_roles(people, officer, "customer")

    def is_refused() -> bool:
        return as_officer.client.get(f"/api/v1/users/{somebody.id}").status_code == 403

    wait_until(is_refused, "the key has a role that its owner lost", seconds=10)
    assert me(as_officer).status_code == 200
    assert me(as_customer).status_code == 200


def test_a_key_stops_working_when_its_time_has_come(people: People) -> None:
    owner = people.sign_up()
    until = datetime.now(UTC) + timedelta(seconds=4)
    key = make(owner, expireTime=until.isoformat())
    program = people.program(owner, key["key"])
    answer = me(program)
    assert answer.status_code == 200 or datetime.now(UTC) > until
    wait_until_refused(program)
    assert datetime.now(UTC) >= until
    assert owner.client.get(KEYS).json()["apiKeys"] == []


def test_the_keys_of_a_suspended_owner_do_not_work_until_they_are_active_again(people: People) -> None:
    owner = people.sign_up()
    program = people.program(owner, make(owner)["key"])
    assert me(program).status_code == 200
    set_state(people, owner, "SUSPENDED")
    wait_until_refused(program)
    set_state(people, owner, "ACTIVE")
    wait_until(lambda: me(program).status_code == 200, "the key does not work again")


def test_a_program_cannot_do_what_is_for_people(people: People) -> None:
    owner = people.sign_up()
    key = make(owner)
    program = people.program(owner, key["key"])
    for attempt in (
        program.client.post(KEYS, json={"displayName": "another"}),
        program.client.delete(f"{KEYS}/{key['id']}"),
        program.client.patch("/api/v1/users/me", json={"address": "1 Square"}),
        program.client.delete("/api/v1/sessions/current"),
        program.client.post("/api/v1/webhooks", json={"url": "https://example.com/hook"}),
        program.client.patch("/api/v1/webhooks/whk_1", json={"url": "https://example.com/hook"}),
        program.client.post("/api/v1/webhooks/whk_1:rotateSecret", json={}),
    ):
        assert (attempt.status_code, reason_of(attempt)) == (403, "PERSON_REQUIRED")
    assert [one["id"] for one in program.client.get(KEYS).json()["apiKeys"]] == [key["id"]]


def test_a_stream_ends_with_the_key_that_opened_it(people: People) -> None:
    owner = people.sign_up()
    key = make(owner)
    program = people.program(owner, key["key"])
    with program.client.stream("GET", "/api/v1/payments/events") as feed:
        lines = feed.iter_lines()
        assert next(lines).startswith("retry")
        revoke(owner, key)
        [told] = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert json.loads(told)["details"][0]["reason"] == "SESSION_ENDED"
    wait_until_refused(program)


def test_somebody_elses_key_is_not_there(people: People) -> None:
    owner, other = people.sign_up(), people.sign_up()
    key = make(owner)
    for attempt in (other.client.get(f"{KEYS}/{key['id']}"), other.client.delete(f"{KEYS}/{key['id']}")):
        assert (attempt.status_code, reason_of(attempt)) == (404, "API_KEY_NOT_FOUND")
    assert me(people.program(owner, key["key"])).status_code == 200
