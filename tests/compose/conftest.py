"""The whole system in containers on free ports, beside whatever else runs on this machine."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.compose import project
from tests.compose.project import Project
from tests.edge.people import People


class WithoutDocker(pytest.Module):
    """A module that cannot be run here. Skipped as a whole and from one place, they make one line of the summary."""

    def collect(self) -> Iterator[pytest.Item]:
        pytest.skip(
            "no Docker engine with compose answers: start one, or see ../shared/docker/up", allow_module_level=True
        )


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collects the tests of this folder only where they can run."""
    if project.engine_answers():
        return None
    without: pytest.Module = WithoutDocker.from_parent(parent, path=module_path)
    return without


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds to a failure what the containers have logged meanwhile."""
    report = yield
    stack = item.funcargs.get("stack")
    if report.failed and isinstance(stack, Project):
        report.sections.append(("docker compose logs", stack.logs(since=call.start)))
    return report


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """One compose project for all tests. Each leaves it as it found it."""
    with project.running(tmp_path_factory.mktemp("compose")) as running:
        yield running


@pytest.fixture(scope="module")
def people(stack: Project) -> Iterator[People]:
    """Users of the stack."""
    with ExitStack() as clients:
        yield People(stack, clients)
