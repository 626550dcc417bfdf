"""The native stack as a person has it: commands, what they print, and what survives."""

import json
import os
import shlex
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from scripts.stack import lifecycle, supervision
from scripts.stack.folder import REPOSITORY, RunFolder, run_folder
from scripts.stack.settings import SERVERS, choose, load
from tests.edge.stack import Stack
from tests.waiting import wait_until

READY_SECONDS = 60


def command(name: str, run: Path) -> subprocess.CompletedProcess[str]:
    """Runs what `make name` runs."""
    variables = {**os.environ, "RUN_DIR": str(run), "EDGE_PORT": "0", "EDGE_TLS_PORT": "0"}
    arguments = [sys.executable, "-m", "scripts.stack", name]
    return subprocess.run(arguments, cwd=REPOSITORY, env=variables, check=False, capture_output=True, text=True)


def answers(stack: Stack) -> bool:
    """Tells whether a request makes it through the edge, authz, a service and its database."""
    body = {"email": stack.admin_email, "password": stack.admin_password}
    with httpx.Client(trust_env=False) as client:
        try:
            return client.post(f"{stack.edge_url}/api/v1/sessions", json=body).status_code == 201
        except httpx.HTTPError:
            return False


def test_up_again_changes_nothing(stack: Stack) -> None:
    before = {name: stack.pid(name) for name in (*SERVERS, "envoy", "postgres", "nats")}
    again = command("up", stack.settings.folder.path)
    assert again.returncode == 0, again.stderr
    assert stack.edge_url in again.stdout
    assert stack.edge_tls_url in again.stdout
    assert {name: stack.pid(name) for name in before} == before


def test_status_names_every_process(stack: Stack) -> None:
    told = command("status", stack.settings.folder.path)
    assert told.returncode == 0, told.stdout
    assert {line.split()[0] for line in told.stdout.splitlines()} == {*SERVERS, "envoy", "postgres", "nats"}


def test_dead_letters_are_listed_while_it_runs(stack: Stack) -> None:
    told = command("deadletters", stack.settings.folder.path)
    assert (told.returncode, told.stdout) == (0, "There are no dead letters.\n")


def test_the_shell_assignments_are_all_there_and_nobody_elses(stack: Stack) -> None:
    file = stack.settings.folder.env
    assert file.stat().st_mode & 0o777 == 0o600
    assert dict(word.split("=", 1) for word in shlex.split(file.read_text())) == stack.settings.reach()


def test_the_edge_is_all_that_can_be_reached_without_a_certificate(stack: Stack) -> None:
    trust = ssl.create_default_context(cafile=str(stack.settings.folder.certificates / "ca.pem"))
    for name in (*SERVERS, "keys"):
        with httpx.Client(verify=trust, trust_env=False) as client, pytest.raises(httpx.HTTPError):
            client.get(f"https://{stack.settings.address(name)}/")


@pytest.mark.parametrize("name", [*SERVERS, "envoy", "nats", "postgres"])
def test_a_killed_process_is_started_again_and_the_system_goes_on(stack: Stack, name: str) -> None:
    stack.kill(name)
    wait_until(lambda: answers(stack), f"no log-in after {name} was killed", READY_SECONDS)
    for server in SERVERS:
        stack.wait_until_ready(server)


@pytest.fixture
def second() -> Iterator[RunFolder]:
    """The run folder of a stack beside the one that all tests share."""
    made = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-test-")))
    yield made
    lifecycle.clean(made)


def test_data_stays_when_a_stack_goes_down_and_comes_up_again(second: RunFolder) -> None:
    first = lifecycle.up(second, 0, 0)
    person = {"email": "ada@example.com", "password": "correct horse battery"}
    profile = {"displayName": "Ada", "country": "DE", "dateOfBirth": {"year": 1985, "month": 12, "day": 10}}
    signed_up = httpx.post(f"{first.reach()['EDGE_URL']}/api/v1/users", json=person | profile, trust_env=False)
    assert signed_up.status_code == 201

    down = command("down", second.path)
    assert down.returncode == 0, down.stderr
    assert command("status", second.path).returncode == 1

    up = command("up", second.path)
    assert up.returncode == 0, up.stderr
    again = load(second)
    logged_in = httpx.post(f"{again.reach()['EDGE_URL']}/api/v1/sessions", json=person, trust_env=False)
    assert logged_in.status_code == 201
    assert again.secrets == first.secrets


def test_a_service_that_does_not_start_is_told_with_its_last_words_and_nothing_is_left(second: RunFolder) -> None:
    secrets = choose(second, 0, 0).secrets
    (second.data / "secrets.json").write_text(json.dumps({**secrets, "ADMIN_PASSWORD": "short"}))
    up = command("up", second.path)
    assert up.returncode == 1
    assert "user ended instead of serving" in up.stderr
    assert "ADMIN_PASSWORD" in up.stderr
    assert not supervision.running(second)
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if str(second.path) in " ".join(one.info["cmdline"] or [])
    ]
