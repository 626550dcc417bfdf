"""Real stores, the same as in the native stack: one Postgres and one NATS per test run."""

import itertools
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Unpack

import pytest
import structlog

from scripts.stack import certificates as issuer
from scripts.stack import nats, ports, postgres
from scripts.stack.folder import RunFolder, run_folder
from services.runtime import migrate
from tests.integration.archive import Archive, open_archive
from tests.integration.reading import House, Place, living, open_place

FreshDatabase = Callable[[str], str]


@pytest.fixture(autouse=True, scope="session")
def _plain_tracebacks() -> None:
    """By default structlog takes a third of a second to print one in colours, with the values of variables."""
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[structlog.processors.add_log_level, plain])


@pytest.fixture(scope="session")
def folder() -> Iterator[RunFolder]:
    """The run folder of the stores. Not tmp_path: Postgres, which is not run as root, has to reach it."""
    made = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-test-")))
    yield made
    shutil.rmtree(made.path)


@pytest.fixture(scope="session")
def certificates(folder: RunFolder) -> Path:
    """The folder with the mesh's CA (ca.pem) and a certificate and key per process (user.pem, user.key)."""
    issuer.issue(folder.certificates)
    return folder.certificates


@pytest.fixture(scope="session")
def fresh_database(folder: RunFolder) -> Iterator[FreshDatabase]:
    """Returns the URL of a new database with the schema of a service."""
    numbers = itertools.count(1)
    migrated: set[str] = set()

    def make(service: str) -> str:
        if service not in migrated:
            postgres.create_databases(folder, [service])
            migrate.upgrade(service, postgres.url(folder, service, service))
            migrated.add(service)
        return postgres.create_database(folder, f"{service}_{next(numbers)}", owner=service, template=service)

    postgres.prepare(folder)
    with _running(postgres.command(folder), folder, lambda: postgres.ready(folder), **postgres.account()):
        yield make


@pytest.fixture(scope="session")
def nats_url(folder: RunFolder, certificates: Path) -> Iterator[str]:
    """The URL of a NATS server with JetStream, for clients with a certificate of the mesh."""
    [port] = ports.free(1)
    nats.prepare(folder, port)
    with _running(nats.command(folder), folder, lambda: nats.ready(port)):
        yield nats.url(port)


@pytest.fixture(scope="module")
async def archive(
    fresh_database: FreshDatabase, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Archive]:
    """The document service. Nobody reads what is uploaded."""
    async with open_archive(fresh_database("document"), certificates, tmp_path_factory.mktemp("objects")) as archive:
        yield archive


@pytest.fixture(scope="module")
async def place(
    fresh_database: FreshDatabase, nats_url: str, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Place]:
    """The same, and who hears of it."""
    folder = tmp_path_factory.mktemp("objects")
    async with open_place(fresh_database("document"), nats_url, certificates, folder) as opened:
        yield opened


@pytest.fixture
async def quiet(place: Place) -> AsyncIterator[House]:
    """Nobody reads."""
    async with living(place) as house:
        yield house


@pytest.fixture
async def house(quiet: House) -> AsyncIterator[House]:
    """One replica reads."""
    async with quiet.replica():
        yield quiet


@contextmanager
def _running(
    command: Sequence[str], folder: RunFolder, ready: Callable[[], bool], **account: Unpack[postgres.Account]
) -> Iterator[None]:
    log = folder.logs / Path(command[0]).name
    with log.open("wb") as output, subprocess.Popen(command, **account, stdout=output, stderr=output) as process:
        try:
            deadline = time.monotonic() + 30
            while not ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{command[0]} did not start:\n{log.read_text()}")
                time.sleep(0.02)
            yield
        finally:
            process.send_signal(signal.SIGINT)
