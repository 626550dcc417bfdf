"""What a container can do, and what is in the image, when somebody has broken in."""

import json

import pytest
from docker.models.containers import Container

from scripts.stack.settings import SERVERS
from tests.compose.project import Project

# What would make or fetch more programs.
TOOLS = {"pip", "pip3", "gcc", "cc", "c++", "ld", "make", "buf", "protoc", "git", "curl", "wget"}
PACKAGES = {"pip", "ensurepip", "setuptools", "wheel", "grpc_tools"}
_LOOK = f"""
import json, os
found = []
for folder, folders, files in os.walk("/"):
    if folder == "/":
        folders[:] = set(folders) - {{"proc", "sys", "dev"}}
    found += [os.path.join(folder, name) for name in folders if name in {PACKAGES}]
    found += [os.path.join(folder, name) for name in files if name in {TOOLS}]
print(json.dumps([path for path in found if os.access(path, os.X_OK)]))
"""


@pytest.fixture
def containers(stack: Project) -> list[Container]:
    """All that run."""
    found = stack.containers()
    services = {one.labels["com.docker.compose.service"] for one in found}
    assert services == {"envoy", *SERVERS, "postgres", "nats"}
    return found


def test_only_the_edge_is_published_and_only_on_loopback(containers: list[Container]) -> None:
    published = {
        (container.labels["com.docker.compose.service"], port, binding["HostIp"])
        for container in containers
        for port, bindings in container.attrs["NetworkSettings"]["Ports"].items()
        for binding in bindings or ()
    }
    assert published == {("envoy", "8080/tcp", "127.0.0.1"), ("envoy", "8443/tcp", "127.0.0.1")}


def test_no_container_can_write_to_its_image_or_gain_privileges(containers: list[Container]) -> None:
    for container in containers:
        host = container.attrs["HostConfig"]
        assert host["ReadonlyRootfs"], container.name
        assert (host["CapDrop"], host["CapAdd"], host["Privileged"]) == (["ALL"], None, False), container.name
        assert [one.partition(":")[0] for one in host["SecurityOpt"]] == ["no-new-privileges"], container.name


def test_no_process_is_root(containers: list[Container]) -> None:
    for container in containers:
        listed = container.top(ps_args="-eo uid,pid,args")  # the engine asks the host's ps, so that no shell is needed
        processes = [dict(zip(listed["Titles"], process, strict=True)) for process in listed["Processes"]]
        assert processes
        assert [one for one in processes if one["UID"] == "0"] == [], container.name


def test_every_container_has_limits_and_is_started_again(containers: list[Container]) -> None:
    for container in containers:
        host = container.attrs["HostConfig"]
        assert host["Memory"] > 0, container.name
        assert host["NanoCpus"] > 0, container.name
        assert host["PidsLimit"] > 0, container.name
        assert host["RestartPolicy"]["Name"] == "unless-stopped", container.name
        assert host["LogConfig"]["Config"].keys() >= {"max-size", "max-file"}, container.name


def test_nothing_in_the_image_makes_or_fetches_programs(stack: Project) -> None:
    status, found = stack.container("payment").exec_run(["python", "-c", _LOOK])
    assert (status, json.loads(found)) == (0, [])


def test_the_image_has_the_services_and_what_they_read_and_nothing_else(stack: Project) -> None:
    status, found = stack.container("payment").exec_run(["python", "-c", "import os; print(sorted(os.listdir()))"])
    assert (status, found.decode().strip()) == (0, "['authz', 'gen', 'services']")
