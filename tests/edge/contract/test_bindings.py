"""Every HTTP binding of the contract, replayed through the edge."""

import re

import httpx
import pytest

from services.runtime import contract
from services.runtime.contract import Binding, Method
from tests.edge.contract.backend import Backend
from tests.edge.contract.edge import AUTHORIZED, CONTRACT, reason_of
from tests.edge.contract.samples import sample

METHODS = contract.load(CONTRACT).values()
BINDINGS = [
    pytest.param(method, binding, id=f"{binding.verb} {binding.template}")
    for method in METHODS
    for binding in method.bindings
]
VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
every_binding = pytest.mark.parametrize(("method", "binding"), BINDINGS)


def send(client: httpx.Client, backend: Backend, method: Method, binding: Binding, **headers: str) -> httpx.Response:
    """Sends a request with every field filled."""
    request = sample(backend.message_type(method.request_type), binding)
    content_type = {"content-type": request.content_type} if request.body is not None else {}
    return client.request(
        binding.verb, request.path, params=request.query, content=request.body, headers=content_type | headers
    )


def verbs_of(path: str) -> set[str]:
    """Returns the verbs that the contract has for a path: of /documents/upload those of /documents/{id}, too."""
    every = [binding for method in METHODS for binding in method.bindings]
    return {one.verb for one in every if re.fullmatch(re.sub(r"\{\w+\}", "[^/:]+", one.template), path)}


@every_binding
def test_a_request_reaches_its_rpc_with_every_field_bound(
    client: httpx.Client, backend: Backend, method: Method, binding: Binding
) -> None:
    response = send(client, backend, method, binding, **AUTHORIZED)
    assert response.status_code == 200, response.text
    [call] = backend.calls
    assert call.rpc == method.rpc
    assert call.messages == [sample(backend.message_type(method.request_type), binding).message]
    assert call.values("x-user-rpc") == [method.rpc]
    assert call.seconds_left is not None and method.deadline < call.seconds_left <= method.deadline + 1


@every_binding
def test_without_a_token_only_public_rpcs_are_reached(
    client: httpx.Client, backend: Backend, method: Method, binding: Binding
) -> None:
    response = send(client, backend, method, binding)
    if method.access == "public":
        assert [call.rpc for call in backend.calls] == [method.rpc]
    else:
        assert (response.status_code, reason_of(response)) == (401, "ACCESS_TOKEN_MISSING")
        assert response.headers["www-authenticate"] == "Bearer"
        assert backend.calls == []


@every_binding
def test_a_wrong_verb_is_told_the_right_ones(
    client: httpx.Client, backend: Backend, method: Method, binding: Binding
) -> None:
    path = sample(backend.message_type(method.request_type), binding).path
    right = verbs_of(path)
    for verb in VERBS:
        response = client.request(verb, path)
        assert (response.status_code == 405) == (verb not in right), verb
        if verb not in right:
            assert response.headers["allow"] == ", ".join(sorted(right))
            if verb != "HEAD":  # which has no body
                assert reason_of(response) == "METHOD_NOT_ALLOWED"


@every_binding
@pytest.mark.parametrize(
    "change", ["{path}/", "{path}%2F", "{path}%2Fx", "{path}%5C", "{path}%00", "{path};x", "/x{path}"]
)
def test_a_path_that_is_almost_right_is_wrong(
    client: httpx.Client, backend: Backend, method: Method, binding: Binding, change: str
) -> None:
    path = change.format(path=sample(backend.message_type(method.request_type), binding).path)
    response = client.request(binding.verb, path, headers=AUTHORIZED)
    expected = {400: "MALFORMED_REQUEST", 404: "ROUTE_NOT_FOUND"}
    assert reason_of(response) == expected[response.status_code]
    assert backend.calls == []
