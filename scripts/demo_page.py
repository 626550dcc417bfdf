"""Makes requests and shows them: what was asked, the status, and what came back."""

import http
import json
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

Json = dict[str, Any]

_SECRET = {"password", "accessToken", "refreshToken"}
_PATIENCE_SECONDS = 15.0
_PAUSE_SECONDS = 0.2


class Unexpected(Exception):
    """Something is not as it should be."""


class Page:
    """What the reader sees, from top to bottom. In colour on a terminal, plain elsewhere."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._console = Console(highlight=False, soft_wrap=True)

    def title(self, text: str) -> None:
        """Begins a chapter."""
        self._console.print(f"\n{text}", style="bold cyan", markup=False)

    def expect(self, good: bool, otherwise: str) -> None:
        """Raises Unexpected unless it is good."""
        if not good:
            raise Unexpected(otherwise)

    def call(self, who: str, method: str, path: str, *, token: str = "", status: int = 200, **request: Any) -> Json:
        """Makes a request and returns what came back. Raises Unexpected when the status is another one."""
        request["headers"] = {**_authorization(token), **request.get("headers", {})}
        response = self._client.request(method, path, **request)
        self._request(who, method, path, request)
        self._response(response, status)
        if response.status_code != status:
            raise Unexpected(f"{method} {path} answered {response.status_code}, not {status}: {response.text}")
        body: Json = response.json()
        return body

    def call_until(self, who: str, path: str, token: str, what: str, good: Callable[[Json], bool]) -> Json:
        """Reads again until what came back is good, for what an event brings about in a moment. Shows the last."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            response = self._client.get(path, headers=_authorization(token))
            if response.is_success and good(response.json()):
                return self.call(who, "GET", path, token=token)
            time.sleep(_PAUSE_SECONDS)
        raise Unexpected(f"{who} was not {what} within {_PATIENCE_SECONDS:.0f} s: GET {path} answers {response.text}")

    def watch(self, who: str, path: str, token: str) -> list[str]:
        """Follows Server-Sent Events to `event: end`, showing each as it comes. Returns the states."""
        states: list[str] = []
        event = ""
        self._request(who, "GET", path, {})
        began = time.monotonic()
        with self._client.stream("GET", path, headers=_authorization(token)) as response:
            if response.status_code != http.HTTPStatus.OK:
                raise Unexpected(f"GET {path} answered {response.status_code}: {response.read().decode()}")
            for line in response.iter_lines():
                if line:
                    self._console.print(Text(f"  {time.monotonic() - began:6.3f} s  ", "dim").append(line, "green"))
                name, _, value = line.partition(": ")
                if name == "event":
                    event = value
                elif name == "data" and event == "payment":
                    states.append(json.loads(value)["state"])
        if event != "end":
            raise Unexpected(f"the stream broke off after {states}")
        return states

    def _request(self, who: str, method: str, path: str, request: Mapping[str, Any]) -> None:
        line = Text("  ").append(f"{who}: ", "dim").append(f"{method} {path}", "bold")
        for header, value in request.get("headers", {}).items():
            if header != "authorization":
                line.append(f"  {header}: {value}")
        if "json" in request:
            line.append(f"  {json.dumps(_shown(request['json']), ensure_ascii=False)}")
        for name, (file, content, media_type) in request.get("files", {}).items():
            line.append(f"  multipart: {request['data']}, {name}={file} ({media_type}, {len(content):,} bytes)")
        self._console.print(line)

    def _response(self, response: httpx.Response, expected: int) -> None:
        style = "bold green" if response.status_code == expected else "bold red"
        line = Text("    ").append(f"{response.status_code} {response.reason_phrase}", style)
        line.append(f"  {response.elapsed.total_seconds() * 1000:.0f} ms", "dim")
        if "location" in response.headers:
            line.append(f"  Location: {response.headers['location']}", "dim")
        self._console.print(line)
        if "json" in response.headers.get("content-type", ""):
            self._console.print(Text(_laid_out(_shown(response.json()))))


def amount(money: Json) -> Decimal:
    """Returns the number in a google.type.Money."""
    return Decimal(money["units"]) + Decimal(money["nanos"]).scaleb(-9)


def _authorization(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"} if token else {}


def _shown(value: Any) -> Any:
    """Leaves out what is nobody's business."""
    if isinstance(value, dict):
        return {name: "…" if name in _SECRET else _shown(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shown(inner) for inner in value]
    return value


def _laid_out(body: Json) -> str:
    """Writes JSON with a line per field of the outermost object, and one per item of a list."""
    fields = []
    for name, value in body.items():
        items = [json.dumps(item, ensure_ascii=False) for item in value] if isinstance(value, list) else []
        if len(items) > 1:
            text = "[\n        " + ",\n        ".join(items) + "\n      ]"
        else:
            text = json.dumps(value, ensure_ascii=False)
        fields.append(f'      "{name}": {text}')
    return "    {\n" + ",\n".join(fields) + "\n    }"
