"""Has checkov judge what operators deploy: the rendered manifests, the Dockerfile, and docker-compose.yml for secrets.

It knows no other rules for compose: tests/unit/test_environments.py has ours.

Usage: python -m scripts.checkov. The first time it installs checkov, whose dependencies are at odds with ours, into an
environment of its own; it needs no network after that. Ends with 1 when a check fails or a skip gives no reason.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scripts import apart, manifests
from scripts.stack.folder import REPOSITORY

_FILES = ("Dockerfile", "docker-compose.yml")
_FRAMEWORKS = ("kubernetes", "dockerfile", "secrets")
_QUIETLY = ("--skip-download", "--compact", "--output", "json")
_MUST_JUDGE = {"kubernetes", "dockerfile"}
"""checkov says nothing about files it cannot find anything in."""
_NO_REASON = "No comment provided"
_SILENT_SKIP = "pragma: allowlist"


def problems(reports: list[Mapping[str, Any]]) -> Iterator[str]:
    """Yields what is wrong by checkov's reports, one of each framework (its JSON)."""
    for silent in sorted(_MUST_JUDGE - {report["check_type"] for report in reports if report["summary"]["passed"]}):
        yield f"{silent}: nothing was checked"
    for report in reports:
        results = report["results"]
        for file in results["parsing_errors"]:
            yield f"{file} cannot be parsed"
        for one in results["failed_checks"]:
            yield f"{one['file_path']}: {one['resource']}: {one['check_id']} {one['check_name']}"
        for one in results["skipped_checks"]:
            if one["check_result"]["suppress_comment"] == _NO_REASON:
                yield f"{one['file_path']}: {one['resource']}: {one['check_id']} is skipped without a reason"


def silenced(files: Mapping[str, str]) -> Iterator[str]:
    """Yields which of these texts, by name, hide something from checkov without its telling."""
    for name, text in files.items():
        if _SILENT_SKIP in text:
            yield f"{name}: write checkov:skip=CKV_SECRET_...: and a reason instead of {_SILENT_SKIP}"


def _judge() -> list[Mapping[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        for variant in manifests.VARIANTS:
            Path(folder, f"k8s-{'-'.join(variant)}.yaml").write_text(manifests.text(*variant))
        for name in _FILES:
            shutil.copy(REPOSITORY / name, folder)
        command = [
            apart.python("checkov"),
            "-m",
            "checkov.main",
            "--directory",
            folder,
            "--framework",
            *_FRAMEWORKS,
            *_QUIETLY,
        ]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        sys.exit(f"checkov did not report:\n{done.stdout}{done.stderr}")
    return found if isinstance(found, list) else [found]


if __name__ == "__main__":
    hidden = silenced({name: (REPOSITORY / name).read_text() for name in _FILES})
    if found := [*hidden, *problems(_judge())]:
        sys.exit("\n".join(found))
