"""The scripts that judge the contract and the locks."""

from google.api import annotations_pb2
from google.protobuf import descriptor_pb2

from scripts import locks, routes

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
