"""The whole system in containers as a test sees it: from outside, and with a hand on its containers."""

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from testcontainers.compose import DockerCompose

from scripts.stack import ports
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
_LABEL = "com.docker.compose"


@cache
def engine_answers() -> bool:
    """Tells whether there is a Docker engine here, with compose."""
    try:
        asked = subprocess.run(["docker", "compose", "ls"], check=False, capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


@dataclass(frozen=True, slots=True)
class Project:
    """A compose project. Whoever disturbs it waits until it is well again."""

    name: str
    edge_url: str
    edge_tls_url: str
    edge_ca: str
    admin_email: str
    admin_password: str

    def compose(self, *arguments: str) -> str:
        """Runs docker compose. Returns what it prints. Raises RuntimeError with all it says when it fails."""
        done = subprocess.run(["docker", "compose", *arguments], check=False, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"docker compose {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def logs(self, since: float) -> str:
        """Returns the last lines of each container since a time (Unix, seconds)."""
        return self.compose("--ansi", "never", "logs", "--since", f"{since:.3f}", "--tail", "100")

    def scale(self, service: str, replicas: int) -> None:
        """Has that many containers of a service, and waits until they are healthy."""
        self.compose("up", "--detach", "--wait", "--no-recreate", "--scale", f"{service}={replicas}")

    def containers(self, service: str = "") -> list[Container]:
        """Returns the running containers, of one service or of all."""
        return _of_project(docker.from_env().containers, self.name, service)

    def container(self, service: str) -> Container:
        """Returns the one running container of a service."""
        [one] = self.containers(service)
        return one

    @contextmanager
    def without(self, *services: str) -> Iterator[None]:
        """Kills services' containers (SIGKILL) for a while, and starts them again the other way round."""
        killed = [self.container(service) for service in services]
        for container in killed:
            container.kill()
        try:
            yield
        finally:
            for container in reversed(killed):
                container.start()
            for container in killed:
                self.wait_until_ready(container)

    def wait_until_ready(self, container: Container) -> None:
        """Waits until a container runs and, if it has a health check, passes it."""
        wait_until(lambda: _is_ready(container), f"{container.name} is not ready", seconds=60)


@contextmanager
def running(folder: Path) -> Iterator[Project]:
    """Builds the images, starts the project on free ports, and takes all of it away at the end."""
    name, (edge_port, edge_tls_port) = f"drawbridge-test-{secrets.token_hex(4)}", ports.free(2)
    project = Project(
        name,
        edge_url=f"http://127.0.0.1:{edge_port}",
        edge_tls_url=f"https://127.0.0.1:{edge_tls_port}",
        edge_ca=str(folder / "edge-ca.pem"),
        admin_email="treasurer@drawbridge.example",
        admin_password=secrets.token_urlsafe(18),
    )
    with pytest.MonkeyPatch.context() as environment:  # it has precedence over all else that compose reads
        environment.setenv("COMPOSE_PROJECT_NAME", name)
        environment.setenv("EDGE_PORT", str(edge_port))
        environment.setenv("EDGE_TLS_PORT", str(edge_tls_port))
        environment.setenv("ADMIN_EMAIL", project.admin_email)
        environment.setenv("ADMIN_PASSWORD", project.admin_password)
        compose = DockerCompose(ROOT, build=True)
        try:
            _start(compose)
            project.compose("cp", "envoy:/etc/drawbridge/certs/edge-ca.pem", project.edge_ca)
            yield project
        finally:
            compose.stop()
            assert _left_of(name) == []


def _start(compose: DockerCompose) -> None:
    try:
        compose.start()
    except subprocess.CalledProcessError:
        print(*compose.get_logs(), sep="\n")  # pytest shows it with the failure, beside what compose itself has said
        raise


def _left_of(project: str) -> list[Any]:
    """Returns what there is of a project, running or not."""
    engine = docker.from_env()
    return [
        *_of_project(engine.containers, project, all=True),
        *_of_project(engine.volumes, project),
        *_of_project(engine.networks, project),
    ]


def _of_project(collection: Any, project: str, service: str = "", **options: bool) -> list[Any]:
    labels = [f"{_LABEL}.project={project}"] + ([f"{_LABEL}.service={service}"] if service else [])
    found: list[Any] = collection.list(filters={"label": labels}, **options)
    return found


def _is_ready(container: Container) -> bool:
    container.reload()
    state = container.attrs["State"]
    return bool(state["Running"] and state.get("Health", {"Status": "healthy"})["Status"] == "healthy")
