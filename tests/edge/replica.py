"""A second replica of a server of the native stack, which the edge knows of."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from scripts.stack import ports
from scripts.stack.processes import edge, services
from services.runtime import probe
from tests.edge.stack import Stack
from tests.waiting import wait_until


@contextmanager
def second_replica(stack: Stack, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Runs one for a while, with the edge sending it its share."""
    every = (*edge(stack.settings), *services(stack.settings))
    first = next(process for process in every if process.name == name)
    port, health = ports.free(2)
    addresses = {"LISTEN_ADDRESS": f"127.0.0.1:{port}", "HEALTH_ADDRESS": f"127.0.0.1:{health}"}
    with (stack.settings.folder.logs / f"{name}_2.log").open("wb") as log:
        process = subprocess.Popen(
            first.command,
            cwd=first.directory,
            env={**os.environ, **first.environment, **addresses},
            stdout=log,
            stderr=log,
        )
    clusters = stack.settings.folder.path / "envoy" / "clusters.yaml"
    alone = clusters.read_text()
    try:
        wait_until(lambda: probe.serving(addresses["HEALTH_ADDRESS"]), f"the second {name} is not ready")
        _replace(clusters, _with_endpoint(alone, name, port))
        yield process
    finally:
        _replace(clusters, alone)
        process.terminate()
        process.wait(20)


def _with_endpoint(clusters: str, name: str, port: int) -> str:
    loaded = yaml.safe_load(clusters)
    [cluster] = [one for one in loaded["resources"] if one["name"] == name]
    address = {"address": "127.0.0.1", "port_value": port}
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"].append(
        {"endpoint": {"address": {"socket_address": address}}}
    )
    return yaml.safe_dump(loaded, sort_keys=False)


def _replace(file: Path, text: str) -> None:
    """Puts a file in place at once: the edge reads it as soon as it is there."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)
