"""Renders the Kubernetes manifests as kubectl does, and tells whether a cluster would take them.

Usage: python -m scripts.manifests render OVERLAY [COMPONENT...]
       python -m scripts.manifests check
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import jsonschema
import kubernetes_validate
import yaml

from scripts.stack.folder import REPOSITORY

KUBERNETES = ("1.30", "1.35")
"""The oldest version that knows all we use (preStop: sleep), and the newest we have tried."""
VARIANTS = (("local",), ("production",), ("production", "ratelimit"))
"""What is installed: an overlay, and the components an operator may add to it."""
_CERT_MANAGER = REPOSITORY / "scripts" / "cert-manager.yaml"

Document: TypeAlias = dict[str, Any]


class ManifestsError(Exception):
    """The manifests cannot be rendered. The message says what to mend."""


def render(overlay: str, *components: str) -> list[Document]:
    """Returns what `kubectl apply -k` would send for an overlay with these components. Raises ManifestsError."""
    return [document for document in yaml.safe_load_all(text(overlay, *components)) if document]


@cache
def text(overlay: str, *components: str) -> str:
    """Returns the same as YAML."""
    with tempfile.TemporaryDirectory() as folder:
        path = _with_components(Path(folder), overlay, components) if components else _overlay(overlay)
        done = subprocess.run([_kubectl(), "kustomize", path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ManifestsError(f"{overlay} does not render: {done.stderr.strip()}")
    return done.stdout


def problems(documents: Sequence[Document]) -> Iterator[str]:
    """Yields what a cluster would refuse, each once."""
    for document in documents:
        try:
            _validate(document)
        except jsonschema.ValidationError as error:
            yield f"{document['kind']}/{document['metadata']['name']}: {error.json_path}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield error.message


def _validate(document: Document) -> None:
    """Raises ValidationError, or SchemaNotFoundError for what nothing is known of."""
    custom = yaml.safe_load(_CERT_MANAGER.read_text())["kinds"]
    if document["apiVersion"] == "cert-manager.io/v1" and document["kind"] in custom:
        jsonschema.validate(document, custom[document["kind"]])
        return
    for version in KUBERNETES:
        kubernetes_validate.validate(document, version, strict=True)


def _overlay(name: str) -> Path:
    return REPOSITORY / "k8s" / "overlays" / name


def _with_components(folder: Path, overlay: str, components: Sequence[str]) -> Path:
    """Writes the kustomization that an operator would write beside ours."""
    root = folder.resolve()
    paths = [REPOSITORY / "k8s" / "components" / component for component in components]
    kustomization = {
        "resources": [os.path.relpath(_overlay(overlay), root)],
        "components": [os.path.relpath(path, root) for path in paths],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return folder


def _kubectl() -> str:
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    found = shutil.which("kubectl", path=path)
    if found is None:
        raise ManifestsError("There is no kubectl for this machine in a wheel: install kubectl 1.30 or newer")
    return found


def _check() -> None:
    documents = {yaml.safe_dump(one): one for variant in VARIANTS for one in render(*variant)}
    if found := list(problems(list(documents.values()))):
        sys.exit("\n".join(found))


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["render", *names] if names:
                print(text(*names), end="")
            case ["check"]:
                _check()
            case _:
                sys.exit(__doc__)
    except ManifestsError as error:
        sys.exit(f"manifests: {error}")
