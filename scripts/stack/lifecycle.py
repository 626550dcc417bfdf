"""Brings a stack up and down."""

import fcntl
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from render import RenderError, render

from scripts.stack import certificates, nats, postgres, supervision
from scripts.stack.folder import CONTRACT, RunFolder, StackError
from scripts.stack.processes import Process, edge, services, stores
from scripts.stack.settings import SERVICES, Settings, choose, load
from services.runtime import migrate

START_SECONDS = 60.0
_POLL_SECONDS = 0.05
_LOG_LINES = 25


def up(folder: RunFolder, edge_port: int, edge_tls_port: int, wishes: Mapping[str, str] | None = None) -> Settings:
    """Starts what does not run yet and waits until all is ready. Leaves nothing running when it fails.

    A port of 0 is any free one; `wishes` are variables for its processes (processes.WISHES). Raises StackError.
    """
    with _alone(folder):
        if supervision.running(folder):
            settings = load(folder)
        else:
            supervision.stop(folder)  # what a killed supervisor left behind
            settings = _prepare(folder, edge_port, edge_tls_port, wishes)
        groups = {"stores": stores(settings), "services": services(settings), "edge": edge(settings)}
        try:
            if not supervision.running(folder):
                supervision.start(folder, groups)
            _start(folder, groups)
        except BaseException:
            supervision.stop(folder)
            raise
        return settings


def down(folder: RunFolder) -> None:
    """Ends all processes of the stack. Its data stays."""
    with _alone(folder):
        supervision.stop(folder)


def clean(folder: RunFolder) -> None:
    """Ends all processes of the stack and removes its run folder with the data."""
    down(folder)
    shutil.rmtree(folder.path)
    shutil.rmtree(folder.sockets, ignore_errors=True)


def _prepare(folder: RunFolder, edge_port: int, edge_tls_port: int, wishes: Mapping[str, str] | None) -> Settings:
    settings = choose(folder, edge_port, edge_tls_port, wishes)
    certificates.issue(folder.certificates)
    (folder.data / "documents").mkdir(exist_ok=True)
    nats.prepare(folder, settings.ports["nats"])
    values = {
        **{f"{name.upper()}_PORT": str(port) for name, port in settings.ports.items()},
        "CERTS": str(folder.certificates),
        "CONTRACT": str(CONTRACT),
        "LIMITS": settings.wishes.get("LIMITS", ""),
    }
    with ThreadPoolExecutor() as pool:  # both take about a second, most of it in another process
        database = pool.submit(postgres.prepare, folder)
        try:
            render("native", values, folder.path / "envoy")
        except RenderError as error:
            raise StackError(f"The edge's configuration cannot be made: {error}") from error
        database.result()
    settings.save()
    return settings


def _start(folder: RunFolder, groups: Mapping[str, Sequence[Process]]) -> None:
    waiting = _Waiting(folder)
    for group in ("stores", "edge"):
        supervision.start_group(folder, group)
    waiting.until_ready(groups["stores"])
    postgres.create_databases(folder, SERVICES)
    for service in SERVICES:
        migrate.upgrade(service, postgres.url(folder, service, service))
    supervision.start_group(folder, "services")
    waiting.until_ready([*groups["services"], *groups["edge"]])


class _Waiting:
    """Waits for processes and says which is ready when."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._since = time.time()
        self._began = time.monotonic()

    def until_ready(self, processes: Sequence[Process]) -> None:
        """Raises StackError when one ends, or is not ready in time."""
        waiting = list(processes)
        while waiting:
            for process in [process for process in waiting if process.ready()]:
                waiting.remove(process)
                print(f"  {process.name:<14}ready after {time.monotonic() - self._began:4.1f} s", flush=True)
            if waiting and (ended := supervision.broken(self._folder, self._since)):
                raise StackError(self._told(ended, "ended instead of serving"))
            if waiting and time.monotonic() - self._began > START_SECONDS:
                raise StackError(self._told([process.name for process in waiting], "is not ready"))
            time.sleep(_POLL_SECONDS if waiting else 0)

    def _told(self, names: Sequence[str], what: str) -> str:
        path = self._folder.logs / f"{names[0]}.log"
        lines = path.read_text(errors="replace").splitlines()[-_LOG_LINES:] if path.exists() else []
        return "\n".join([f"{names[0]} {what}. The end of {path}:", *(f"    {line}" for line in lines)])


@contextmanager
def _alone(folder: RunFolder) -> Iterator[None]:
    """Keeps a second command off the same run folder."""
    with folder.lock.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
