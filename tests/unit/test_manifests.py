"""What Kubernetes is told, as kubectl renders it: who may talk to whom, and that nothing is missing or forgotten."""

import importlib
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from scripts import manifests
from scripts.stack.folder import CONTRACT, REPOSITORY
from scripts.stack.settings import SERVERS, SERVICES
from services.notification.delivery.worker import SEND_SECONDS
from services.runtime import contract, server
from services.runtime.config import BusSettings, DatabaseSettings
from tests.unit.policies import Address, Document, Network, Party, Pod, Port, addresses, selects

DEPLOYABLES = ("envoy", *SERVERS)
GRPC, KEYS, DNS = (50051, "TCP"), (8444, "TCP"), [(53, "TCP"), (53, "UDP")]
POSTGRES, NATS, REDIS, HTTPS, SMTP = (5432, "TCP"), (4222, "TCP"), (6379, "TCP"), (443, "TCP"), (587, "TCP")
STRANGERS: list[Party] = [
    Pod("stranger", "elsewhere", frozenset()),
    Pod("impostor", "elsewhere", frozenset({("app.kubernetes.io/name", "payment")})),
    Address("internet", "8.8.8.8"),
]
RESOLVER = Pod("dns", "kube-system", frozenset({("k8s-app", "kube-dns")}))

Arrow = tuple[str, str, Port]
Judge = Callable[[Party, Party, Port], bool]


class Manifests:
    """What one installation consists of."""

    def __init__(self, variant: tuple[str, ...]) -> None:
        self.documents = _rendered(variant)
        self.production = variant[0] == "production"
        self.limited = "ratelimit" in variant
        self.public_ports = [(8080, "TCP"), (8443, "TCP")]

    def of(self, *kinds: str) -> dict[str, Document]:
        """The resources of these kinds, by name."""
        return {one["metadata"]["name"]: one for one in self.documents if one["kind"] in kinds}

    def workloads(self) -> dict[str, Document]:
        return self.of("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod")

    def pods(self) -> list[Pod]:
        return [_pod(name, one) for name, one in self.workloads().items()]

    def containers(self) -> Iterator[tuple[str, Document]]:
        for name, workload in self.workloads().items():
            spec = _spec(workload)
            yield from ((name, one) for one in (*spec.get("initContainers", ()), *spec["containers"]))


@cache
def _rendered(variant: tuple[str, ...]) -> list[Document]:
    return manifests.render(*variant)


def _spec(workload: Document) -> Document:
    spec: Document = workload["spec"]["template"]["spec"]
    return spec


def _pod(name: str, workload: Document) -> Pod:
    labels = workload["spec"]["template"]["metadata"]["labels"]
    return Pod(name, workload["metadata"]["namespace"], frozenset(labels.items()))


@pytest.fixture(params=manifests.VARIANTS, ids="+".join)
def installed(request: pytest.FixtureRequest) -> Manifests:
    return Manifests(request.param)


def settings_of(module: str) -> Any:
    """The settings that a server's __main__ asks for."""
    return importlib.import_module(f"{module}.__main__").Settings


def arrows_of_the_code(installed: Manifests) -> Iterator[Arrow]:
    """Who has to talk to whom, as the code says."""
    for method in contract.load(CONTRACT).values():
        if contract.EDGE in method.callers:
            yield "envoy", method.server, GRPC
        if method.server == contract.COMMON:
            yield from ((caller, one, GRPC) for caller in method.callers for one in SERVICES if one != caller)
    yield "envoy", "authz", GRPC
    yield "authz", "envoy", KEYS
    yield "authz", "nats", NATS
    yield "authz", "user", GRPC
    for service in SERVICES:
        clients = REPOSITORY / "services" / service / "clients.py"
        for called in re.findall(r"^from (\w+)\.v\d+ import", clients.read_text() if clients.exists() else "", re.M):
            yield service, called, GRPC
        if issubclass(settings_of(f"services.{service}"), DatabaseSettings):
            yield service, "postgres", POSTGRES
        if issubclass(settings_of(f"services.{service}"), BusSettings):
            yield service, "nats", NATS
        fields = settings_of(f"services.{service}").model_fields
        if installed.production and "object_store_url" in fields:
            yield service, "object-store", HTTPS
        if installed.production and "smtp_url" in fields:
            yield service, "smtp", SMTP
        if "webhook_targets" in fields:
            yield service, "internet", HTTPS
    if installed.limited:
        yield "envoy", "ratelimit", GRPC
        yield "ratelimit", "redis", REDIS


class Attempts:
    """Every connection that could be tried: between all that is there, and some that should not be."""

    def __init__(self, installed: Manifests) -> None:
        policies = [one for one in installed.documents if one["kind"] == "NetworkPolicy"]
        stores = [Address(one.name.removeprefix("to-"), one.ip) for one in addresses(policies)]
        listening = {
            (port["containerPort"], port.get("protocol", "TCP"))
            for _, container in installed.containers()
            for port in container.get("ports", ())
        }
        self.network = Network(policies)
        self.ours: list[Party] = [*installed.pods()]
        self.parties: list[Party] = [*self.ours, *stores, *STRANGERS, RESOLVER]
        self.ports = {*listening, *DNS, POSTGRES, NATS, REDIS, HTTPS, SMTP, (9901, "TCP"), (12345, "TCP")}

    def admitted(self, sources: list[Party], destinations: list[Party], by: Judge) -> set[Arrow]:
        tried = product(sources, destinations, self.ports)
        return {(one.name, other.name, port) for one, other, port in tried if one != other and by(one, other, port)}


def test_pods_may_connect_where_the_code_does_and_nowhere_else(installed: Manifests) -> None:
    attempts = Attempts(installed)
    resolving = {(pod.name, RESOLVER.name, port) for pod in attempts.ours for port in DNS}
    made = attempts.admitted(attempts.ours, attempts.parties, attempts.network.lets_out)
    assert made == {*arrows_of_the_code(installed)} | resolving


def test_pods_take_the_connections_of_the_code_and_the_edge_takes_all(installed: Manifests) -> None:
    attempts, inside = Attempts(installed), installed.workloads().keys()
    clients = [one.name for one in attempts.parties if one.name != "envoy"]
    anybody = {(client, "envoy", port) for client in clients for port in installed.public_ports}
    taken = attempts.admitted(attempts.parties, attempts.ours, attempts.network.lets_in)
    assert taken == {arrow for arrow in arrows_of_the_code(installed) if arrow[1] in inside} | anybody


def test_a_pod_that_no_policy_names_can_talk_to_nobody(installed: Manifests) -> None:
    [policy] = [one for name, one in installed.of("NetworkPolicy").items() if name == "default-deny"]
    assert policy["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.parametrize(
    "kind",
    ["Deployment", "Service", "ServiceAccount", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"],
)
def test_every_deployable_has_all_it_needs(installed: Manifests, kind: str) -> None:
    assert {*DEPLOYABLES} <= installed.of(kind).keys()


def test_what_belongs_to_a_deployable_chooses_its_pods(installed: Manifests) -> None:
    pods = {pod.name: pod for pod in installed.pods()}
    for name, budget in installed.of("PodDisruptionBudget").items():
        assert [one for one, pod in pods.items() if selects(budget["spec"]["selector"], pod.labels)] == [name]
    for name, service in installed.of("Service").items():
        chosen = [one for one, pod in pods.items() if selects({"matchLabels": service["spec"]["selector"]}, pod.labels)]
        assert chosen == [{"edge": "envoy"}.get(name, name)]
    for name, scaler in installed.of("HorizontalPodAutoscaler").items():
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert "replicas" not in installed.workloads()[name]["spec"]  # or they would undo each other's work
        assert _spec(installed.workloads()[name])["serviceAccountName"] == name


def test_grpc_clients_see_every_replica(installed: Manifests) -> None:
    services = installed.of("Service")
    assert all(services[name]["spec"]["clusterIP"] == "None" for name in SERVERS)


def test_liveness_asks_no_store(installed: Manifests) -> None:
    for name in SERVERS:
        [container] = _spec(installed.workloads()[name])["containers"]
        probes = {
            one: container[f"{one}Probe"]["grpc"].get("service", "") for one in ("startup", "liveness", "readiness")
        }
        assert probes == {"startup": server.LIVENESS, "liveness": server.LIVENESS, "readiness": ""}


def test_a_server_has_the_time_it_takes_to_leave(installed: Manifests) -> None:
    for name in SERVERS:
        spec = _spec(installed.workloads()[name])
        waits = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert spec["terminationGracePeriodSeconds"] > waits + server.DRAIN_SECONDS


def test_the_edge_has_the_time_it_takes_to_drain(installed: Manifests) -> None:
    spec = _spec(installed.workloads()["envoy"])
    assert spec["containers"][0]["lifecycle"]["preStop"]["httpGet"]["path"] == "/drain"
    kubernetes = yaml.safe_load((REPOSITORY / "envoy/environments.yaml").read_text())["kubernetes"]
    assert spec["terminationGracePeriodSeconds"] > kubernetes["DRAIN_SECONDS"]


def test_every_peer_has_a_certificate_with_its_spiffe_id(installed: Manifests) -> None:
    certificates = {
        name: one["spec"] for name, one in installed.of("Certificate").items() if not one["spec"].get("isCA")
    }
    assert certificates.pop("public").get("uris") is None
    for name, spec in certificates.items():
        assert spec["uris"] == [f"spiffe://drawbridge/{name}"]
        assert spec["dnsNames"] == [spec["commonName"]] == [name]
        assert spec["issuerRef"]["name"] == "mesh"
    assert {{"edge": "envoy"}.get(name, name) for name in certificates} == {*installed.workloads()}


def test_a_pod_gets_its_own_certificate_and_no_other(installed: Manifests) -> None:
    for name, workload in installed.workloads().items():
        mounted = {secret for secret in _secrets(workload) if secret.endswith("-tls")}
        assert mounted == ({"edge-tls", "public-tls"} if name == "envoy" else {f"{name}-tls"})


def _secrets(workload: Document) -> Iterator[str]:
    for volume in _spec(workload).get("volumes", ()):
        if "secret" in volume:
            yield volume["secret"]["secretName"]
        yield from (one["secret"]["name"] for one in volume.get("projected", {}).get("sources", ()) if "secret" in one)


def test_secrets_are_named_and_never_contained(installed: Manifests) -> None:
    assert not installed.of("Secret")
    made = {one["spec"]["secretName"] for one in installed.of("Certificate").values()}
    named = {secret for workload in installed.workloads().values() for secret in _secrets(workload)}
    assert named - made == (set(SERVICES) if installed.production else {"user"})


def test_a_pod_mounts_of_each_secret_what_it_reads(installed: Manifests) -> None:
    for name, container in installed.containers():
        mounts = [one for one in container.get("volumeMounts", ()) if one["mountPath"].startswith("/run/secrets")]
        assert all(one["mountPath"] == f"/run/secrets/{one['subPath']}" and one["name"] == "secrets" for one in mounts)
        read = {one["subPath"] for one in mounts}
        expected = {"database_url"} if installed.production and name in SERVICES else set()
        if name == "user" and container["name"] == "server":
            expected |= {"admin_password", "signing_key_secret"}
        if installed.production and name == "notification" and container["name"] == "server":
            expected |= {"smtp_url", "sms_secret", "push_secret"}
        assert read == expected


def test_settings_have_their_content_in_their_name(installed: Manifests) -> None:
    known = installed.of("ConfigMap")
    assert {"settings", "envoy"} <= {name.rpartition("-")[0] for name in known}
    assert all(re.fullmatch(r"[a-z]+-[a-z0-9]{10}", name) for name in known)
    for workload in installed.workloads().values():
        volumes = [one["configMap"] for one in _spec(workload).get("volumes", ()) if "configMap" in one]
        assert {one["name"] for one in volumes if not one.get("optional")} <= known.keys()
    for _, container in installed.containers():
        assert {one["configMapRef"]["name"] for one in container.get("envFrom", ())} <= known.keys()


def test_a_variable_is_there_before_another_is_made_of_it(installed: Manifests) -> None:
    for _, container in installed.containers():
        seen: set[str] = set()
        for variable in container.get("env", ()):
            assert set(re.findall(r"\$\((\w+)\)", variable.get("value", ""))) <= seen
            assert variable["name"] not in seen
            seen.add(variable["name"])
        assert set(re.findall(r"\$\((\w+)\)", " ".join(container.get("command", ())))) <= seen


def test_addresses_lead_to_services(installed: Manifests) -> None:
    services = installed.of("Service")
    for _, container in installed.containers():
        for variable in container.get("env", ()):
            if re.search(r"_(ADDRESS|URL)$", variable["name"]) and "0.0.0.0" not in variable["value"]:  # noqa: S104
                found = urlsplit(variable["value"] if "//" in variable["value"] else f"//{variable['value']}")
                assert found.port in [one["port"] for one in services[str(found.hostname)]["spec"]["ports"]]


def test_a_name_that_a_user_chose_is_given_up_before_an_attempt_is(installed: Manifests) -> None:
    options = _spec(installed.workloads()["notification"])["dnsConfig"]["options"]
    given = {one["name"]: int(one["value"]) for one in options}
    assert given["timeout"] * given["attempts"] < SEND_SECONDS / 2


def test_every_container_may_do_as_little_as_the_others(installed: Manifests) -> None:
    for _, container in installed.containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"].keys() == {"requests", "limits"}
    namespace = installed.of("Namespace")["drawbridge"]["metadata"]["labels"]
    assert namespace["pod-security.kubernetes.io/enforce"] == "restricted"
    assert {*namespace.values()} >= {"restricted"} and "latest" not in namespace.values()


def test_images_are_pinned(installed: Manifests) -> None:
    for _, container in installed.containers():
        pattern = r".+@sha256:[0-9a-f]{64}" if installed.production else r".+:(?!latest$)[\w.-]+"
        assert re.fullmatch(pattern, container["image"])


def test_all_of_it_is_in_one_namespace(installed: Manifests) -> None:
    cluster_wide = [one for one in installed.documents if "namespace" not in one["metadata"]]
    assert [one["kind"] for one in cluster_wide] == ["Namespace"]
    assert {one["metadata"].get("namespace", "drawbridge") for one in installed.documents} == {"drawbridge"}


def test_the_edge_has_nothing_of_another_environment(installed: Manifests) -> None:
    [envoy] = [one for name, one in installed.of("ConfigMap").items() if name.startswith("envoy-")]
    assert any(re.fullmatch(r"contract-[0-9a-f]{12}\.binpb", name) for name in envoy["binaryData"])
    assert ("ratelimit" in envoy["data"]["clusters.yaml"]) == installed.limited


def test_nothing_lies_about_that_no_kustomization_names() -> None:
    for folder in {one.parent for one in (REPOSITORY / "k8s").rglob("kustomization.yaml")}:
        named = (folder / "kustomization.yaml").read_text()
        own = {one.name for one in folder.iterdir() if one.is_file()} - {"kustomization.yaml"}
        patches = folder / "patches"
        own |= {f"patches/{one.name}" for one in patches.iterdir()} if patches.is_dir() else set()
        assert {one for one in own if one not in named} == set(), Path(folder).relative_to(REPOSITORY)
