"""What `make up`, `down`, `status`, `logs` and `clean` do, and what a person sees of it."""

import os
import sys
import time

from scripts.stack import lifecycle, supervision
from scripts.stack.folder import REPOSITORY, RunFolder, StackError, run_folder
from scripts.stack.settings import Settings


def chosen_folder() -> RunFolder:
    """Returns the run folder that the environment names: RUN_DIR, or .run in the repository."""
    return run_folder(REPOSITORY / os.environ.get("RUN_DIR", ".run"))


def up(folder: RunFolder) -> Settings:
    """Starts the stack and prints how to reach it. Raises StackError."""
    began = time.monotonic()
    print(f"up: Postgres, NATS, Envoy, authz and the services, in {folder.path}", flush=True)
    settings = lifecycle.up(folder, _port("EDGE_PORT", "8080"), _port("EDGE_TLS_PORT", "8443"), os.environ)
    reach = settings.reach()
    print(f"up: all ready after {time.monotonic() - began:.1f} s")
    print(f"\n  {reach['EDGE_URL']}   {reach['EDGE_TLS_URL']}\n\n  For a shell: . {folder.env}")
    return settings


def down(folder: RunFolder) -> None:
    """Ends the stack."""
    lifecycle.down(folder)
    print(f"down: nothing runs; the data stays in {folder.data}")


def status(folder: RunFolder) -> None:
    """Prints a line per process. Ends with 1 when not all run."""
    if not supervision.running(folder):
        sys.exit("status: It is down. Start it: make up")
    processes = supervision.status(folder)
    for process in processes:
        print(f"  {process['name']:<14}{process['statename'].lower():<10}{process['description']}")
    if any(process["statename"] != "RUNNING" for process in processes):
        sys.exit(1)


def logs(folder: RunFolder) -> None:
    """Prints the end of every log; on a terminal it follows them."""
    files = sorted(str(path) for path in folder.logs.glob("*.log"))
    if not files:
        raise StackError("There are no logs yet. Start it: make up")
    follow = ["-F"] if sys.stdout.isatty() else []
    os.execvp("tail", ["tail", "-n", "20", *follow, *files])


def clean(folder: RunFolder) -> None:
    """Ends the stack and removes all it wrote."""
    lifecycle.clean(folder)
    print(f"clean: {folder.path} is gone, with the data")


def _port(variable: str, default: str) -> int:
    value = os.environ.get(variable, default)
    if not value.isdecimal() or int(value) > 65535:
        raise StackError(f"{variable} must be a port, 0 to 65535, not {value!r}")
    return int(value)
