"""Hostile input through the whole system: it is refused in the one shape, harms nobody, and is no fault of ours."""

import json
import re
import secrets
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from services.runtime import contract
from services.runtime.contract import Binding, Method
from tests.edge.contract.backend import Backend
from tests.edge.contract.edge import CONTRACT, reason_of
from tests.edge.contract.samples import sample
from tests.edge.contract.test_bindings import every_binding
from tests.edge.people import People
from tests.edge.stack import Stack
from tests.hostile import BODIES, CONTENT_TYPES, FORMS, HEADERS, MULTIPART, QUERIES, SEGMENTS, TEXTS

PROCESSES = ("envoy", "authz", "user", "payment", "compliance", "document", "notification")
TYPES = Backend(CONTRACT, contract.load(CONTRACT))
"""For the classes of its messages."""
VARIABLE = re.compile(r"\{\w+\}")


@pytest.fixture(scope="module")
def client(people: People) -> httpx.Client:
    """Somebody who may do all that people may: what they send is looked at by everything there is."""
    person = people.sign_up("Mal Icious")
    roles = {"roles": ["customer", "officer", "treasurer", "admin"]}
    people.admin.client.patch(f"/api/v1/users/{person.id}?updateMask=roles", json=roles).raise_for_status()
    return people.log_in(person.id, person.email, person.password).client


@pytest.fixture(scope="module", autouse=True)
def _nobody_is_harmed(stack: Stack, people: People) -> Iterator[None]:
    bystander = people.sign_up()
    before = {name: stack.pid(name) for name in PROCESSES}
    yield
    assert {name: stack.pid(name) for name in PROCESSES} == before, "a process has ended"
    assert bystander.client.get("/api/v1/accounts").json()["accounts"]


def answer(client: httpx.Client, verb: str, path: str, **more: Any) -> httpx.Response:
    """Sends a request. Of a stream that has begun nothing is read."""
    with client.stream(verb, path, **more) as response:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.read()
        return response


def refused(response: httpx.Response, what: object) -> None:
    """The request was wrong, and its client is told so."""
    assert 400 <= response.status_code < 500, (what, response.status_code, response.text[:300])
    assert reason_of(response), what


def no_fault(response: httpx.Response, what: object) -> None:
    """Whether right or wrong, it was carried out or refused in order."""
    if response.status_code >= 400:
        refused(response, what)


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("POST", "/api/v1/payments"),
        ("POST", "/api/v1/users"),
        ("POST", "/api/v1/payments/pay_1:cancel"),
        ("PATCH", "/api/v1/users/me"),
        ("GET", "/api/v1/payments"),
        ("DELETE", "/api/v1/documents/doc_1"),
    ],
)
def test_hostile_bodies_are_refused(client: httpx.Client, verb: str, path: str) -> None:
    for name, body in BODIES.items():
        refused(client.request(verb, path, content=body, headers={"content-type": "application/json"}), name)
    for content_type in CONTENT_TYPES:
        refused(client.request(verb, path, content=b"{}", headers={"content-type": content_type}), content_type)
    for query in QUERIES:
        refused(client.request(verb, f"{path}?{query}"), query)


@every_binding
def test_no_text_and_no_number_in_any_field_is_too_much(client: httpx.Client, method: Method, binding: Binding) -> None:
    if method.client_streaming or method.rpc.endswith("/DeleteSession"):  # forms are below; and this one is needed
        return
    request = sample(TYPES.message_type(method.request_type), binding)
    path = VARIABLE.sub("x_1", binding.template)
    for text in TEXTS:
        body = json.dumps(filled(json.loads(request.body), text)) if request.body else None
        tokens = {name: text[:2000] for name in ("pageToken", "etag") if name in request.query}
        query = request.query.merge(tokens)
        headers = {"idempotency-key": secrets.token_hex()} | ({"content-type": "application/json"} if body else {})
        no_fault(answer(client, binding.verb, path, params=query, content=body, headers=headers), text[:20])


def filled(value: Any, text: str) -> Any:
    """Returns JSON with this in all texts, and the largest numbers."""
    if isinstance(value, dict):
        return {name: filled(member, text) for name, member in value.items()}
    if isinstance(value, list):
        return [filled(item, text) for item in value]
    if isinstance(value, bool) or value is None or (isinstance(value, str) and value.isupper()):  # a word of an enum
        return value
    if isinstance(value, int):
        return 2**31 - 1
    return str(2**63 - 1) if value.isdigit() else value if value.endswith("Z") else text


@every_binding
def test_no_id_in_a_path_is_taken_for_another(client: httpx.Client, method: Method, binding: Binding) -> None:
    if "{" not in binding.template:
        return
    begin, end = binding.template.index("{"), binding.template.rindex("}") + 1
    for segment in SEGMENTS:
        path = binding.template[:begin] + segment + binding.template[end:]
        no_fault(answer(client, binding.verb, path, headers={"idempotency-key": "k"}), segment[:20])


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("POST", "/api/v1/accounts/acc_1:deposit", b'{"amount": {"currencyCode": "EUR", "units": 1}}'),
        ("GET", "/api/v1/payments/events", None),
        ("GET", "/api/v1/payments/pay_1/status", None),
        ("GET", "/api/v1/documents/doc_1/content", None),
        ("POST", "/api/v1/documents/upload", FORMS["no kind"][1]),
        ("GET", "/api/v1/users/me", None),
    ],
)
def test_no_header_is_a_fault(client: httpx.Client, verb: str, path: str, body: bytes | None) -> None:
    content_type = "application/json" if body and body.startswith(b"{") else MULTIPART
    for name, value in HEADERS:
        headers = [(name.encode(), value), *([(b"content-type", content_type.encode())] if body else [])]
        no_fault(answer(client, verb, path, content=body, headers=headers), (name, value))


def test_forms_that_hold_no_document_are_refused(client: httpx.Client) -> None:
    for name, (content_type, body) in FORMS.items():
        headers = {"content-type": content_type} if content_type else {}
        refused(client.post("/api/v1/documents/upload", content=body, headers=headers), name)
        refused(client.post("/api/v1/documents/upload", content=iter([body]), headers=headers), name)
    assert client.get("/api/v1/documents").json()["documents"] == []
