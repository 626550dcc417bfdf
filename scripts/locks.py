"""Tells whether the locks fit pyproject.toml, as far as that can be seen offline: every package is in, and hashed."""

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_LOCKED = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?P<rest>.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)


def problems(wanted: Iterable[str], lock: str) -> Iterator[str]:
    """Yields what is wrong with a lock's text, given the requirements it should fulfil."""
    versions = {}
    for match in _LOCKED.finditer(lock):
        versions[canonicalize_name(match["name"])] = match["version"]
        if "--hash=sha256:" not in match["rest"]:
            yield f"{match['name']} has no hash"
    for requirement in map(Requirement, wanted):
        version = versions.get(canonicalize_name(requirement.name))
        if version is None:
            yield f"{requirement.name} is missing"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} is {version}, not {requirement.specifier}"


def main() -> None:
    """Prints the problems of all locks. Ends with 1 when there are any."""
    project = tomllib.loads(Path("pyproject.toml").read_text())
    production, groups = project["project"]["dependencies"], project["dependency-groups"]
    wanted = {
        "requirements.lock": production,
        "requirements-dev.lock": [*production, *groups["dev"]],
        "requirements-checkov.lock": groups["checkov"],
        "requirements-supply.lock": groups["supply"],
    }
    found = [
        f"{lock}: {problem}"
        for lock, requirements in wanted.items()
        for problem in problems(requirements, Path(lock).read_text())
    ]
    if found:
        sys.exit("\n".join([*found, "Renew the locks: make lock"]))


if __name__ == "__main__":
    main()
