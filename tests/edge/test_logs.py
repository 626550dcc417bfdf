"""The logs of all processes after a day with everything in it: nobody learns a secret from them, or who anybody is."""

import base64
import json
import secrets
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import httpx
import psycopg
import pytest

from scripts.specimens import specimen
from tests.edge.contract.edge import reason_of
from tests.edge.people import BORN, People, Person, scan
from tests.edge.stack import Stack
from tests.edge.test_passwords import CODE, ask, change, reset, wait_for
from tests.edge.traces import Values, forms_of
from tests.integration.mailbox import Mailbox
from tests.traffic.receiver import receiving
from tests.waiting import wait_until

GIVEN, LAST = "Zephyrine", "Quillfeather"
NAME = f"{GIVEN} {LAST}"


@contextmanager
def database(stack: Stack, service: str) -> Iterator[psycopg.Connection]:
    """A service's database, for its owner."""
    socket = str(stack.settings.folder.sockets)
    with psycopg.connect(host=socket, user=service, dbname=service, autocommit=True) as connection:
        yield connection


class Day:
    """What somebody does all day. Whatever is secret or personal of it is noted."""

    def __init__(self, people: People, stack: Stack, values: Values) -> None:
        self.people = people
        self.stack = stack
        self.values = values
        self.answers: list[httpx.Response] = []
        """Of which the logs must have lines."""

    def sends(self, answer: httpx.Response, *statuses: int) -> httpx.Response:
        """Notes an answer, which has one of these statuses."""
        assert answer.status_code in (statuses or (200, 201, 204)), answer.text
        self.answers.append(answer)
        return answer

    def profile(self, **fields: object) -> dict[str, object]:
        """Who signs up, with an address of their own."""
        email = self.values.add(f"e-mail {secrets.token_hex(2)}", f"{secrets.token_hex(8)}@mail.example")
        password = self.values.add(f"password of {email}", secrets.token_urlsafe(18))
        self.values.add("address", "17 Hobbledehoy Lane")
        return {
            "email": email,
            "password": password,
            "displayName": NAME,
            "country": "DE",
            "dateOfBirth": BORN,
            "address": "17 Hobbledehoy Lane",
            **fields,
        }

    def signs_up(self) -> Person:
        """Signs up and logs in, at first with a wrong password."""
        nobody, profile = self.people.nobody, self.profile()
        user_id = self.sends(nobody.post("/api/v1/users", json=profile)).json()["id"]
        self.sends(nobody.post("/api/v1/users", json=profile), 409)
        credentials = {
            "email": profile["email"],
            "password": self.values.add("wrong password", "correct-horse-battery"),
        }
        self.sends(nobody.post("/api/v1/sessions", json=credentials), 401)
        credentials["password"] = str(profile["password"])
        tokens = self.sends(nobody.post("/api/v1/sessions", json=credentials)).json()
        refreshed = nobody.post("/api/v1/sessions:refresh", json={"refreshToken": tokens["refreshToken"]})
        for number, one in enumerate((tokens, self.sends(refreshed).json())):
            self.tokens(number, one)
        used = nobody.post("/api/v1/sessions:refresh", json={"refreshToken": tokens["refreshToken"]})
        self.sends(used, 401)
        person = self.people.log_in(user_id, str(profile["email"]), str(profile["password"]))
        self.values.add("access token", person.client.headers["authorization"].removeprefix("Bearer "))
        return person

    def tokens(self, number: int, tokens: dict[str, str]) -> None:
        """Notes a session's tokens, and what makes them work."""
        self.values.add(f"access token {number}", tokens["accessToken"])
        self.values.add(f"signature {number}", tokens["accessToken"].rpartition(".")[2])
        self.values.add(f"refresh token {number}", tokens["refreshToken"])

    def identifies(self, person: Person) -> None:
        """Uploads a passport, and what is none."""
        number = self.values.add("number of the passport", f"{secrets.randbelow(10**9):09}")
        page = specimen("TD3", NAME, date(**BORN), number=number)
        for place, line in enumerate(page.lines):
            self.values.add(f"line {place} of the passport", line)
        self.values.add("file's beginning", base64.b64encode(page.content[200:230]).decode())
        name = self.values.add("file's name", "the-quillfeathers-at-home.png")
        document = self.sends(person.upload(page.content, name)).json()
        person.read(document["id"])
        path = f"/api/v1/documents/{document['id']}"
        self.sends(person.client.get(f"{path}/content"))
        self.sends(person.client.post(f"{path}:verify", json={}))
        person.read(document["id"])
        another = self.sends(person.upload(specimen("TD3", "Grace Hopper", date(**BORN)).content)).json()
        person.read(another["id"])
        self.sends(person.upload(b"GIF89a " + NAME.encode() * 20), 415)
        self.sends(person.upload(scan() + bytes(26 * 1024 * 1024)), 413)

    def is_told(self, person: Person) -> None:
        """Has a telephone, a device, and webhooks: one that works, and one that is away."""
        preferences = {
            "phoneNumber": self.values.add("phone number", "+4915199887766"),
            "pushToken": self.values.add("push token", secrets.token_urlsafe(24)),
        }
        self.sends(person.client.patch("/api/v1/notifications/preferences", json=preferences))
        with receiving() as (url, _):
            away = f"http://127.0.0.1:1/{self.values.add('path of a webhook', secrets.token_urlsafe(12))}"
            for one in (url, f"{away}?key={self.values.add('key of a webhook', secrets.token_urlsafe(12))}"):
                made = self.sends(person.client.post("/api/v1/webhooks", json={"url": one})).json()
                self.values.add(f"secret of {made['id']}", made["secret"].removeprefix("whsec_"))
            rotated = self.sends(person.client.post(f"/api/v1/webhooks/{made['id']}:rotateSecret", json={})).json()
            self.values.add("rotated secret", rotated["secret"].removeprefix("whsec_"))
            wrong = person.client.post("/api/v1/webhooks", json={"url": f"ftp://{LAST}:{away[-16:]}@host"})
            self.sends(wrong, 400)
            self.pays(person)
            path = f"/api/v1/webhooks/{made['id']}/deliveries"

            def tried() -> bool:
                return any(one["attempts"] for one in person.client.get(path).json()["deliveries"])

            wait_until(tried, "nobody tries the webhook that is away")

    def pays(self, person: Person) -> None:
        """Gets money, spends it, watches it with the token in the query, and has some of it back."""
        payee = self.people.sign_up()
        self.sends(self.people.deposit(person, 100))
        wait_until(lambda: person.client.get("/api/v1/kyc/me").json()["state"] == "VERIFIED", "KYC is not passed")
        description = self.values.add("description", "for the Quibblewort affair")
        body = {"payeeId": payee.id, "amount": {"currencyCode": "EUR", "units": "5"}, "description": description}
        key = {"idempotency-key": self.values.add("idempotency key", secrets.token_urlsafe(24))}
        payment = self.sends(person.client.post("/api/v1/payments", json=body, headers=key)).json()
        person.settled(payment["id"])
        self.sends(person.client.post("/api/v1/payments", json=body | {"description": "x"}, headers=key), 422)
        token = {"access_token": person.client.headers["authorization"].removeprefix("Bearer ")}
        path = f"/api/v1/payments/{payment['id']}"
        self.sends(self.people.nobody.get(f"{path}/status", params=token | {"afterSequence": "0"}))
        refund = payee.client.post(f"{path}:refund", json={}, headers={"idempotency-key": secrets.token_hex()})
        self.sends(refund)

    def uses_a_key(self, person: Person) -> None:
        """Makes an API key and uses it, also after it was revoked."""
        made = self.sends(person.client.post("/api/v1/apiKeys", json={"displayName": "till of Quibblewort"})).json()
        self.values.add("API key", made["key"])
        self.values.add("API key's secret", made["key"].rpartition("_")[2])
        program = self.people.program(person, made["key"])
        self.sends(program.client.get("/api/v1/users/me"))
        self.sends(person.client.delete(f"/api/v1/apiKeys/{made['id']}"))
        wait_until(lambda: program.client.get("/api/v1/users/me").status_code == 401, "the key works still")

    def changes_the_password(self, person: Person, mails: Mailbox) -> Person:
        """Changes it, forgets it, and has it reset. Returns them logged in."""
        new = self.values.add("changed password", secrets.token_urlsafe(18))
        self.sends(change(person, person.password, new))
        self.sends(ask(self.people, person.email))
        [code] = CODE.findall(wait_for(mails, person.email, "Password reset requested"))
        self.sends(reset(self.people, person.email, self.values.add("wrong code", "AAAAA-BBBBB"), new), 401)
        last = self.values.add("last password", secrets.token_urlsafe(18))
        self.sends(reset(self.people, person.email, self.values.add("code", code), last))
        return self.people.log_in(person.id, person.email, last)

    def makes_mistakes(self, person: Person) -> None:
        """Sends what is refused for its form, and credentials that are none or in the wrong place."""
        nobody, bait = self.people.nobody, self.values.add("bait", secrets.token_urlsafe(24))
        forged = ".".join((*person.client.headers["authorization"].split(".")[:2], bait))
        for headers in (
            {"authorization": forged},
            {"authorization": f"Bearer {bait}"},
            {"authorization": f"Basic {base64.b64encode(bait.encode()).decode()}"},
            {"authorization": f"Bearer {bait}", "x-api-key": bait},
            {"x-api-key": bait},
            {"x-api-key": f"key_{bait}", "cookie": f"session={bait}", "x-user-id": bait},
        ):
            self.sends(nobody.get("/api/v1/users/me", headers=headers), 401)
        self.sends(nobody.get("/api/v1/payments/events", params={"access_token": bait}), 401)
        self.sends(nobody.get("/api/v1/users/me", params={"access_token": bait}), 400, 401)
        for body in (
            f'{{"email": "{bait}", "password": "{bait}"',
            f'{{"email": "{bait}", "passphrase": "{bait}"}}',
            f'{{"email": ["{bait}"], "password": {{"{bait}": 1}}}}',
            json.dumps(self.profile(dateOfBirth={"year": 2050, "month": 1, "day": 1})),
            json.dumps(self.profile(country="XX", displayName=bait)),
            json.dumps(self.profile(password=bait[:8])),
        ):
            for path in ("users", "sessions"):
                sent = nobody.post(f"/api/v1/{path}", content=body, headers={"content-type": "application/json"})
                self.sends(sent, 400, 401)
        self.sends(nobody.post("/api/v1/sessions", content=bait, headers={"content-type": bait}), 400, 415)
        etag = {"displayName": NAME, "etag": bait}
        self.sends(person.client.patch("/api/v1/users/me?updateMask=displayName", json=etag), 409)
        self.sends(person.client.get("/api/v1/users", params={"pageToken": bait}), 403)
        self.sends(person.client.get("/api/v1/payments", params={"pageToken": bait}), 400)

    def meets_faults(self, person: Person) -> None:
        """Signs up and pays while rows cannot be written, while the database is killed, and while it is away."""
        users = self.people.nobody
        with database(self.stack, "user") as connection:
            connection.execute(f"ALTER TABLE users ADD CONSTRAINT nobody CHECK (display_name <> '{NAME}') NOT VALID")
            self.sends(users.post("/api/v1/users", json=self.profile()), 500)
            connection.execute("ALTER TABLE users DROP CONSTRAINT nobody")
        with database(self.stack, "notification") as connection:
            connection.execute("ALTER TABLE preferences RENAME TO elsewhere")
            changed = person.client.patch("/api/v1/notifications/preferences", json={"phoneNumber": "+4915199887766"})
            connection.execute("ALTER TABLE elsewhere RENAME TO preferences")
            self.sends(changed, 500)
        profiles: Sequence[dict[str, object]] = [self.profile() for _ in range(20)]
        with ThreadPoolExecutor(4) as threads:
            trying = [threads.submit(users.post, "/api/v1/users", json=profile) for profile in profiles]
            self.stack.kill("postgres")
            statuses = {one.result().status_code for one in trying}
        assert statuses <= {201, 503, 504, 409}  # the last, where the first answer was lost
        with self.stack.without("postgres"):
            answer = users.post("/api/v1/users", json=self.profile())
            assert (answer.status_code, reason_of(answer)) == (503, "DATABASE_UNAVAILABLE")
            self.answers.append(answer)
        for name in ("user", "payment", "document", "notification"):
            self.stack.wait_until_ready(name)


def test_no_log_has_a_secret_or_says_who_anybody_is(people: People, stack: Stack, mails: Mailbox) -> None:
    values = Values()
    values.add("given name", GIVEN)
    values.add("last name", LAST)
    values.add("date of birth", date(**BORN).isoformat())
    for name, value in stack.settings.secrets.items():
        values.add(name, value)
    day = Day(people, stack, values)
    person = day.signs_up()
    day.identifies(person)
    day.is_told(person)
    day.uses_a_key(person)
    day.makes_mistakes(person)
    person = day.changes_the_password(person, mails)
    day.meets_faults(person)

    stack.wait_until_logged("envoy", *day.answers)
    logs = stack.settings.folder.logs
    assert values.traces(logs) == []
    everything = "".join(path.read_text(errors="replace") for path in logs.iterdir())
    assert person.id in everything  # so these are the logs of all this
    for said in ("23514 users nobody", "42P01", "DatabaseUnavailable", 'violates check constraint "nobody"'):
        assert said in everything, said


@pytest.mark.parametrize("form", [name for name, _ in forms_of("a b+c/d?e&f")])
def test_a_trace_is_found_in_every_form(tmp_path: Path, form: str) -> None:
    values = Values()
    secret = values.add("secret", "Zephyrine Quillfeather & søn?")
    for padding in (b"", b"x", b"xy"):
        written = dict(forms_of(secret))[form]
        (tmp_path / "log").write_bytes(b'{"event": "' + padding + written + b'"}\n')
        assert [name for name, _, _ in values.traces(tmp_path)] != []
    (tmp_path / "log").write_bytes(base64.b64encode(b"user:" + secret.encode() + b":x"))
    assert [name for name, _, _ in values.traces(tmp_path)] != []
    (tmp_path / "log").write_text("nothing of it")
    assert values.traces(tmp_path) == []
