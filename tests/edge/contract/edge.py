"""A real Envoy with the configuration of the native stack, on ports of its own."""

import json
import subprocess
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import yaml
from render import render

from scripts.stack import ports, probes
from services.runtime.contract import Method
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
    probes_port: int
    certificates: Path
    folder: Path
    _environment: str
    _values: Mapping[str, str]

    @property
    def url(self) -> str:
        """The base of every path."""
        return f"http://127.0.0.1:{self.port}"

    def probe(self, path: str) -> httpx.Response:
        """Asks as a kubelet does."""
        return httpx.get(f"http://127.0.0.1:{self.probes_port}{path}", timeout=15)

    def is_ready(self) -> bool:
        """Tells whether Envoy says so."""
        return probes.ready(self.probes_port)

    def is_live(self) -> bool:
        """Tells whether Envoy runs and has its listeners."""
        try:
            return self.probe("/live").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def add_replicas(self, service: str, *replicas: int) -> None:
        """Has a service at more ports of loopback, until it is rendered again."""
        path = self.folder / "clusters.yaml"
        clusters = yaml.safe_load(path.read_text())
        [assignment] = [one["load_assignment"] for one in clusters["resources"] if one["name"] == service]
        [endpoints] = assignment["endpoints"]
        for port in replicas:
            address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
            endpoints["lb_endpoints"].append({"endpoint": {"address": address}})
        changed = path.with_name("changed")
        changed.write_text(yaml.safe_dump(clusters))
        changed.replace(path)
        total = len(endpoints["lb_endpoints"])
        wait_until(lambda: self.stat(f"cluster.{service}.membership_total") == total, "the replicas are not known")

    def stat(self, name: str) -> int:
        """Returns a counter or gauge of Envoy's."""
        url = f"http://127.0.0.1:{self._values['ADMIN_PORT']}/stats"
        return int(httpx.get(url, params={"filter": f"^{name}$"}).raise_for_status().text.rpartition(":")[2])

    def wait_for_log(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Returns the first entry of the access log that is wanted."""
        wait_until(lambda: any(map(wanted, self._entries())), f"there is no such line in the log in {self.folder}")
        return next(filter(wanted, self._entries()))

    def log_text(self) -> str:
        """Returns all that Envoy has written."""
        return (self.folder / "envoy.log").read_text()

    def render(self, **values: str) -> None:
        """Renders its configuration anew, with other values."""
        render(self._environment, {**self._values, **values}, self.folder)

    def _entries(self) -> Iterator[dict[str, Any]]:
        return (json.loads(line) for line in self.log_text().splitlines(keepends=True) if line.endswith("}\n"))


def reason_of(response: httpx.Response) -> str:
    """Returns the reason of an error, which has to have the one shape."""
    assert response.headers["content-type"] == "application/json"
    error = response.json()
    jsonschema.validate(error, _ERROR)
    return str(next(one["reason"] for one in error["details"] if "reason" in one))


def server_ports(methods: Mapping[str, Method], *others: str) -> dict[str, int]:
    """Returns a free port for each server that the edge may ask."""
    names = sorted({"authz", *others, *(method.server for method in methods.values() if method.access != "none")})
    return dict(zip(names, ports.free(len(names)), strict=True))


@contextmanager
def running(
    folder: Path, certificates: Path, services: Mapping[str, int], environment: str = "native", **values: str
) -> Iterator[Edge]:
    """Runs Envoy in front of services on these ports of loopback."""
    edge = rendered(folder, certificates, services, environment, **values)
    with started(edge):
        wait_until(edge.is_ready, f"Envoy is not ready; see envoy.log in {folder}")
        yield edge


def rendered(
    folder: Path, certificates: Path, services: Mapping[str, int], environment: str = "native", **values: str
) -> Edge:
    """Returns an edge that does not run yet."""
    names = ["EDGE_PORT", "EDGE_TLS_PORT", "KEYS_PORT", "PROBES_PORT", "ADMIN_PORT"]
    edge_port, tls_port, keys_port, probes_port, _ = own = ports.free(len(names), but=[*services.values()])
    values = {
        **{name: str(port) for name, port in zip(names, own, strict=True)},
        **{f"{service.upper()}_PORT": str(port) for service, port in services.items()},
        "CERTS": str(certificates),
        "CONTRACT": str(CONTRACT),
        **values,
    }
    edge = Edge(edge_port, tls_port, keys_port, probes_port, certificates, folder, environment, values)
    edge.render()
    return edge


@contextmanager
def started(edge: Edge) -> Iterator[None]:
    """Runs Envoy with what is rendered, and waits until it answers."""
    envoy = Path(sysconfig.get_path("scripts"), "envoy")
    options = ["--disable-hot-restart", "--concurrency", "2", "-l", "warn", "--file-flush-interval-msec", "50"]
    with (
        (edge.folder / "envoy.log").open("wb") as log,
        subprocess.Popen([envoy, "-c", "bootstrap.yaml", *options], cwd=edge.folder, stdout=log, stderr=log) as process,
    ):
        try:
            wait_until(edge.is_live, f"Envoy does not answer; see envoy.log in {edge.folder}")
            yield
        finally:
            process.terminate()
