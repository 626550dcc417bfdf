"""The documentation names files and functions that are there."""

import re
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from math import ceil
from pathlib import Path

import pytest
import yaml

from scripts import errors, manifests
from services.payment.streams import hub
from services.runtime.server import DRAIN_SECONDS

REPOSITORY = Path(__file__).parents[2]
_NAMED = re.compile(r"`((?:proto|envoy|authz|services|scripts|tests|docs|k8s)/[\w./-]+)(?::([\w.]+))?`")
_DEFINED = r"(?m)^\s*(?:async def|def|class|rpc|message|service) {}\b"

_OPERATIONS = REPOSITORY / "docs/operations.md"
_ON_THE_OPERATORS_SIDE = {"HOST", "IMAGE", "NODE", "POSTGRES", "POSTGRES_USER_DATABASE", "REGISTRY", "VERSION"}
"""What the page asks its reader to put in."""

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_function_a_page_names_is_there(page: Path) -> None:
    for path, name in _NAMED.findall(page.read_text()):
        file = REPOSITORY / path
        assert file.exists(), f"{path} is not there"
        for part in name.split(".") if name else []:
            assert re.search(_DEFINED.format(part), file.read_text()), f"{path} has no {part}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_that_a_page_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{target} is not there"


def test_the_life_of_a_request_names_its_stations() -> None:
    assert len(_NAMED.findall((REPOSITORY / "docs/life-of-a-request.md").read_text())) > 25


def test_the_page_of_errors_lists_all_there_are() -> None:
    assert errors.PAGE.read_text() == errors.page()


def named(pattern: str) -> set[str]:
    """What the pattern's group is in the page for operators, word by word."""
    return {word for found in re.findall(pattern, _OPERATIONS.read_text()) for word in found.split()}


@cache
def installed() -> list[manifests.Document]:
    """All that the overlays have."""
    return [*manifests.render("local"), *manifests.render("production")]


def names(*kinds: str) -> set[str]:
    return {one["metadata"]["name"] for one in installed() if one["kind"] in kinds}


def test_operators_are_told_of_deployments_that_are_there() -> None:
    told = named(r"deployment/([\w-]+)") | named(r"(?:restart|scale|status) deployment ([a-z ]+?)(?: --|`|\n)")
    assert {"envoy", "user", "payment"} <= told <= names("Deployment")
    assert named(r"app\.kubernetes\.io/name=([\w-]+)") <= names("Deployment")


def test_operators_are_told_of_secrets_and_settings_that_are_read() -> None:
    mounted = {one["secret"]["secretName"] for pod in pods() for one in pod.get("volumes", ()) if "secret" in one}
    assert named(r"(?:patch|create|get|delete) secret (?:generic )?(?!generic)([\w-]+)") <= mounted | names(
        "Certificate"
    )
    assert named(r"configmap ([\w-]+) --from") <= {
        one["configMap"]["name"] for pod in pods() for one in pod.get("volumes", ()) if "configMap" in one
    }
    files = {mount["subPath"] for pod in pods() for mount in mounts(pod) if mount["name"] == "secrets"}
    assert named(r'(\w+)\\": \\"') | named(r"--from-literal=(\w+)=") == files


def test_operators_are_told_of_variables_that_something_reads() -> None:
    told = named(r"\b([A-Z][A-Z_]{3,})=") | named(r"`([A-Z]+_[A-Z_]+)`") | named(r'"\$([A-Z_]+)"')
    sources = ("Dockerfile", "docker-compose.yml", "envoy/environments.yaml", "docs/errors.md")
    scripts = (REPOSITORY / "scripts/demo.py", REPOSITORY / "scripts/stack/processes.py")
    paths = [*(REPOSITORY / one for one in sources), *scripts, *(REPOSITORY / "k8s").rglob("*.env")]
    known = set(re.findall(r"\w+", "\n".join(path.read_text() for path in paths)))
    assert {"ADMIN_EMAIL", "NATS_URL"} <= told <= known | _ON_THE_OPERATORS_SIDE


def test_operators_are_told_of_commands_that_are_there() -> None:
    assert all(find_spec(module) for module in named(r"python -m ([\w.]+)"))
    targets = set(re.findall(r"^(\w+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert named(r"(?:`|    )make (\w+)") <= targets
    services = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    assert named(r"docker compose (?:exec|logs --follow) (\w+)") | named(r"--scale (\w+)=") <= services.keys()


def test_operators_are_told_how_long_it_takes() -> None:
    page = _OPERATIONS.read_text()
    assert re.findall(r"and (\d+) s of\s+draining", page) == [f"{DRAIN_SECONDS:g}"]
    assert re.findall(r"a replica's streams end within (\d+) s", page) == [f"{hub.DRAIN_SECONDS:g}"]
    assert re.findall(r"changes come up to (\d+) s late", page) == [
        str(ceil(hub.LOOK_SECONDS * 1.25))
    ]  # it looks each quarter


def pods() -> Iterator[manifests.Document]:
    for one in installed():
        if one["kind"] in {"Deployment", "StatefulSet"}:
            yield one["spec"]["template"]["spec"]


def mounts(pod: manifests.Document) -> Iterator[manifests.Document]:
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        yield from container.get("volumeMounts", ())
