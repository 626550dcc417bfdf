"""A whole native stack as a test sees it: from outside, and with a hand on its processes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from scripts.stack import supervision
from scripts.stack.processes import Process, edge, services, stores
from scripts.stack.settings import Settings
from tests.waiting import wait_until


@dataclass(frozen=True, slots=True)
class Stack:
    """How to reach it, and ways to disturb it. Whoever disturbs it waits until it is well again."""

    settings: Settings
    edge_url: str
    edge_tls_url: str
    edge_ca: str
    admin_email: str
    admin_password: str

    def pid(self, name: str) -> int:
        """Returns the process id of a process: `payment`, `envoy`, `postgres`..."""
        return supervision.pid(self.settings.folder, name)

    def kill(self, name: str) -> None:
        """Kills a process and waits until another is ready in its place."""
        killed = self.pid(name)
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: self.pid(name) not in {0, killed}, f"{name} was not restarted")
        self.wait_until_ready(name)

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Stops a process in its tracks for a while: it accepts connections and never answers."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
            self.wait_until_ready(name)

    @contextmanager
    def without(self, name: str) -> Iterator[None]:
        """Ends a process for a while: it refuses connections."""
        supervision.stop_process(self.settings.folder, name)
        try:
            yield
        finally:
            supervision.start_process(self.settings.folder, name)
            self.wait_until_ready(name)

    def is_ready(self, name: str) -> bool:
        """Tells whether a process says that it is ready."""
        return self._process(name).ready()

    def wait_until_ready(self, name: str) -> None:
        """Waits until a process says that it is ready."""
        wait_until(self._process(name).ready, f"{name} is not ready")

    def in_flight(self, service: str) -> int:
        """Returns how many requests the edge has open with a service."""
        name = f"cluster.{service}.upstream_rq_active"
        url = f"http://127.0.0.1:{self.settings.ports['admin']}/stats"
        stats = httpx.get(url, params={"filter": f"^{name}$"}, trust_env=False).raise_for_status().text
        return int(stats.rpartition(":")[2])

    def log(self, name: str) -> str:
        """Returns what a process has logged so far."""
        return (self.settings.folder.logs / f"{name}.log").read_text(errors="replace")

    def wait_until_logged(self, name: str, *answers: httpx.Response) -> None:
        """Waits until a process has logged the requests that these are the answers to."""
        ids = [answer.headers["x-request-id"] for answer in answers]
        wait_until(lambda: all(one in self.log(name) for one in ids), f"{name} has not logged all of {ids}")

    def _process(self, name: str) -> Process:
        every = [*stores(self.settings), *edge(self.settings), *services(self.settings)]
        return next(process for process in every if process.name == name)
