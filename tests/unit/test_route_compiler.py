"""The routes that are compiled from the contract."""

import re
from dataclasses import replace
from typing import Any

import pytest
from route_compiler import TemplateError, compile_routes, path_pattern

from services.runtime.contract import Binding, Method

GET = Method(
    rpc="/thing.v1.ThingService/GetThing",
    server="thing",
    request_type="thing.v1.GetThingRequest",
    response_type="thing.v1.Thing",
    client_streaming=False,
    server_streaming=False,
    safe_to_retry=True,
    changes=False,
    bindings=(Binding("GET", "/api/v1/things/{thing_id}", ""),),
    access="token",
    roles=frozenset(),
    callers=frozenset({"edge"}),
    idempotency_key=False,
    deadline=5.0,
    location="",
    query_token=False,
    person_only=False,
    rate_class="read",
)
DELETE = replace(
    GET, rpc="/thing.v1.ThingService/DeleteThing", bindings=(Binding("DELETE", "/api/v1/things/{thing_id}", ""),)
)
UPLOAD = replace(
    GET,
    rpc="/thing.v1.ThingService/UploadThing",
    bindings=(Binding("POST", "/api/v1/things/upload", "content"),),
    client_streaming=True,
)


def rest_routes(*methods: Method) -> list[dict[str, Any]]:
    return [route for route in compile_routes(methods) if route["match"].get("path") not in {m.rpc for m in methods}]


def grpc_route(method: Method) -> dict[str, Any]:
    [route] = [route for route in compile_routes([method]) if route["match"].get("path") == method.rpc]
    return route


@pytest.mark.parametrize("path", ["/api/v1/things/thg_1", "/api/v1/things/me", "/api/v1/things/a.b~c_d-e"])
def test_a_path_of_the_template_matches(path: str) -> None:
    assert re.fullmatch(path_pattern("/api/v1/things/{thing_id}"), path)


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/things/",
        "/api/v1/things/a/",
        "/api/v1/things/a/b",
        "/api/v1/things/a%2Fb",
        "/api/v1/things/%00",
        "/api/v1/things/%ff",
        "/api/v1/things/a:cancel",
        "/api/v1/things/a b",
        "/apiXv1/things/a",
        "/x/api/v1/things/a",
    ],
)
def test_any_other_path_does_not(path: str) -> None:
    assert not re.fullmatch(path_pattern("/api/v1/things/{thing_id}"), path)


def test_dots_and_colons_of_a_template_are_meant_literally() -> None:
    assert re.fullmatch(path_pattern("/.well-known/{name}.json:verify"), "/.well-known/a.json:verify")
    assert not re.fullmatch(path_pattern("/.well-known/{name}.json"), "/xwell-known/a.json")


@pytest.mark.parametrize("template", ["/v1/{name=things/*}", "/v1/**", "/v1/{name"])
def test_a_template_without_a_strict_pattern_is_refused(template: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(template)):
        path_pattern(template)


def test_a_fixed_path_comes_before_one_with_a_variable() -> None:
    first, *_ = compile_routes([GET, UPLOAD])
    assert first["match"]["path"] == "/api/v1/things/upload"


def test_a_wrong_method_is_told_all_methods_of_the_path() -> None:
    refusals = [route for route in rest_routes(GET, DELETE, UPLOAD) if "direct_response" in route]
    allow = [route["response_headers_to_add"][0]["header"]["value"] for route in refusals]
    assert allow == ["DELETE, GET, POST", "DELETE, GET"]  # /things/upload is a /things/{thing_id}, too
    assert {route["direct_response"]["status"] for route in refusals} == {405}


def test_a_page_may_read_what_the_edge_says_of_a_wrong_method() -> None:
    [refusal] = [route for route in rest_routes(GET) if "direct_response" in route]
    headers = {one["header"]["key"]: one["header"]["value"] for one in refusal["response_headers_to_add"]}
    assert headers["access-control-expose-headers"] == "allow, x-request-id, retry-after, ratelimit, ratelimit-policy"


def test_a_route_says_which_requests_it_is_counted_with() -> None:
    classes = [
        (route["name"], route["metadata"]["filter_metadata"]["envoy.filters.http.lua"]["rate_class"])
        for route in compile_routes([replace(GET, rate_class="login"), replace(UPLOAD, rate_class="upload")])
    ]
    assert classes == [
        (UPLOAD.rpc, "upload"),
        (GET.rpc, "login"),
        ("method_not_allowed", "read"),
        ("method_not_allowed", "read"),
        (GET.rpc, "login"),
        (UPLOAD.rpc, "upload"),
    ]


def test_every_route_that_is_forwarded_asks_authz_for_its_rpc() -> None:
    for route in compile_routes([GET, DELETE, UPLOAD]):
        check = route["typed_per_filter_config"]["envoy.filters.http.ext_authz"]
        if "route" in route:
            assert check["check_settings"]["context_extensions"]["rpc"] == route["name"]
        else:
            assert check["disabled"]


def test_an_internal_rpc_has_no_route() -> None:
    assert compile_routes([replace(GET, access="none", bindings=())]) == []


def test_the_service_learns_the_deadline_and_the_edge_enforces_it_later() -> None:
    action = grpc_route(GET)["route"]
    assert action["max_stream_duration"] == {"max_stream_duration": "6s", "grpc_timeout_header_max": "6s"}
    assert action["idle_timeout"] == "5.5s"


def test_only_what_is_safe_to_execute_twice_is_tried_again_after_a_service_has_begun_on_it() -> None:
    added = [grpc_route(method)["request_headers_to_add"] for method in (GET, replace(GET, safe_to_retry=False))]
    assert added == [[{"header": {"key": "x-envoy-retry-on", "value": "reset"}}], []]


def test_a_stream_of_typed_messages_may_be_silent_and_one_of_bytes_may_not() -> None:
    watch = grpc_route(replace(GET, server_streaming=True, deadline=3600.0))["route"]
    events = grpc_route(replace(GET, server_streaming=True, deadline=3600.0, response_type="google.api.HttpBody"))[
        "route"
    ]
    assert watch["idle_timeout"] == "3601s"
    assert (
        grpc_route(replace(UPLOAD, deadline=600.0))["route"]["idle_timeout"] == "601s"
    )  # its service knows who stalls
    assert "idle_timeout" not in events  # the listener's holds


def test_only_a_client_stream_may_send_more_than_a_message() -> None:
    limits = [
        "envoy.filters.http.body_size_limit" in route["typed_per_filter_config"]
        for route in compile_routes([GET, UPLOAD])
        if "route" in route
    ]
    assert limits == [True, False, False, True]  # REST, the fixed path first, then gRPC


def test_what_is_kept_of_a_client_stream_to_be_sent_again_is_limited() -> None:
    assert grpc_route(UPLOAD)["request_body_buffer_limit"] == 512 * 1024
    assert "request_body_buffer_limit" not in grpc_route(GET)


def test_only_a_stream_that_a_browser_opens_waits_for_a_replica() -> None:
    wait = {"header": {"key": "x-envoy-max-retries", "value": "25"}}
    assert wait in grpc_route(replace(GET, server_streaming=True, query_token=True))["request_headers_to_add"]
    assert wait not in grpc_route(GET)["request_headers_to_add"]


def test_of_a_stream_everything_has_to_come_soon_though_it_may_last() -> None:
    stream = replace(GET, server_streaming=True, deadline=3600.0)
    [rest, _] = rest_routes(stream)
    assert rest["route"]["max_stream_duration"] == {"max_stream_duration": "11s"}
    assert grpc_route(stream)["route"]["max_stream_duration"]["max_stream_duration"] == "3601s"


def test_a_stream_that_takes_a_body_has_no_route() -> None:
    with pytest.raises(TemplateError, match="a stream that takes a body"):
        compile_routes([replace(GET, server_streaming=True, bindings=(Binding("POST", "/api/v1/things:watch", "*"),))])


def test_as_much_is_waited_for_as_there_may_be() -> None:
    create = replace(GET, bindings=(Binding("POST", "/api/v1/things", "*"),))
    stream = replace(GET, server_streaming=True)
    waits = [
        rest_routes(method)[0]["typed_per_filter_config"].get("envoy.filters.http.buffer")
        for method in (create, GET, stream, UPLOAD)
    ]
    assert "config" in waits[0]  # on, and as much as the filter says
    assert [one and one["buffer"] for one in waits[1:]] == [
        {"max_request_bytes": 1024},
        {"max_request_bytes": 1024},
        None,
    ]
