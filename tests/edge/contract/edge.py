"""A real Envoy with the configuration of the native stack, on ports of its own."""

import json
import socket
import subprocess
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jsonschema
from render import render

from scripts.stack import ports
from tests.edge.contract.backend import TOKEN
from tests.waiting import wait_until

CONTRACT = Path("gen/contract.binpb")
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}
_ERROR = json.loads((Path(__file__).parents[1] / "error.schema.json").read_text())


@dataclass(frozen=True)
class Edge:
    """Where the edge listens, and what it has logged."""

    port: int
    tls_port: int
    keys_port: int
    certificates: Path
    _folder: Path
    _values: Mapping[str, str]

    @property
    def url(self) -> str:
        """The base of every path."""
        return f"http://127.0.0.1:{self.port}"

    def wait_for_log(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Returns the first entry of the access log that is wanted."""
        wait_until(lambda: any(map(wanted, self._entries())), f"there is no such line in the log in {self._folder}")
        return next(filter(wanted, self._entries()))

    def log_text(self) -> str:
        """Returns all that Envoy has written."""
        return (self._folder / "envoy.log").read_text()

    def render(self, **values: str) -> None:
        """Renders its configuration anew, with other values."""
        render("native", {**self._values, **values}, self._folder)

    def _entries(self) -> Iterator[dict[str, Any]]:
        return (json.loads(line) for line in self.log_text().splitlines(keepends=True) if line.endswith("}\n"))


def reason_of(response: httpx.Response) -> str:
    """Returns the reason of an error, which has to have the one shape."""
    assert response.headers["content-type"] == "application/json"
    error = response.json()
    jsonschema.validate(error, _ERROR)
    return str(next(one["reason"] for one in error["details"] if "reason" in one))


@contextmanager
def running(folder: Path, certificates: Path, services: Mapping[str, int]) -> Iterator[Edge]:
    """Runs Envoy in front of services on these ports of loopback."""
    names = ["EDGE_PORT", "EDGE_TLS_PORT", "KEYS_PORT", "ADMIN_PORT"]
    edge_port, tls_port, keys_port, _ = own = ports.free(len(names), but=[*services.values()])
    values = {
        **{name: str(port) for name, port in zip(names, own, strict=True)},
        **{f"{service.upper()}_PORT": str(port) for service, port in services.items()},
        "CERTS": str(certificates),
        "CONTRACT": str(CONTRACT),
    }
    edge = Edge(edge_port, tls_port, keys_port, certificates, folder, values)
    edge.render()
    envoy = Path(sysconfig.get_path("scripts"), "envoy")
    options = ["--disable-hot-restart", "--concurrency", "2", "-l", "warn", "--file-flush-interval-msec", "50"]
    with (
        (folder / "envoy.log").open("wb") as log,
        subprocess.Popen([envoy, "-c", "bootstrap.yaml", *options], cwd=folder, stdout=log, stderr=log) as process,
    ):
        try:
            for port in own:
                wait_until(partial(_listens, port), f"Envoy does not listen; see envoy.log in {folder}")
            yield edge
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
