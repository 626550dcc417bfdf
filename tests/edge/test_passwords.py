"""Passwords through the real edge: changed, reset by a mailed code, and not guessed at."""

import re
import secrets
from contextlib import suppress
from pathlib import Path

import httpx

from tests.edge.contract.edge import reason_of
from tests.edge.people import People, Person
from tests.edge.stack import Stack
from tests.integration.mailbox import Mailbox
from tests.waiting import wait_until

CODE = re.compile(r"[0-9A-HJKMNP-TV-Z]{5}-[0-9A-HJKMNP-TV-Z]{5}")
FREE = 10
"""How many guesses the native stack lets pass: LOGIN_FAILURES_PER_ACCOUNT."""


def mailed(mails: Mailbox, email: str, subject: str) -> list[str]:
    """The texts of the mails to somebody, without their line breaks."""
    messages = [mail.message for mail in list(mails.mails) if mail.recipient == email]
    return [" ".join(str(one.get_content()).split()) for one in messages if one["Subject"] == subject]


def wait_for(mails: Mailbox, email: str, subject: str) -> str:
    """Waits for a mail, and returns its text."""
    wait_until(lambda: bool(mailed(mails, email, subject)), f"nobody mailed: {subject}")
    return mailed(mails, email, subject)[-1]


def ask(people: People, email: str) -> httpx.Response:
    return people.nobody.post("/api/v1/passwords:requestReset", json={"email": email})


def reset(people: People, email: str, code: str, password: str) -> httpx.Response:
    body = {"email": email, "code": code, "newPassword": password}
    return people.nobody.post("/api/v1/passwords:reset", json=body)


def change(person: Person, current: str, new: str) -> httpx.Response:
    body = {"currentPassword": current, "newPassword": new}
    return person.client.post("/api/v1/passwords:change", json=body)


def log_in(people: People, email: str, password: str) -> httpx.Response:
    return people.nobody.post("/api/v1/sessions", json={"email": email, "password": password})


def wait_until_out(person: Person) -> None:
    """Waits until a token is refused."""
    wait_until(lambda: person.client.get("/api/v1/users/me").status_code == 401, "the session goes on")


def test_a_forgotten_password_is_reset_by_a_mailed_code_that_is_nowhere_else(
    people: People, stack: Stack, mails: Mailbox
) -> None:
    person, new = people.sign_up(), secrets.token_urlsafe(18)
    assert ask(people, person.email).status_code == 204
    [code] = CODE.findall(wait_for(mails, person.email, "Password reset requested"))
    assert reset(people, person.email, code, new).status_code == 204

    wait_until_out(person)
    assert reason_of(log_in(people, person.email, person.password)) == "INVALID_CREDENTIALS"
    again = people.log_in(person.id, person.email, new)
    used = reset(people, person.email, code, f"{new}!")
    assert (used.status_code, reason_of(used)) == (401, "INVALID_RESET_CODE")
    assert "If it was not you" in wait_for(mails, person.email, "Password changed")
    [told] = again.client.get("/api/v1/notifications").json()["notifications"]
    assert told["kind"] == "PASSWORD_CHANGED"

    secret = [code, code.replace("-", ""), person.password, new]
    assert not traces(stack.settings.folder.path, *secret, *(one.encode().hex() for one in secret))
    assert traces(stack.settings.folder.path, person.id, person.email)  # so one would have been seen


def traces(folder: Path, *texts: str) -> list[tuple[Path, str]]:
    """Where one of these texts is: in a log, a database with its journal, a stream of NATS..."""
    found: list[tuple[Path, str]] = []
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):  # a temporary one
            content = path.read_bytes() if path.is_file() else b""
            found += ((path, text) for text in texts if text.encode() in content)
    return found


def test_a_changed_password_ends_the_other_sessions_and_not_this_one(people: People) -> None:
    person, new = people.sign_up(), secrets.token_urlsafe(18)
    other = people.log_in(person.id, person.email, person.password)
    wrong = change(person, "wrong", new)
    assert (wrong.status_code, reason_of(wrong)) == (403, "WRONG_PASSWORD")
    short = change(person, person.password, "short")
    assert (short.status_code, short.json()["details"][1]["fieldViolations"][0]["field"]) == (400, "newPassword")
    assert change(person, person.password, new).status_code == 204
    wait_until_out(other)
    assert person.client.get("/api/v1/users/me").status_code == 200
    assert log_in(people, person.email, new).status_code == 201
    assert reason_of(change(people.log_in(person.id, person.email, new), person.password, new)) == "WRONG_PASSWORD"


def test_whoever_guesses_has_to_wait_and_nobody_learns_who_is_a_user(people: People) -> None:
    person = people.sign_up()
    for email in (person.email, f"{secrets.token_hex(8)}@example.com"):
        guesses: list[httpx.Response] = []
        while not guesses or guesses[-1].status_code == 401:
            guesses.append(log_in(people, email, "wrong"))
        assert len(guesses) > FREE
        assert {reason_of(guess) for guess in guesses[:-1]} == {"INVALID_CREDENTIALS"}
        assert (guesses[-1].status_code, reason_of(guesses[-1])) == (429, "TOO_MANY_ATTEMPTS")
        assert int(guesses[-1].headers["retry-after"]) >= 1
        assert ask(people, email).status_code == 204
    wait_until(lambda: log_in(people, person.email, person.password).status_code == 201, "the wait does not end")


def test_nobody_from_outside_gets_a_code(people: People) -> None:
    for person in (people.nobody, people.admin.client):
        answer = person.post("/user.v1.PasswordService/GetPasswordReset", json={"resetId": "pwd_1"})
        assert (answer.status_code, reason_of(answer)) == (404, "ROUTE_NOT_FOUND")
