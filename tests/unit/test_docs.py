"""The documentation names files and functions that are there."""

import re
from pathlib import Path

import pytest

from scripts import errors

REPOSITORY = Path(__file__).parents[2]
_NAMED = re.compile(r"`((?:proto|envoy|authz|services|scripts|tests|docs|k8s)/[\w./-]+)(?::([\w.]+))?`")
_DEFINED = r"(?m)^\s*(?:async def|def|class|rpc|message|service) {}\b"

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
