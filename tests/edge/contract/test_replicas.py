"""A service at several addresses: one that cannot be reached costs no request."""

from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from scripts.stack import ports
from services.runtime.contract import Method
from tests.edge.contract.backend import Backend, serving
from tests.edge.contract.edge import AUTHORIZED, running, server_ports
from tests.waiting import wait_until


@pytest.mark.parametrize("service", ["payment", "authz"])
def test_what_a_replica_that_is_down_does_not_take_another_does(
    backend: Backend, certificates: Path, tmp_path: Path, service: str
) -> None:
    services = server_ports(backend.methods)
    down, also_down = ports.free(2, but=[*services.values()])
    ejected = f"cluster.{service}.outlier_detection.ejections_active"
    with serving(backend, certificates, services), running(tmp_path, certificates, services) as edge:
        edge.add_replicas(service, down, also_down)
        with httpx.Client(base_url=edge.url, headers=AUTHORIZED) as client:
            answers = {client.get("/api/v1/accounts").status_code for _ in range(30)}
            wait_until(lambda: edge.stat(ejected) == 0, "the replicas are not tried again")
        assert edge.stat(f"cluster.{service}.outlier_detection.ejections_enforced_total") == 2
    assert answers == {200}


def test_the_last_replica_is_always_tried(certificates: Path, methods: Mapping[str, Method], tmp_path: Path) -> None:
    with running(tmp_path, certificates, server_ports(methods)) as edge:
        for _ in range(5):
            assert httpx.get(f"{edge.url}/api/v1/accounts", headers=AUTHORIZED).status_code == 503
        assert edge.stat("cluster.authz.outlier_detection.ejections_enforced_total") == 0
        assert edge.stat("cluster.authz.upstream_cx_connect_fail") > 5  # with what is tried again
