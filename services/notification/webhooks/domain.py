"""What a webhook is, and which addresses it may have. No I/O."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

from services.runtime.errors import (
    EtagMismatch,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
    PreconditionViolation,
    ResourceExhausted,
)

WEBHOOKS_PER_USER = 20
SECRET_OVERLAP = timedelta(hours=24)
"""How long deliveries are signed with a secret, too, that another one has replaced."""
MOST_SECRETS = 5
"""With how many secrets a delivery is signed at the most: of more, the oldest are dropped before their time."""
UPDATABLE_FIELDS = frozenset({"url", "event_types", "description", "state"})

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[^][/?#@:]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?"
    r"([/?]([A-Za-z0-9._~:/?\[\]@!$&'()*+,;=-]|%[0-9A-F]{2})*)?",
    re.IGNORECASE,
)
_NAME = re.compile(
    r"(?=.{1,253}$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)", re.IGNORECASE)
"""What resolvers take for an IPv4 address, in one of its many forms (WHATWG URL, 3.5)."""
_LOCAL = ("localhost", "local", "internal")
_HTTPS = 443
_LAST_PORT = 65535

_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_LAST_IPV4 = 2**32 - 1
_LOOK_PUBLIC = (
    IPv4Network("168.63.129.16/32"),  # to a virtual machine on Azure, its host
    IPv4Network("192.0.0.0/24"),  # for protocols; on Oracle's cloud, 192.0.0.192 is its metadata
    IPv6Network("3fff::/20"),  # for documentation
)
"""What Python, or some versions of it, take for public."""


class InvalidWebhookUrl(InvalidArgument):
    """Nothing is posted to such an address."""

    message = "The address of a webhook {problem}."

    def __init__(self, problem: str) -> None:
        super().__init__(problem=problem, fields=[FieldViolation("url", problem)])


class TooManyWebhooks(ResourceExhausted):
    """The user has as many webhooks as one may have."""

    message = "A user has at most {limit} webhooks. Delete one first."


class WebhookNotFound(NotFound):
    """The caller has no such webhook."""

    message = "There is no webhook {webhook_id}."


class WebhookDeliveryNotFound(NotFound):
    """The webhook has no such delivery, or not any more."""

    message = "There is no delivery {delivery_id} of webhook {webhook_id}."


class WebhookDisabled(FailedPrecondition):
    """Nothing is posted to the webhook."""

    message = "Webhook {webhook_id} is disabled. Enable it first."

    def __init__(self, webhook_id: str) -> None:
        enable = PreconditionViolation("WEBHOOK_DISABLED", webhook_id, "must be enabled")
        super().__init__(webhook_id=webhook_id, preconditions=[enable])


class State(Enum):
    """Whether anything is posted. The values are those of notification.v1.Webhook.State."""

    ENABLED = 1
    DISABLED = 2


class DeliveryState(Enum):
    """Where a delivery stands. The values are those of notification.v1.WebhookDelivery.State."""

    PENDING = 1
    DELIVERED = 2
    FAILED = 3


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where a user wants events to be posted."""

    id: str
    user_id: str
    url: str
    event_types: tuple[str, ...]
    """Empty: all."""
    description: str
    state: State
    sequence: int
    """Counts its versions from 1."""
    create_time: datetime
    update_time: datetime

    @property
    def etag(self) -> str:
        """The version as clients see it (AIP-154)."""
        return str(self.sequence)

    def require_etag(self, etag: str) -> None:
        """Lets an update pass that is based on this version, or on none. Raises EtagMismatch."""
        if etag and etag != self.etag:
            raise EtagMismatch(resource=f"Webhook {self.id}", etag=etag)

    def with_changes(self, changes: Mapping[str, Any], now: datetime) -> "Webhook":
        """Returns the webhook with new values in the fields named; itself where nothing is new."""
        changed = replace(self, **changes)
        return self if changed == self else replace(changed, sequence=self.sequence + 1, update_time=now)


@dataclass(frozen=True, slots=True)
class Target:
    """An enabled webhook, as who posts to it sees it."""

    url: str
    secrets: tuple[bytes, ...] = field(repr=False)
    """Those that are valid, newest first."""


@dataclass(frozen=True, slots=True)
class LoggedDelivery:
    """An event on its way to a webhook, as its owner sees it."""

    id: str
    webhook_id: str
    event_type: str
    payment_id: str
    state: DeliveryState
    attempts: int
    response_status: int
    """0: no answer came."""
    error: str
    create_time: datetime
    last_attempt_time: datetime | None
    next_attempt_time: datetime | None


def require_url(url: str, *, public: bool) -> None:
    """Lets the address of a webhook pass: https on port 443, a host that may be public; else, any http(s) URL.

    Where the name of a host leads is only known when it is resolved: see is_public. Raises InvalidWebhookUrl.
    """
    parts = _URL.fullmatch(url) if url.isascii() else None
    if parts is None:
        raise InvalidWebhookUrl("must be an http(s) URL without user or fragment, in ASCII (other scripts as punycode)")
    host, port = parts["host"].lower(), int(parts["port"] or _HTTPS)
    address = _address(host)
    if not 0 < port <= _LAST_PORT:
        raise InvalidWebhookUrl("must have a port from 1 to 65535")
    if not public:
        return
    if parts["scheme"].lower() != "https":
        raise InvalidWebhookUrl("must begin with https://")
    if port != _HTTPS:
        raise InvalidWebhookUrl("must have port 443")
    if not is_public(address) if address else "." not in host or host.split(".")[-1] in _LOCAL:
        raise InvalidWebhookUrl("must be one that the whole internet can reach")


def _address(host: str) -> str:
    """Returns the IP address that a host is, empty where it is a name. Raises InvalidWebhookUrl where it is neither."""
    literal = host.strip("[]")
    if literal == host and not _NUMBER.fullmatch(host):
        if _NAME.fullmatch(host):
            return ""
        raise InvalidWebhookUrl("must have a host name")
    try:
        return str(IPv4Address(host) if literal == host else IPv6Address(literal))
    except ValueError as error:
        raise InvalidWebhookUrl("must have an IP address in its usual form, or a host name") from error


def is_public(address: str) -> bool:
    """Tells whether an IP address is one of a single host on the public internet, whatever it is wrapped in."""
    ip = ip_address(address)
    if any(ip in network for network in _LOOK_PUBLIC) or ip.is_multicast:
        return False
    if isinstance(ip, IPv4Address):
        return ip.is_global
    inner = ip.ipv4_mapped or ip.sixtofour or (IPv4Address(int(ip) & _LAST_IPV4) if ip in _NAT64 else None)
    if inner is not None:
        return is_public(str(inner))
    return ip in _GLOBAL_UNICAST and ip.is_global and not ip.scope_id
