"""Renders the edge's configuration for Kubernetes into k8s/, to be committed: kustomize makes ConfigMaps of it.

Usage: python -m scripts.edge_config [--check]. With --check it only tells whether what is there is up to date.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import yaml
from limit_compiler import LimitsError, choose, compile_shared
from render import RenderError, render

from scripts.stack.folder import CONTRACT, REPOSITORY

BASE = Path("k8s/base/envoy")
VARIANTS = {
    Path("k8s/components/ratelimit/envoy"): "kubernetes_ratelimit",
    Path("k8s/overlays/local/envoy"): "kubernetes_local",
}
"""Components that put other files in place of some of the base's, and the environments that they are rendered for."""
SHARED_LIMITS = Path("k8s/components/ratelimit/server/limits.yaml")
_HEAD = "# Made by python -m scripts.edge_config{}.\n"

Files = Mapping[Path, bytes]


def generated() -> Files:
    """Returns what has to be in BASE, VARIANTS and SHARED_LIMITS. Raises RenderError and LimitsError."""
    base = _rendered("kubernetes")
    files = {
        **{BASE / name: content for name, content in base.items()},
        BASE / "kustomization.yaml": _kustomization("v1beta1", "Kustomization", {"name": "envoy", "files": [*base]}),
        SHARED_LIMITS: _shared_limits(),
    }
    for folder, environment in VARIANTS.items():
        changed = {name: content for name, content in _rendered(environment).items() if base.get(name) != content}
        generator = {"name": "envoy", "behavior": "merge", "files": [*changed]}
        files |= {folder / name: content for name, content in changed.items()}
        files[folder / "kustomization.yaml"] = _kustomization("v1alpha1", "Component", generator)
    return files


def found() -> Files:
    """Returns what is in BASE, VARIANTS and SHARED_LIMITS."""
    paths = [path for folder in (BASE, *VARIANTS) for path in (REPOSITORY / folder).glob("*")]
    paths += (REPOSITORY / SHARED_LIMITS.parent).glob(SHARED_LIMITS.name)
    return {path.relative_to(REPOSITORY): path.read_bytes() for path in paths}


def _rendered(environment: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        render(environment, {"CONTRACT": str(CONTRACT)}, Path(folder))
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _shared_limits() -> bytes:
    tables, environments = (
        yaml.safe_load((REPOSITORY / "envoy" / name).read_text()) for name in ("rate_limits.yaml", "environments.yaml")
    )
    limits = choose(tables, environments["kubernetes_ratelimit"]["LIMITS"])
    return (_HEAD.format("") + yaml.safe_dump(compile_shared(limits), sort_keys=False)).encode()


def _kustomization(version: str, kind: str, config_map: Mapping[str, object]) -> bytes:
    content = {"apiVersion": f"kustomize.config.k8s.io/{version}", "kind": kind, "configMapGenerator": [config_map]}
    return (_HEAD.format(", as all in this folder") + yaml.safe_dump(content, sort_keys=False)).encode()


def _write(files: Files) -> None:
    for path, content in files.items():
        (REPOSITORY / path).parent.mkdir(parents=True, exist_ok=True)
        (REPOSITORY / path).write_bytes(content)
    for path in found().keys() - files.keys():
        (REPOSITORY / path).unlink()


def _check(files: Files) -> None:
    there = found()
    if wrong := sorted(str(path) for path in {*files, *there} if files.get(path) != there.get(path)):
        sys.exit(f"edge_config: Not what the sources say: {', '.join(wrong)}. Make them anew: make manifests")


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(__doc__)
    try:
        (_check if sys.argv[1:] else _write)(generated())
    except (RenderError, LimitsError) as error:
        sys.exit(f"edge_config: {error}")
