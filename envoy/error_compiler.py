"""Compiles errors.yaml into mappers of Envoy's local replies: its own errors, in the one shape of the API."""

from collections.abc import Mapping, Sequence
from typing import Any

Mapper = dict[str, Any]
Condition = dict[str, Any]


def compile_errors(errors: list[dict[str, Any]]) -> list[Mapper]:
    """Returns the mappers in the order in which they are tried, the first that fits being taken."""
    return [mapper for error in errors for mapper in _mappers(**error)]


def _mappers(
    *,
    status: int,
    code: int,
    reason: str,
    message: str,
    grpc_code: int | None = None,
    granted: bool = False,
    headers: Mapping[str, str] | None = None,
    made_as: int = 0,
    flag: str = "",
    retry_after: Sequence[int] = (),
) -> list[Mapper]:
    made_as = made_as or status
    is_status = {"op": "EQ", "value": {"default_value": made_as, "runtime_key": f"edge.error.{made_as}"}}
    conditions: list[Condition] = [
        {"response_flag_filter": {"flags": [flag]}} if flag else {"status_code_filter": {"comparison": is_status}}
    ]
    if granted:
        conditions.append(_request_header("x-user-rpc", present_match=True))
    # A transcoded request looks like gRPC too, but has an original path.
    from_grpc_client = [
        _request_header("content-type", string_match={"safe_regex": {"regex": r"application/grpc(\+.*)?"}}),
        _request_header("x-envoy-original-path", present_match=True, invert_match=True),
    ]
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "drawbridge"}
    grpc = {
        "filter": _all([*conditions, *from_grpc_client]),
        "body_format_override": {"text_format_source": {"inline_string": message}},  # becomes grpc-message
        "headers_to_add": _headers(
            {"grpc-status": str(code if grpc_code is None else grpc_code), "x-request-id": "%UNIQUE_ID%"}
        ),
    }
    rest = {
        "filter": _all(conditions),
        "body_format_override": {
            "content_type": "application/json",
            "json_format": {"code": code, "message": message, "details": [info]},
        },
        # Stands in for the id of a request that could not be read far enough to get one.
        "headers_to_add": _headers(
            {"x-request-id": "%UNIQUE_ID%", "x-content-type-options": "nosniff", **(headers or {})}
        ),
    }
    mappers = [grpc, *_at_random(rest, retry_after)]
    if flag or made_as != status:
        for mapper in mappers:
            mapper["status_code"] = status
    return mappers


def _at_random(mapper: Mapper, retry_after: Sequence[int]) -> list[Mapper]:
    """Returns a mapper that says each of these seconds as often as any other: several, of which the first that fits."""
    if not retry_after:
        return [mapper]
    return [
        {
            **mapper,
            "filter": _all([mapper["filter"], _by_chance(1 / left)]) if left > 1 else mapper["filter"],
            "headers_to_add": [*mapper["headers_to_add"], *_headers({"retry-after": str(seconds)})],
        }
        for left, seconds in zip(range(len(retry_after), 0, -1), retry_after, strict=True)
    ]


def _by_chance(share: float) -> Condition:
    parts = {"numerator": round(share * 10_000), "denominator": "TEN_THOUSAND"}
    return {
        "runtime_filter": {
            "runtime_key": "edge.error.chance",
            "percent_sampled": parts,
            "use_independent_randomness": True,
        }
    }


def _headers(headers: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"header": {"key": key, "value": value}, "append_action": "ADD_IF_ABSENT"} for key, value in headers.items()
    ]


def _request_header(name: str, **match: Any) -> Condition:
    return {"header_filter": {"header": {"name": name, **match}}}


def _all(conditions: list[Condition]) -> Condition:
    return {"and_filter": {"filters": conditions}} if len(conditions) > 1 else conditions[0]
