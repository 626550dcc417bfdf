"""Tells which HTTP routes of one descriptor set are gone or changed in another: buf does not look at google.api.http.

Usage: python -m scripts.routes BEFORE NOW
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

# Importing them makes the options readable.
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

Route = tuple[str, str]
Effect = tuple[str, str, str]


def broken(before: bytes, now: bytes) -> list[str]:
    """Returns a line for each route that clients of `before` would miss. Both are FileDescriptorSets."""
    offered = dict(_routes(now))
    lines = []
    for (verb, path), (rpc, body, response) in _routes(before):
        if (verb, path) not in offered:
            lines.append(f"{verb} {path} ({rpc}) is gone")
        elif offered[verb, path] != (rpc, body, response):
            lines.append(f"{verb} {path} was {_told(rpc, body, response)}, is {_told(*offered[verb, path])}")
    return lines


def _routes(descriptors: bytes) -> Iterator[tuple[Route, Effect]]:
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
        for service in file.service:
            for method in service.method:
                rule = method.options.Extensions[annotations_pb2.http]
                for one in (rule, *rule.additional_bindings):
                    if verb := one.WhichOneof("pattern"):
                        # A variable's name is no business of an HTTP client.
                        path = re.sub(r"\{\w+\}", "{}", getattr(one, verb))
                        rpc = f"{file.package}.{service.name}/{method.name}"
                        yield (verb.upper(), path), (rpc, one.body, one.response_body)


def _told(rpc: str, body: str, response: str) -> str:
    return f"{rpc} with body {body or 'none'!r} and response body {response or 'all'!r}"


def main() -> None:
    """Compares the two files named. Ends with 1 when something breaks."""
    if lines := broken(*(Path(name).read_bytes() for name in sys.argv[1:3])):
        sys.exit("\n".join(lines))


if __name__ == "__main__":
    main()
