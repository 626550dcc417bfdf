"""Writes docs/errors.md: every error that a client can see, out of the error trees and the edge's own list.

Usage: python -m scripts.errors. A unit test tells when the page is out of date.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import yaml
from google.rpc.code_pb2 import Code

import authz
import services
from services.runtime.errors import Error

REPOSITORY = Path(__file__).parent.parent
PAGE = REPOSITORY / "docs/errors.md"

# How Envoy's transcoder, and google.rpc.Code itself, turn a code into an HTTP status.
_HTTP_STATUS = {
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}

_HEAD = """# Errors

Every error has one shape, whoever made it (a service, authz or Envoy): `google.rpc.Status` as JSON (AIP-193).

```json
{
  "code": 5,
  "message": "There is no payment pay_1.",
  "details": [
    {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "PAYMENT_NOT_FOUND", "domain": "drawbridge",
     "metadata": {"payment_id": "pay_1"}}
  ]
}
```

Programs go by `reason`; `message` is for people and may change. `metadata` has every variable of the message.
`BadRequest` names the fields that are wrong, `PreconditionFailure` what to mend first, `RetryInfo` (and `Retry-After`)
when to try again. gRPC clients get the same details in `grpc-status-details-bin`.

This page is made by `python -m scripts.errors` out of the code.
"""


def page() -> str:
    """Returns the page."""
    rows = sorted({*_raised(), *_from_the_edge()})
    lines = [f"| {http} | {Code.Name(code)} | `{reason}` | {message} |" for http, code, reason, message in rows]
    return "\n".join([_HEAD, "| HTTP | code | reason | message |", "|---|---|---|---|", *lines, ""])


def _raised() -> Iterator[tuple[int, int, str, str]]:
    """Yields what services and authz raise: the leaves of the error tree."""
    for package in (services, authz):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__") and ".migrations" not in module.name:
                importlib.import_module(module.name)
    for error in _leaves(Error):
        if error.message and error.__module__.split(".")[0] in ("services", "authz"):
            yield error.http_status or _HTTP_STATUS[error.code], error.code, error.reason, error.message


def _leaves(error: type[Error]) -> Iterator[type[Error]]:
    yield error
    for subclass in error.__subclasses__():
        yield from _leaves(subclass)


def _from_the_edge() -> Iterator[tuple[int, int, str, str]]:
    for one in yaml.safe_load((REPOSITORY / "envoy/errors.yaml").read_text()):
        yield one["status"], one["code"], one["reason"], one["message"].replace("%LOCAL_REPLY_BODY%", "{problem}")


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"errors: wrote {PAGE.relative_to(REPOSITORY)}")
