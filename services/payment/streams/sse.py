"""Server-Sent Events (WHATWG HTML, 9.2)."""

from google.api import httpbody_pb2
from google.protobuf import json_format
from google.protobuf.message import Message

CONTENT_TYPE = "text/event-stream"


def event(name: str, data: str, position: int | None = None) -> httpbody_pb2.HttpBody:
    """Returns an event. `data` has no line breaks."""
    head = f"id: {position}\n" if position is not None else ""
    return _body(f"{head}event: {name}\ndata: {data}\n\n")


def comment(text: str) -> httpbody_pb2.HttpBody:
    """Returns what clients pass over."""
    return _body(f": {text}\n\n")


def retry(seconds: float) -> httpbody_pb2.HttpBody:
    """Tells the client how long to wait before it opens the stream again, whenever it ends."""
    return _body(f"retry: {round(seconds * 1000)}\n\n")


def json(message: Message) -> str:
    """Returns a message as clients of REST see it, in one line."""
    return json_format.MessageToJson(message, indent=None, always_print_fields_with_no_presence=True)


def _body(text: str) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(content_type=CONTENT_TYPE, data=text.encode())
