"""Bodies and queries on their way through the edge: what authz refuses reaches nobody, and what it takes arrives."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import grpc
import httpx
import pytest
from ext_authz import external_auth_pb2 as authz

from authz.answers import Denials
from authz.requests import Requests
from services.runtime.contract import Binding, Method
from services.runtime.errors import Error
from tests.edge.contract.backend import Backend, serving
from tests.edge.contract.edge import AUTHORIZED, CONTRACT, Edge, reason_of, running, server_ports
from tests.edge.contract.samples import sample
from tests.edge.contract.test_bindings import METHODS, every_binding
from tests.hostile import BODIES, CONTENT_TYPES, QUERIES

JSON = AUTHORIZED | {"content-type": "application/json"}
FIELDS = [(method, one) for method in METHODS for one in method.bindings if one.body and not method.client_streaming]
every_json_binding = pytest.mark.parametrize(
    ("method", "binding"), [pytest.param(*pair, id=f"{pair[1].verb} {pair[1].template}") for pair in FIELDS]
)
TYPICAL = (
    *(
        "null",
        "an array",
        "half an object",
        "two objects",
        "single quotes",
        "a comma behind the last",
        "a comment",
        "NaN",
    ),
    *("a byte that is no UTF-8", "a byte order mark", "an unknown member", "a member twice", "arrays in arrays"),
)


class Strict(Backend):
    """The services, and the part of authz that looks at requests."""

    def __init__(self, contract: Path, methods: Mapping[str, Method]) -> None:
        super().__init__(contract, methods)
        self._requests = Requests(contract, methods)
        self._denials = Denials()

    def _check(self, request: authz.CheckRequest, context: grpc.ServicerContext) -> authz.CheckResponse:
        granted = super()._check(request, context)
        asked = request.attributes
        try:
            if granted.status.code == 0:
                method = self.methods[asked.context_extensions["rpc"]]
                self._requests.require_strict(method, asked.context_extensions.get("body"), asked.request.http)
        except Error as error:
            return self._denials.answer(error, grpc_client=False)
        return granted


@pytest.fixture(scope="module")
def strict(methods: Mapping[str, Method]) -> Strict:
    """What is behind the edge."""
    return Strict(CONTRACT, methods)


@pytest.fixture(scope="module")
def strict_edge(strict: Strict, certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """An edge whose authz looks at requests."""
    services = server_ports(strict.methods)
    folder = tmp_path_factory.mktemp("strict")
    with serving(strict, certificates, services), running(folder, certificates, services) as edge:
        yield edge


@pytest.fixture
def client(strict_edge: Edge, strict: Strict) -> Iterator[httpx.Client]:
    """A REST client. Nothing is recorded yet."""
    strict.calls.clear()
    with httpx.Client(base_url=strict_edge.url, headers=AUTHORIZED, timeout=15) as client:
        yield client


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def either_client(request: pytest.FixtureRequest, strict_edge: Edge, strict: Strict) -> Iterator[httpx.Client]:
    """A REST client of either protocol. Nothing is recorded yet."""
    strict.calls.clear()
    http2 = request.param == "HTTP/2"
    with httpx.Client(base_url=strict_edge.url, http1=not http2, http2=http2, headers=AUTHORIZED, timeout=15) as client:
        yield client


def path_of(strict: Strict, method: Method, binding: Binding) -> str:
    return sample(strict.message_type(method.request_type), binding).path


@every_binding
def test_a_request_with_every_field_arrives_as_it_was_meant(
    either_client: httpx.Client, strict: Strict, method: Method, binding: Binding
) -> None:
    request = sample(strict.message_type(method.request_type), binding)
    content_type = {"content-type": request.content_type} if request.body is not None else {}
    response = either_client.request(
        binding.verb, request.path, params=request.query, content=request.body, headers=content_type
    )
    assert response.status_code == 200, response.text
    assert [call.messages for call in strict.calls] == [[request.message]]


@every_json_binding
def test_a_hostile_body_reaches_nobody(client: httpx.Client, strict: Strict, method: Method, binding: Binding) -> None:
    path = path_of(strict, method, binding)
    for name in TYPICAL:
        response = client.request(binding.verb, path, content=BODIES[name], headers=JSON)
        assert (response.status_code, reason_of(response)) == (400, "INVALID_REQUEST"), name
    response = client.request(binding.verb, path, content=b"{}", headers={"content-type": "text/plain"})
    assert (response.status_code, reason_of(response)) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert strict.calls == []


@pytest.mark.parametrize(("verb", "path"), [("POST", "/api/v1/payments"), ("PATCH", "/api/v1/users/me")])
def test_nor_does_any_other(either_client: httpx.Client, strict: Strict, verb: str, path: str) -> None:
    for name, body in BODIES.items():
        response = either_client.request(verb, path, content=body, headers=JSON)
        expected = (413, "REQUEST_TOO_LARGE") if name == "too much" else (400, "INVALID_REQUEST")
        assert (response.status_code, reason_of(response)) == expected, name
    for content_type in CONTENT_TYPES:
        response = either_client.request(verb, path, content=b"{}", headers={"content-type": content_type})
        assert (response.status_code, reason_of(response)) == (415, "UNSUPPORTED_MEDIA_TYPE"), content_type
    assert strict.calls == []


@every_binding
def test_a_hostile_query_reaches_nobody(client: httpx.Client, strict: Strict, method: Method, binding: Binding) -> None:
    path = path_of(strict, method, binding)
    for query in QUERIES:
        response = client.request(binding.verb, f"{path}?{query}")
        assert (response.status_code, reason_of(response)) == (400, "INVALID_REQUEST"), query
    assert strict.calls == []


@pytest.mark.parametrize("content", [b"{}", b"rubbish", b" "])
@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/api/v1/notifications"),
        ("GET", "/.well-known/jwks.json"),
        ("GET", "/api/v1/payments/pay_1/status"),
        ("DELETE", "/api/v1/documents/doc_1"),
        ("DELETE", "/api/v1/sessions/current"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_what_takes_no_body_gets_none(
    either_client: httpx.Client, strict: Strict, verb: str, path: str, content: bytes, chunked: bool
) -> None:
    response = either_client.request(verb, path, content=iter([content]) if chunked else content, headers=JSON)
    assert (response.status_code, reason_of(response)) == (400, "INVALID_REQUEST")
    assert strict.calls == []


@pytest.mark.parametrize(
    ("verb", "target", "body"),
    [
        ("POST", "/api/v1/payments/pay_1:cancel?paymentId=pay_2", b""),
        ("POST", "/api/v1/payments/pay_1:cancel", b'{"paymentId": "pay_2"}'),
        ("POST", "/api/v1/payments?payeeId=usr_9", b'{"payeeId": "usr_1"}'),
        ("PATCH", "/api/v1/users/usr_1?userId=usr_2&updateMask=roles", b'{"roles": []}'),
        ("PATCH", "/api/v1/users/usr_1?user.displayName=x&updateMask=displayName", b'{"displayName": "y"}'),
        ("GET", "/api/v1/payments/pay_1?paymentId=pay_2", b""),
        ("GET", "/api/v1/payments/pay_1?payment_id=pay_2", b""),
    ],
)
def test_a_field_has_one_place_in_a_request(
    either_client: httpx.Client, strict: Strict, verb: str, target: str, body: bytes
) -> None:
    response = either_client.request(verb, target, content=body or None, headers=JSON)
    assert (response.status_code, reason_of(response)) == (400, "INVALID_REQUEST")
    assert strict.calls == []


def test_a_refusal_names_the_field(client: httpx.Client) -> None:
    body = b'{"lines": [{"description": "x"}, {"quantity": "two"}], "colour": 1}'
    response = client.post("/api/v1/invoices", content=body, headers=JSON)
    [bad_request] = [one for one in response.json()["details"] if one["@type"].endswith("BadRequest")]
    assert [one["field"] for one in bad_request["fieldViolations"]] == ["lines[1].quantity", "colour"]
    assert "access-control-allow-origin" not in response.headers


def test_strangers_are_told_nothing_of_their_json(client: httpx.Client) -> None:
    stranger = {"content-type": "application/json", "authorization": "Bearer rubbish"}
    response = client.post("/api/v1/payments", content=b"{rubbish", headers=stranger)
    assert response.status_code == 401


def test_what_is_public_is_looked_at_at_once(client: httpx.Client, strict: Strict) -> None:
    response = client.post("/api/v1/sessions", content=b'{"email": "a", "email": "b"}', headers=JSON)
    assert (response.status_code, reason_of(response)) == (400, "INVALID_REQUEST")
    assert strict.calls == []


def test_an_absent_body_is_legal_where_nothing_is_required(client: httpx.Client, strict: Strict) -> None:
    assert client.post("/api/v1/payments/pay_1:cancel").status_code == 200
    assert client.post("/api/v1/payments").status_code == 400
    assert [call.rpc for call in strict.calls] == ["/payment.v1.PaymentService/CancelPayment"]
