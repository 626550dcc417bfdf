"""NetworkPolicies, evaluated: who can open a connection to whom. What the manifests use of them, and no more."""

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]
Port: TypeAlias = tuple[int, str]
"""A number and TCP or UDP."""

NAMESPACE = "kubernetes.io/metadata.name"
"""The label with a namespace's own name, which Kubernetes gives to each."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, which policies choose by its labels."""

    name: str
    namespace: str
    labels: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Address:
    """Something outside the cluster."""

    name: str
    ip: str


Party: TypeAlias = Pod | Address


class Network:
    """What a set of NetworkPolicies admits. A connection needs both ends to."""

    def __init__(self, policies: Sequence[Document]) -> None:
        self._policies = policies

    def lets_out(self, source: Party, destination: Party, port: Port) -> bool:
        """Tells whether the one who connects may."""
        return self._lets(source, "Egress", destination, port)

    def lets_in(self, source: Party, destination: Party, port: Port) -> bool:
        """Tells whether the one who is connected to takes it."""
        return self._lets(destination, "Ingress", source, port)

    def _lets(self, party: Party, direction: str, peer: Party, port: Port) -> bool:
        if isinstance(party, Address):
            return True
        chosen = [one for one in self._policies if _concerns(one, party) and direction in one["spec"]["policyTypes"]]
        rules = (rule for policy in chosen for rule in policy["spec"].get(direction.lower(), ()))
        return not chosen or any(_fits(rule, direction, party.namespace, peer, port) for rule in rules)


def addresses(policies: Sequence[Document]) -> Iterator[Address]:
    """Yields an address of each block that is named, by the name of its policy."""
    for policy in policies:
        for rule in policy["spec"].get("egress", ()):
            for block in (to["ipBlock"] for to in rule.get("to", ()) if "ipBlock" in to):
                yield Address(policy["metadata"]["name"], str(ipaddress.ip_network(block["cidr"])[1]))


def selects(selector: Mapping[str, Any], labels: frozenset[tuple[str, str]]) -> bool:
    """Tells whether a label selector chooses what has these labels."""
    has = dict(labels)
    wanted = [(key, [value]) for key, value in selector.get("matchLabels", {}).items()]
    for expression in selector.get("matchExpressions", ()):
        if expression["operator"] != "In":
            raise NotImplementedError(expression)
        wanted.append((expression["key"], expression["values"]))
    return all(has.get(key) in values for key, values in wanted)


def _concerns(policy: Document, pod: Pod) -> bool:
    same = policy["metadata"]["namespace"] == pod.namespace
    return same and selects(policy["spec"]["podSelector"], pod.labels)


def _fits(rule: Document, direction: str, namespace: str, peer: Party, port: Port) -> bool:
    peers = rule.get("to" if direction == "Egress" else "from")
    ports = [_port(**one) for one in rule.get("ports", ())]
    return (not ports or port in ports) and (not peers or any(_is(one, namespace, peer) for one in peers))


def _port(port: int, protocol: str = "TCP") -> Port:
    return port, protocol


def _is(described: Document, namespace: str, peer: Party) -> bool:
    if "ipBlock" in described:
        return isinstance(peer, Address) and _within(peer.ip, described["ipBlock"])
    if isinstance(peer, Address):
        return False
    if "namespaceSelector" in described:
        here = selects(described["namespaceSelector"], frozenset({(NAMESPACE, peer.namespace)}))
    else:
        here = peer.namespace == namespace
    return here and selects(described.get("podSelector", {}), peer.labels)


def _within(ip: str, block: Document) -> bool:
    if not block.keys() <= {"cidr", "except"}:
        raise NotImplementedError(block)
    address, left_out = ipaddress.ip_address(ip), map(ipaddress.ip_network, block.get("except", ()))
    return address in ipaddress.ip_network(block["cidr"]) and not any(address in network for network in left_out)
