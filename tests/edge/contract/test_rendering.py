"""Rendering: every environment is judged by Envoy, and a running one takes up what is rendered anew."""

from pathlib import Path

import httpx
import pytest
import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from render import RenderError, render

from services.runtime import contract
from tests.edge.contract.edge import CONTRACT, Edge
from tests.waiting import wait_until

MORE = FileDescriptorSet(file=[FileDescriptorProto(name="more.proto")])
SERVERS = {"authz", *(method.server for method in contract.load(CONTRACT).values() if method.access != "none")}


@pytest.mark.parametrize("environment", ["compose", "kubernetes"])
def test_where_there_are_containers_nothing_but_the_contract_has_to_be_said(environment: str, tmp_path: Path) -> None:
    render(environment, {"CONTRACT": str(CONTRACT)}, tmp_path)
    clusters = yaml.safe_load((tmp_path / "clusters.yaml").read_text())["resources"]
    addresses = {
        cluster["name"]: cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
        for cluster in clusters
    }
    assert addresses == {name: {"socket_address": {"address": name, "port_value": 50051}} for name in SERVERS}


def test_all_missing_values_are_named_at_once_and_nothing_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(RenderError, match=r"ADMIN_PORT, AUTHZ_PORT, CERTS, .*EDGE_PORT, .*USER_PORT"):
        render("native", {"CONTRACT": str(CONTRACT)}, out)
    assert not out.exists()


@pytest.mark.parametrize("values", [{}, {"CONTRACT": "nowhere.binpb"}])
def test_without_the_contract_there_is_no_configuration(values: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(RenderError, match=r"CONTRACT|nowhere\.binpb"):
        render("compose", values, tmp_path)


def test_an_unknown_environment_is_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="native, compose, kubernetes, kubernetes_local, kubernetes_ratelimit"):
        render("moon", {"CONTRACT": str(CONTRACT)}, tmp_path)


def test_unknown_limits_are_told_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RenderError, match="There are no LIMITS moon; there are generous, production"):
        render("compose", {"CONTRACT": str(CONTRACT), "LIMITS": "moon"}, tmp_path)


def test_what_envoy_does_not_take_leaves_the_old_files_as_they_were(tmp_path: Path) -> None:
    values = {"CONTRACT": str(CONTRACT)}
    render("compose", values, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RenderError, match="Envoy does not take this configuration"):
        render("compose", values | {"USER_PORT": "70000"}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_contract_is_named_by_its_content_so_that_a_new_one_is_taken_up(tmp_path: Path) -> None:
    out, changed = tmp_path / "out", tmp_path / "changed.binpb"
    changed.write_bytes(CONTRACT.read_bytes() + MORE.SerializeToString())
    names = []
    for path in (CONTRACT, changed):
        render("compose", {"CONTRACT": str(path)}, out)
        [file] = out.glob("*.binpb")
        assert file.read_bytes() == path.read_bytes()
        assert f"proto_descriptor: {file.name}" in (out / "listeners.yaml").read_text()
        names.append(file.name)
    assert names[0] != names[1]


def test_a_running_edge_takes_up_what_is_rendered_anew(own_edge: Edge) -> None:
    def admits_the_shop() -> bool:
        headers = {"origin": "https://shop.example", "access-control-request-method": "GET"}
        response = httpx.options(f"{own_edge.url}/api/v1/payments", headers=headers)
        return "access-control-allow-origin" in response.headers

    assert not admits_the_shop()
    own_edge.render(CORS_ORIGINS="https://shop\\.example")
    wait_until(admits_the_shop, "the new routes are not taken up")
