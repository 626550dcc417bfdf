"""What the system is made of, and whether any of it is known to be vulnerable.

    python -m scripts.supply audit     asks pip-audit about every version in the locks
    python -m scripts.supply sbom      writes what the image runs on as CycloneDX: build/sbom.cdx.json

`audit` needs PyPI's advisories. It ends with 1 when a version has one or could not be judged, and where nothing can be
asked at all it says so and ends with 3: that is no verdict.
"""

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts import apart
from scripts.stack.folder import REPOSITORY

SBOM = REPOSITORY / "build" / "sbom.cdx.json"
NO_VERDICT = 3
_LOCKS = sorted(REPOSITORY.glob("requirements*.lock"))

ACCEPTED = {
    "GHSA-wj6h-64fc-37mp": "ecdsa can be timed while it signs, for ever. checkov, which has it, signs nothing",
}
"""Advisories that do not concern us, each with why."""

Report = Mapping[str, Any]


class NothingAsked(Exception):
    """No package could be asked about: there are no advisories to be had here."""


def problems(reports: Iterable[Report]) -> Iterator[str]:
    """Yields what is wrong by pip-audit's reports (its JSON). Raises NothingAsked."""
    found = {(one["name"], one.get("version", "")): one for report in reports for one in report["dependencies"]}
    skipped = [one for one in found.values() if "skip_reason" in one]
    if len(skipped) == len(found):
        raise NothingAsked
    for one in skipped:
        yield f"{one['name']} could not be judged: {one['skip_reason']}"
    for one in found.values():
        for advisory in one.get("vulns", ()):
            if ACCEPTED.keys() & {advisory["id"], *advisory["aliases"]}:
                continue
            mended = ", ".join(advisory["fix_versions"]) or "no version yet"
            yield f"{one['name']} {one['version']} has {advisory['id']}: mended in {mended}"


def audit() -> int:
    """Prints what is wrong. Returns the exit status."""
    try:
        found = list(problems(map(_report, _LOCKS)))
    except NothingAsked:
        print("Nothing was judged: PyPI's advisories cannot be had from here.")
        return NO_VERDICT
    print("\n".join(found) or "No version in the locks has a known vulnerability.")
    return 1 if found else 0


def _report(lock: Path) -> Report:
    options = ["--require-hashes", "--disable-pip", "--format", "json", "--progress-spinner", "off"]
    program = [apart.python("supply"), "-m", "pip_audit"]
    done = subprocess.run([*program, *options, "-r", lock], capture_output=True, text=True, check=False)
    try:
        report: Report = json.loads(done.stdout)
    except ValueError:
        sys.exit(f"pip-audit did not report on {lock.name}:\n{done.stdout}{done.stderr}")
    return report


def sbom() -> None:
    """Writes the bill of materials, judged by CycloneDX's own schema."""
    SBOM.parent.mkdir(exist_ok=True)
    options = ["--pyproject", "pyproject.toml", "--output-reproducible", "--validate", "--output-file", str(SBOM)]
    # (It warns that a lock does not say who needs whom.)
    program = [apart.python("supply"), "-W", "ignore", "-m", "cyclonedx_py"]
    subprocess.run([*program, "requirements", "requirements.lock", *options], cwd=REPOSITORY, check=True)
    components = json.loads(SBOM.read_text())["components"]
    print(f"{SBOM.relative_to(REPOSITORY)}: {len(components)} packages, with the hashes of their files")


if __name__ == "__main__":
    if sys.argv[1:] == ["audit"]:
        sys.exit(audit())
    if sys.argv[1:] != ["sbom"]:
        sys.exit(__doc__)
    sbom()
