"""Compiles the contract into Envoy routes, in the order in which they are tried.

Each RPC that is admitted from outside has one route per HTTP binding and one for gRPC. A transcoded request passes
both: the first says who must be asked, the second, matched again by RPC, how long it may take.
"""

import re
from collections.abc import Collection, Iterator
from typing import Any

from services.runtime.contract import Binding, Method, RateClass

Route = dict[str, Any]

# No percent-encoding: to the transcoder a%2Fb is the id a/b, %00 a null byte and %ff an error 500.
_SEGMENT = "[A-Za-z0-9._~-]+"
_VARIABLE = re.compile(r"\{\w+\}")
# Seconds. A service ends a call at its deadline, with an error that says so. Should it not, the edge does, before gRPC
# in the service would, whose error has no details. (The limit that Envoy tells the service is also its own.)
_EDGE_GRACE = 0.5
_GRPC_GRACE = 1.0
# And until a stream is matched again by RPC: there is no body to come, and authz has five.
_STREAM_BEGINS = 11.0
_TYPE = "type.googleapis.com/"
_IS_GRPC = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
_IS_REST = {**_IS_GRPC, "invert_match": True, "treat_missing_header_as_empty": True}
_OFF = {"@type": f"{_TYPE}envoy.config.route.v3.FilterConfig", "disabled": True}
_ON = {"@type": f"{_TYPE}envoy.config.route.v3.FilterConfig", "config": {}}
# Bytes of a request that are waited for where there is to be no body, so that authz can say so. (Else as many as the
# filter says.)
_MOST_OF_NO_BODY = 1024
# Of requests that no method is behind: what they cost is least.
_NO_METHOD: RateClass = "read"
_ANSWERED_HERE = {"envoy.filters.http.ext_authz": _OFF, "envoy.filters.http.grpc_json_transcoder": _OFF}
# As the cors filter passes over routes that are answered here.
_FOR_ALL_PAGES = [
    {"header": {"key": "access-control-allow-origin", "value": "*"}},
    {
        "header": {
            "key": "access-control-expose-headers",
            "value": "allow, x-request-id, retry-after, ratelimit, ratelimit-policy",
        }
    },
]
# For what is safe to execute twice. These add to the cluster's retry_policy.
_RETRY_WHAT_WAS_LOST = {"header": {"key": "x-envoy-retry-on", "value": "reset"}}
# For streams that a browser opens: its EventSource takes a 503 for the end, so the edge waits some 10 s for a replica.
_WAIT_FOR_A_REPLICA = {"header": {"key": "x-envoy-max-retries", "value": "25"}}
# And as long for authz, when the edge was restarted and all come back at once. All else is refused after a second.
_WAIT_FOR_AUTHZ = {
    "envoy_grpc": {"cluster_name": "authz"},
    "timeout": "5s",
    "initial_metadata": [{"key": "x-envoy-retry-on", "value": "reset"}],
}
# Bytes of a client stream that are kept until a replica has taken the call, to be sent again to another: more than
# comes before flow control stops the client.
_KEPT_FOR_RETRY = 512 * 1024


class TemplateError(Exception):
    """An HTTP path of the contract is written in a way that has no strict pattern."""


def compile_routes(methods: Collection[Method]) -> list[Route]:
    """Returns the routes of all RPCs that are admitted from outside. Raises TemplateError."""
    outside = [method for method in methods if method.access != "none"]
    bindings = [(method, binding) for method in outside for binding in method.bindings]
    bindings.sort(key=lambda pair: "{" in pair[1].template)  # /documents/upload before /documents/{document_id}
    return [
        *(_rest_route(method, binding) for method, binding in bindings),
        *_wrong_method_routes([binding for _, binding in bindings]),
        *(_grpc_route(method) for method in outside),
    ]


def path_pattern(template: str) -> str:
    """Returns the regular expression of the paths that a template means, and of nothing else. Raises TemplateError."""
    if re.search(r"[{}*]", _VARIABLE.sub("", template)):
        raise TemplateError(f"{template}: only plain variables can be routed, each one path segment")
    literals = (re.escape(literal).replace(r"\-", "-") for literal in _VARIABLE.split(template))
    return _SEGMENT.join(literals)


def _rest_route(method: Method, binding: Binding) -> Route:
    return {
        "name": method.rpc,
        "match": {
            **_path(binding.template),
            "headers": [{"name": ":method", "string_match": {"exact": binding.verb}}, _IS_REST],
        },
        "route": {"cluster": method.server, **_whole(method, binding)},
        "metadata": _class(method.rate_class),
        "typed_per_filter_config": {"envoy.filters.http.grpc_web": _OFF, **_filters(method, binding)},
    }


def _wrong_method_routes(bindings: Collection[Binding]) -> Iterator[Route]:
    for template in dict.fromkeys(binding.template for binding in bindings):
        example = _VARIABLE.sub("x", template)
        verbs = {one.verb for one in bindings if re.fullmatch(path_pattern(one.template), example)}
        yield {
            "name": "method_not_allowed",
            "match": {**_path(template), "headers": [_IS_REST]},
            "direct_response": {"status": 405},
            "metadata": _class(_NO_METHOD),
            "response_headers_to_add": [
                {"header": {"key": "allow", "value": ", ".join(sorted(verbs))}},
                *_FOR_ALL_PAGES,
            ],
            "typed_per_filter_config": _ANSWERED_HERE,
        }


def _whole(method: Method, binding: Binding) -> Route:
    """Returns how long a request may take to arrive, at which it ends also while authz waits for its body."""
    if method.client_streaming:
        return {}
    if method.server_streaming and binding.body:
        raise TemplateError(f"{binding.template}: a stream that takes a body cannot be told from one that waits for it")
    seconds = _STREAM_BEGINS if method.server_streaming else method.deadline + _GRPC_GRACE
    return {"max_stream_duration": {"max_stream_duration": f"{seconds:g}s"}}


def _grpc_route(method: Method) -> Route:
    last = f"{method.deadline + _GRPC_GRACE:g}s"
    action: Route = {
        "cluster": method.server,
        "timeout": "0s",  # the next line is the limit; it also tells the service
        "max_stream_duration": {"max_stream_duration": last, "grpc_timeout_header_max": last},
    }
    if not (method.client_streaming or method.server_streaming):
        action["idle_timeout"] = f"{method.deadline + _EDGE_GRACE:g}s"
    elif method.client_streaming or method.response_type != "google.api.HttpBody":
        action["idle_timeout"] = last  # neither typed messages nor waiting for the answer to a stream have heartbeats
    retries = [
        *([_RETRY_WHAT_WAS_LOST] if method.safe_to_retry else []),
        *([_WAIT_FOR_A_REPLICA] if method.query_token else []),
    ]
    return {
        "name": method.rpc,
        "match": {"path": method.rpc, "headers": [_IS_GRPC]},
        "route": action,
        "metadata": _class(method.rate_class),
        **({"request_body_buffer_limit": _KEPT_FOR_RETRY} if method.client_streaming else {}),
        "request_headers_to_add": retries,
        "typed_per_filter_config": _filters(method),
    }


def _path(template: str) -> Route:
    if "{" not in template:
        return {"path": template}
    return {"safe_regex": {"regex": path_pattern(template)}}


def _class(rate_class: RateClass) -> Route:
    """Returns what the filters that count read of a route, by the name of one that can read no other."""
    return {"filter_metadata": {"envoy.filters.http.lua": {"rate_class": rate_class}}}


def _filters(method: Method, binding: Binding | None = None) -> Route:
    settings: Route = {"context_extensions": {"rpc": method.rpc}}
    if binding is not None and not method.client_streaming:
        settings["context_extensions"]["body"] = binding.body
    else:  # a message, or a file: nothing that authz can read
        settings["disable_request_body_buffering"] = True
    if method.query_token:
        settings["grpc_service"] = _WAIT_FOR_AUTHZ
    check = {
        "@type": f"{_TYPE}envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
        "check_settings": settings,
    }
    # What authz says has to be about this RPC.
    unasked = {
        "@type": f"{_TYPE}envoy.extensions.filters.http.fault.v3.HTTPFault",
        "headers": [
            {
                "name": "x-user-rpc",
                "string_match": {"exact": method.rpc},
                "invert_match": True,
                "treat_missing_header_as_empty": True,
            }
        ],
        "abort": {"http_status": 503, "percentage": {"numerator": 100}},
    }
    unlimited = {"envoy.filters.http.body_size_limit": _OFF} if method.client_streaming else {}
    stream = method.client_streaming or method.server_streaming
    admitted = {} if stream else {f"admission_{method.server}": _ON}
    return {
        "envoy.filters.http.ext_authz": check,
        "envoy.filters.http.fault": unasked,
        **unlimited,
        **_waits(method, binding),
        **admitted,
    }


def _waits(method: Method, binding: Binding | None) -> Route:
    """Returns how much of a request is waited for before it goes on: all that there may be, or nothing of streams."""
    if method.client_streaming or (binding is None and method.server_streaming):
        return {}
    if binding is None or binding.body:
        return {"envoy.filters.http.buffer": _ON}
    limit = {
        "@type": f"{_TYPE}envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
        "buffer": {"max_request_bytes": _MOST_OF_NO_BODY},
    }
    return {"envoy.filters.http.buffer": limit}
