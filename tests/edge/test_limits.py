"""The limits of production, on a stack of its own: floods are refused, and others do not notice."""

import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from scripts.stack import lifecycle
from scripts.stack.folder import run_folder
from tests.edge.people import People, Person
from tests.edge.stack import Stack

LOG_INS_OF_AN_ADDRESS = 30
FAILURES_OF_AN_ACCOUNT = 5
_TLS = ssl.create_default_context()  # which takes long to make, and is not used


@pytest.fixture(scope="module")
def strict() -> Iterator[Stack]:
    """A stack that was started with LIMITS=production."""
    folder = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-test-")))
    try:
        settings = lifecycle.up(folder, edge_port=0, edge_tls_port=0, wishes={"LIMITS": "production"})
        yield Stack(settings, **{name.lower(): value for name, value in settings.reach().items()})
    finally:
        lifecycle.clean(folder)


def at(stack: Stack, address: str) -> httpx.Client:
    """A client at an address of loopback."""
    return httpx.Client(base_url=stack.edge_url, transport=httpx.HTTPTransport(_TLS, local_address=address), timeout=15)


def log_in(client: httpx.Client, email: str = "") -> httpx.Response:
    """Logs in with a wrong password. Without a name that is refused before anybody looks at the password."""
    return client.post("/api/v1/sessions", json={"email": email, "password": "wrong-and-long-enough"})


def reason(answer: httpx.Response) -> str:
    return str(answer.json()["details"][0]["reason"])


def upload_nothing(person: Person) -> httpx.Response:
    form = {"content-type": "multipart/form-data; boundary=x"}
    return person.client.post("/api/v1/documents/upload", content=b"--x--", headers=form)


def flood(client: httpx.Client) -> httpx.Response:
    """Logs in until that is refused, by nobody's name, as fast as can be. Returns the refusal."""
    for _ in range(20 * LOG_INS_OF_AN_ADDRESS):
        if (answer := log_in(client)).status_code == httpx.codes.TOO_MANY_REQUESTS:
            return answer
    raise AssertionError("nothing stops log-ins")


def test_a_flood_of_log_ins_is_refused_until_the_moment_that_was_told(strict: Stack) -> None:
    with at(strict, "127.0.0.21") as client:
        refusal = flood(client)
        assert reason(refusal) == "RATE_LIMITED"
        assert refusal.headers["ratelimit-policy"] == f'"login-address";q={LOG_INS_OF_AN_ADDRESS};w=60'
        time.sleep(int(refusal.headers["retry-after"]))  # what a good client does
        assert log_in(client).status_code == httpx.codes.BAD_REQUEST
        assert reason(flood(client)) == "RATE_LIMITED"


def test_others_do_not_notice_a_flood(strict: Stack) -> None:
    with ExitStack() as clients, at(strict, "127.0.0.22") as client:
        flood(client)
        person = People(strict, clients).sign_up()
        assert person.client.get(f"/api/v1/users/{person.id}").is_success
        assert client.get("/.well-known/jwks.json").is_success  # of another class


def test_each_user_has_limits_of_their_own_whatever_they_come_with(strict: Stack) -> None:
    with ExitStack() as clients:
        people = People(strict, clients)
        one, other = people.sign_up(), people.sign_up()
        while (answer := upload_nothing(one)).status_code != httpx.codes.TOO_MANY_REQUESTS:
            assert answer.status_code == httpx.codes.BAD_REQUEST
        assert reason(answer) == "RATE_LIMITED"
        assert answer.headers["ratelimit"].startswith('"upload";r=0;')
        made = one.client.post("/api/v1/apiKeys", json={"displayName": "another bucket"}).raise_for_status()
        assert reason(upload_nothing(people.program(one, made.json()["key"]))) == "RATE_LIMITED"
        assert upload_nothing(other).status_code == httpx.codes.BAD_REQUEST
        assert one.client.get(f"/api/v1/users/{one.id}").is_success


def test_an_account_is_guessed_at_a_few_times_wherever_from(strict: Stack) -> None:
    with ExitStack() as clients:
        person = People(strict, clients).sign_up()
        for number in range(FAILURES_OF_AN_ACCOUNT):
            with at(strict, f"127.0.0.{30 + number}") as client:
                assert reason(log_in(client, person.email)) == "INVALID_CREDENTIALS"
        with at(strict, "127.0.0.40") as client:
            refusal = log_in(client, person.email)
    assert (refusal.status_code, reason(refusal)) == (429, "TOO_MANY_ATTEMPTS")
    assert int(refusal.headers["retry-after"]) >= 1
