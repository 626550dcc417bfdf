"""Users as the edge sees them: each signs up, logs in, and makes requests of their own."""

import io
import secrets
import ssl
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

import httpx
from PIL import Image

from scripts.specimens import passport
from tests.waiting import wait_until

Json = dict[str, Any]
BORN = {"year": 1985, "month": 12, "day": 10}


class Reach(Protocol):
    """How a system is reached, whatever it runs in."""

    @property
    def edge_url(self) -> str:
        """Where the edge listens: http, or https with a certificate of `edge_ca`."""

    @property
    def edge_ca(self) -> str:
        """The path of a file of certificates (PEM)."""

    @property
    def admin_email(self) -> str:
        """The first admin's."""

    @property
    def admin_password(self) -> str:
        """The first admin's."""


@dataclass
class Person:
    """A client with somebody's access token."""

    client: httpx.Client
    id: str
    email: str
    password: str

    def account(self, currency: str = "EUR") -> Json:
        """Their account in a currency."""
        accounts = self.client.get("/api/v1/accounts").raise_for_status().json()["accounts"]
        found: Json = next(one for one in accounts if one["currencyCode"] == currency)
        return found

    def upload(self, content: bytes, name: str = "passport.png", kind: str = "PASSPORT") -> httpx.Response:
        """Uploads a document."""
        files = {"file": (name, content, "application/octet-stream")}
        return self.client.post("/api/v1/documents/upload", data={"kind": kind}, files=files)

    def identify(self, name: str) -> str:
        """Uploads a passport of that name. Returns the document's id."""
        uploaded = self.upload(passport_of(name))
        assert uploaded.status_code == 201, uploaded.text
        return str(uploaded.json()["id"])

    def read(self, document_id: str) -> Json:
        """Waits until a document has been read, and returns it."""

        def document() -> Json:
            found: Json = self.client.get(f"/api/v1/documents/{document_id}").json()
            return found

        is_read = {"VERIFIED", "REJECTED"}  # which takes a second of a core, of as many cores as there are for it
        wait_until(lambda: document().get("state") in is_read, f"{document_id} is not read", seconds=120)
        return document()

    def pay(self, payee: "Person", units: int, key: str | None = None, **amount: Any) -> httpx.Response:
        """Makes a payment."""
        body = {"payeeId": payee.id, "amount": {"currencyCode": "EUR", "units": str(units), "nanos": 0} | amount}
        headers = {"idempotency-key": key or secrets.token_hex()}
        return self.client.post("/api/v1/payments", json=body, headers=headers)

    def settled(self, payment_id: str) -> Json:
        """Waits until a payment is settled, and returns it."""

        def is_settled() -> bool:
            return bool(self.client.get(f"/api/v1/payments/{payment_id}").json().get("state") == "SETTLED")

        wait_until(is_settled, f"payment {payment_id} is not settled")
        payment: Json = self.client.get(f"/api/v1/payments/{payment_id}").json()
        return payment


class People:
    """Everybody who uses a system."""

    def __init__(self, reach: Reach, clients: ExitStack) -> None:
        self._url = reach.edge_url
        self._trust = ssl.create_default_context(cafile=reach.edge_ca)
        self._clients = clients
        self.nobody = self._client()
        self.admin = self.log_in("", reach.admin_email, reach.admin_password)

    def log_in(self, user_id: str, email: str, password: str) -> Person:
        """Logs somebody in."""
        session = self.nobody.post("/api/v1/sessions", json={"email": email, "password": password})
        token = session.raise_for_status().json()["accessToken"]
        return Person(self._client(authorization=f"Bearer {token}"), user_id, email, password)

    def program(self, owner: Person, key: str) -> Person:
        """A program of somebody's, with their API key."""
        return Person(self._client(**{"x-api-key": key}), owner.id, "", "")

    def sign_up(self, name: str = "Ada Byron", country: str = "DE") -> Person:
        """Signs a new user up and logs them in."""
        email, password = f"{secrets.token_hex(8)}@example.com", secrets.token_urlsafe(18)
        profile = {"displayName": name, "country": country, "dateOfBirth": BORN}
        user = self.nobody.post("/api/v1/users", json={"email": email, "password": password} | profile)
        return self.log_in(user.raise_for_status().json()["id"], email, password)

    def payer(self, units: int, name: str = "Ada Byron") -> Person:
        """Somebody who may pay: screened, with a passport and money."""
        person = self.sign_up(name)
        document_id = person.identify(name)
        if units:
            self.deposit(person, units).raise_for_status()
        wait_until(lambda: person.client.get("/api/v1/kyc/me").json().get("state") == "VERIFIED", "KYC is not passed")
        document = person.read(document_id)
        assert document["state"] == "VERIFIED", document["checks"]
        return person

    def payers(self, units: Sequence[int]) -> list[Person]:
        """Several of them with so much money each: their passports are read beside each other."""
        with ThreadPoolExecutor(len(units)) as threads:
            return list(threads.map(self.payer, units))

    def officer(self) -> Person:
        """A compliance officer."""
        person = self.sign_up("Olga Officer")
        roles = {"roles": ["customer", "officer"]}
        self.admin.client.patch(f"/api/v1/users/{person.id}?updateMask=roles", json=roles).raise_for_status()
        return self.log_in(person.id, person.email, person.password)

    def deposit(self, person: Person, units: int) -> httpx.Response:
        """Has the treasurer pay somebody money in."""
        return self.admin.client.post(
            f"/api/v1/accounts/{person.account()['id']}:deposit",
            json={"amount": {"currencyCode": "EUR", "units": units}},
            headers={"idempotency-key": secrets.token_hex()},
        )

    def _client(self, **headers: str) -> httpx.Client:
        client = httpx.Client(base_url=self._url, headers=headers, verify=self._trust, trust_env=False, timeout=20)
        return self._clients.enter_context(client)


def passport_of(name: str) -> bytes:
    """Draws a passport of somebody of that name, born as all are here. Its number is easy to read: all digits."""
    return passport(name, date(**BORN), number=f"{secrets.randbelow(10**9):09}")


def scan(size: tuple[int, int] = (640, 480)) -> bytes:
    """Draws something that no other scan is like, and that nobody can read."""
    file = io.BytesIO()
    # Not Image.effect_noise: it draws from C's rand(), which gRPC seeds anew, so that scans repeat.
    Image.frombytes("L", size, secrets.token_bytes(size[0] * size[1])).save(file, "PNG")
    return file.getvalue()


def events_of(response: httpx.Response) -> list[Json]:
    """Reads a Server-Sent Events stream to its end: its events as dictionaries of their fields."""
    events = [
        dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        for block in response.read().decode().split("\n\n")
    ]
    return [event for event in events if "event" in event]
