"""supervisor: starts the processes of a stack, restarts those that end, and ends them all."""

import configparser
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from typing import Any
from xmlrpc.client import Fault, ServerProxy

import psutil
from supervisor.xmlrpc import SupervisorTransport

from scripts.stack.folder import RunFolder, StackError
from scripts.stack.processes import Process, mark

# Carried in the environment of every process of a stack: by this they are found when supervisor is gone.
_MARK = "DRAWBRIDGE_RUN_FOLDER"
_STOP_SECONDS = 15
_BROKEN = {"BACKOFF", "EXITED", "FATAL"}


def start(folder: RunFolder, groups: Mapping[str, Iterable[Process]]) -> None:
    """Starts supervisor with these groups of processes, none of which runs yet. It stops the last group first."""
    configuration = folder.path / "supervisord.conf"
    configuration.touch(mode=0o600)
    with configuration.open("w") as file:
        _configuration(folder, groups).write(file)
    for log in folder.logs.iterdir():
        log.unlink()
    done = subprocess.run(
        [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(configuration)],
        env={"PATH": os.environ.get("PATH", os.defpath), _MARK: str(folder.path)},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise StackError(f"supervisor did not start:\n{done.stdout}{done.stderr}")


def running(folder: RunFolder) -> bool:
    """Tells whether there is a supervisor to talk to."""
    try:
        _ask(folder, "getState")
    except Fault:
        return True  # it is shutting down
    except OSError:
        return False
    return True


def start_group(folder: RunFolder, group: str) -> None:
    """Starts the processes of a group that do not run, and does not wait for them."""
    _ask(folder, "startProcessGroup", group, False)


def status(folder: RunFolder) -> list[dict[str, Any]]:
    """Returns what supervisor knows of each process: name, statename, pid, start and stop (Unix time)..."""
    found: list[dict[str, Any]] = _ask(folder, "getAllProcessInfo")
    return found


def pid(folder: RunFolder, name: str) -> int:
    """Returns the process id of a process, 0 when it does not run."""
    found: int = next(process["pid"] for process in status(folder) if process["name"] == name)
    return found


def stop_process(folder: RunFolder, name: str) -> None:
    """Ends one process, which stays down."""
    _ask(folder, "stopProcess", _qualified(folder, name))


def start_process(folder: RunFolder, name: str) -> None:
    """Starts one process that was ended."""
    _ask(folder, "startProcess", _qualified(folder, name), False)


def broken(folder: RunFolder, since: float) -> list[str]:
    """Returns the names of the processes that ended by themselves since then (Unix time)."""
    return [
        process["name"]
        for process in status(folder)
        if process["statename"] in _BROKEN or process["stop"] >= int(since)
    ]


def stop(folder: RunFolder) -> None:
    """Ends all processes of the stack, those too that a killed supervisor left behind."""
    with suppress(OSError, Fault):
        _ask(folder, "shutdown")
    deadline = time.monotonic() + 2 * _STOP_SECONDS
    while running(folder) and time.monotonic() < deadline:
        time.sleep(0.05)  # by itself it looks once a second who has ended, and at every question
    left = _processes(folder)
    for process in left:
        process.terminate()
    _, stubborn = psutil.wait_procs(left, timeout=_STOP_SECONDS)
    for process in stubborn:
        process.kill()
    psutil.wait_procs(stubborn)


def _processes(folder: RunFolder) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if mark(folder) in process.cmdline() or process.environ().get(_MARK) == str(folder.path):
                # Postgres's workers overwrite their environment
                found += [process, *process.children(recursive=True)]
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return list(dict.fromkeys(found))


def _ask(folder: RunFolder, method: str, *arguments: object) -> Any:
    """Calls a method of supervisor's XML-RPC interface. Raises OSError when there is none."""
    with closing(SupervisorTransport(serverurl=f"unix://{_socket(folder)}")) as transport:
        return getattr(ServerProxy("http://127.0.0.1", transport=transport).supervisor, method)(*arguments)


def _qualified(folder: RunFolder, name: str) -> str:
    return next(f"{process['group']}:{name}" for process in status(folder) if process["name"] == name)


def _socket(folder: RunFolder) -> str:
    return str(folder.sockets / "supervisor")


def _configuration(folder: RunFolder, groups: Mapping[str, Iterable[Process]]) -> configparser.RawConfigParser:
    configuration = configparser.RawConfigParser()
    configuration.read_dict(
        {
            "supervisord": {
                "logfile": folder.logs / "supervisord.log",
                "pidfile": folder.path / "supervisord.pid",
                **({"user": "root"} if os.geteuid() == 0 else {}),
            },
            "unix_http_server": {"file": _socket(folder), "chmod": "0600"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
        }
    )
    for priority, (group, processes) in enumerate(groups.items()):
        members = list(processes)
        names = ",".join(process.name for process in members)
        configuration.read_dict({f"group:{group}": {"programs": names, "priority": priority}})
        configuration.read_dict({f"program:{process.name}": _program(folder, process) for process in members})
    return configuration


def _program(folder: RunFolder, process: Process) -> dict[str, Any]:
    environment = ",".join(f'{name}="{_literal(value)}"' for name, value in process.environment.items())
    return {
        "command": _literal(shlex.join(process.command)),
        "directory": _literal(str(process.directory)),
        "environment": environment,
        **({"user": process.user} if process.user else {}),
        "autostart": "false",
        "autorestart": "true",
        "startretries": 20,
        "stopsignal": process.stop_signal,
        "stopwaitsecs": _STOP_SECONDS,
        "stdout_logfile": _literal(str(folder.logs / f"{process.name}.log")),
        "stdout_logfile_maxbytes": "20MB",
        "stdout_logfile_backups": 1,
        "redirect_stderr": "true",
    }


def _literal(text: str) -> str:
    """Escapes what supervisor would expand."""
    return text.replace("%", "%%")
