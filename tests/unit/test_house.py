"""The house's rules: the scripts that judge the contract and the locks, and one word per service everywhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from psycopg.conninfo import conninfo_to_dict
from render import render

from scripts import checkov, locks, manifests, routes, supply
from scripts.stack import certificates, processes
from scripts.stack.folder import CONTRACT, REPOSITORY, RunFolder
from scripts.stack.settings import INTERNAL_PORTS, SERVICES, Settings

LOCK = """asyncpg==0.32.0 \\
    --hash=sha256:00
Jinja_2==3.1 ; python_full_version < '3.13' \\
    --hash=sha256:11
bare==1.0
"""


def contract(**paths: str) -> bytes:
    """A descriptor set with an RPC per argument, each reached by GET."""
    service = descriptor_pb2.ServiceDescriptorProto(name="Zoo")
    for rpc, path in paths.items():
        service.method.add(name=rpc).options.Extensions[annotations_pb2.http].get = path
    file = descriptor_pb2.FileDescriptorProto(package="zoo.v1", service=[service])
    return descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()


def test_a_new_route_breaks_nobody() -> None:
    assert routes.broken(contract(Get="/a"), contract(Get="/a", List="/b")) == []


def test_a_route_that_is_gone_breaks_its_clients() -> None:
    assert routes.broken(contract(Get="/a/{id}"), contract(Get="/b/{id}")) == ["GET /a/{} (zoo.v1.Zoo/Get) is gone"]


def test_a_path_variable_may_be_renamed() -> None:
    assert routes.broken(contract(Get="/a/{id}"), contract(Get="/a/{zebra_id}")) == []


def test_a_route_that_leads_to_another_rpc_breaks_its_clients() -> None:
    [line] = routes.broken(contract(Get="/a"), contract(Take="/a"))
    assert line.startswith("GET /a was zoo.v1.Zoo/Get")


def test_a_lock_must_name_and_hash_every_package_in_a_version_that_was_asked_for() -> None:
    assert list(locks.problems(["asyncpg>=0.30", "jinja-2"], LOCK)) == ["bare has no hash"]
    assert list(locks.problems(["asyncpg>1", "nats-py[extra]"], LOCK)) == [
        "bare has no hash",
        "asyncpg is 0.32.0, not >1",
        "nats-py is missing",
    ]


def manifest(api_version: str, kind: str, **spec: Any) -> manifests.Document:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "a", "namespace": "b"}, "spec": spec}


def test_a_manifest_has_no_field_that_kubernetes_does_not_know() -> None:
    services = [manifest("v1", "Service", clusterIP="None"), manifest("v1", "Service", clusterip="None")]
    [problem] = manifests.problems(services)
    assert "'clusterip' was unexpected" in problem


def test_an_issuer_has_no_field_that_cert_manager_does_not_know() -> None:
    known, misspelled = ({"ca": {"secretName": "mesh-ca"}}, {"ca": {"secretname": "mesh-ca"}})
    assert not list(manifests.problems([manifest("cert-manager.io/v1", "Issuer", **known)]))
    assert list(manifests.problems([manifest("cert-manager.io/v1", "Issuer", **misspelled)]))


def test_a_kind_that_nothing_is_known_of_is_not_let_pass() -> None:
    assert list(manifests.problems([manifest("cert-manager.io/v1", "Certificat")]))
    assert list(manifests.problems([manifest("example.com/v1", "Service")]))


def report(
    framework: str, *, passed: int = 1, failed: tuple[str, ...] = (), skipped: str | None = None
) -> dict[str, Any]:
    """What checkov says of a framework: failed checks by id, and the reason of one that is skipped."""
    where = {"file_path": "/Dockerfile", "resource": "FROM", "check_name": "Name"}
    reasons = [] if skipped is None else [{"suppress_comment": skipped}]
    results = {
        "parsing_errors": [],
        "failed_checks": [{**where, "check_id": check} for check in failed],
        "skipped_checks": [{**where, "check_id": "CKV_2", "check_result": reason} for reason in reasons],
    }
    return {"check_type": framework, "summary": {"passed": passed}, "results": results}


def test_what_checkov_finds_is_told() -> None:
    [problem] = checkov.problems([report("kubernetes", failed=("CKV_1",)), report("dockerfile")])
    assert "CKV_1" in problem


def test_a_check_is_skipped_for_a_reason_only() -> None:
    assert not list(checkov.problems([report("kubernetes", skipped="There is none."), report("dockerfile")]))
    [problem] = checkov.problems([report("kubernetes", skipped="No comment provided"), report("dockerfile")])
    assert "without a reason" in problem
    assert list(checkov.silenced({"Dockerfile": "ENV TOKEN=1234 # pragma: allowlist secret"}))


def judged(name: str, **verdict: object) -> dict[str, Any]:
    """What pip-audit says of a lock with one package."""
    return {"dependencies": [{"name": name, "version": "1.0", **verdict}]}


def test_a_version_that_is_known_to_be_vulnerable_is_told() -> None:
    good = judged("a", vulns=[])
    assert not list(supply.problems([good]))
    [problem] = supply.problems([good, judged("b", vulns=[{"id": "PYSEC-1", "aliases": [], "fix_versions": ["1.1"]}])])
    assert problem == "b 1.0 has PYSEC-1: mended in 1.1"
    [accepted] = supply.ACCEPTED
    assert not list(
        supply.problems([judged("c", vulns=[{"id": "PYSEC-2", "aliases": [accepted], "fix_versions": []}])])
    )


def test_a_version_that_could_not_be_judged_has_not_passed() -> None:
    unknown = {"dependencies": [{"name": "b", "skip_reason": "not found"}]}
    assert list(supply.problems([judged("a", vulns=[]), unknown])) == ["b could not be judged: not found"]
    with pytest.raises(supply.NothingAsked):
        list(supply.problems([unknown]))


def test_a_check_that_saw_nothing_has_not_passed() -> None:
    [problem] = checkov.problems([report("kubernetes")])
    assert problem == "dockerfile: nothing was checked"


def folders(path: str) -> set[str]:
    """The folders in a folder of the repository, but for what Python caches."""
    return {one.name for one in (REPOSITORY / path).iterdir() if one.is_dir() and one.name != "__pycache__"}


def words(pattern: str, service: str) -> Iterator[str]:
    """What the pattern's group is in a service's code."""
    for module in (REPOSITORY / "services" / service).glob("*.py"):
        yield from re.findall(pattern, module.read_text())


def test_every_service_has_a_package_in_the_contract_and_a_folder() -> None:
    assert folders("proto") == {*SERVICES, "common"}
    assert folders("services") == {*SERVICES, "runtime"}


def test_every_service_has_a_certificate(tmp_path: Path) -> None:
    certificates.issue(tmp_path / "certs")
    issued = {key.stem for key in (tmp_path / "certs").glob("*.key")}
    assert issued == {*SERVICES, "authz", "edge", "postgres", "nats", "public"}


def test_every_service_is_a_cluster_of_the_edge(tmp_path: Path) -> None:
    render("compose", {"CONTRACT": str(CONTRACT)}, tmp_path)
    clusters = yaml.safe_load((tmp_path / "clusters.yaml").read_text())["resources"]
    assert {cluster["name"] for cluster in clusters} == {*SERVICES, "authz"}


def test_every_service_has_a_database_and_a_role(tmp_path: Path) -> None:
    secrets = dict.fromkeys(["ADMIN_EMAIL", "ADMIN_PASSWORD", "SIGNING_KEY_SECRET"], "")
    settings = Settings(RunFolder(tmp_path), dict.fromkeys(INTERNAL_PORTS, 1), secrets)
    started = {one.name: conninfo_to_dict(one.environment["DATABASE_URL"]) for one in processes.services(settings)}
    assert set(started) == set(SERVICES)
    assert all(found["dbname"] == found["user"] == name for name, found in started.items())


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_serves_publishes_and_consumes_under_that_word(service: str) -> None:
    assert set(words(r'\bserve\(\s*"(\w+)"', service)) == {service}
    assert set(words(r'\bOutbox\(\s*"(\w+)"', service)) <= {service}
    assert set(words(r'\bstream="(\w+)"', service)) <= {*SERVICES} - {service}
    assert set(words(r'\bconsumer="(\w+)"', service)) <= {service}
