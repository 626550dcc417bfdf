"""Compiles rate_limits.yaml into what Envoy counts itself, and into what all replicas of it have counted elsewhere."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from services.runtime.contract import RateClass

Counted = Literal["address", "user"]
Limits = Mapping[RateClass, Mapping[Counted, int]]
"""Requests a minute."""

_MINUTE = "60s"
# What an entry of a descriptor is called: as Envoy calls an address, and as listeners.yaml calls users.
_KEYS: Mapping[Counted, str] = {"address": "masked_remote_address", "user": "user"}


class LimitsError(Exception):
    """There are no limits by that name, or they are not complete. The message says what there has to be."""


def choose(tables: Mapping[str, Any], name: str) -> Limits:
    """Returns the limits that LIMITS names. Raises LimitsError."""
    if name not in tables:
        raise LimitsError(f"There are no LIMITS {name}; there are {', '.join(tables)}")
    limits: Limits = tables[name]
    for rate_class in get_args(RateClass):
        numbers = limits.get(rate_class) or {}
        if {*numbers} != {*_KEYS} or not all(type(number) is int and number > 0 for number in numbers.values()):
            raise LimitsError(
                f"The LIMITS {name} have to give {rate_class} a number of requests by {' and '.join(_KEYS)}"
            )
    return limits


def compile_descriptors(limits: Limits, counted: Counted) -> list[dict[str, Any]]:
    """Returns the descriptors of a local_ratelimit filter: a bucket for each class and each that is counted."""
    return [
        {
            "entries": [{"key": "rate_class", "value": rate_class}, {"key": _KEYS[counted]}],
            "token_bucket": {"max_tokens": number, "tokens_per_fill": number, "fill_interval": _MINUTE},
        }
        for rate_class, numbers in limits.items()
        for number in [numbers[counted]]
    ]


def compile_shared(limits: Limits) -> dict[str, Any]:
    """Returns the configuration of envoyproxy/ratelimit: the same limits by address, for all replicas together."""
    return {
        "domain": "drawbridge",
        "descriptors": [
            {
                "key": "rate_class",
                "value": rate_class,
                "descriptors": [
                    {
                        "key": _KEYS["address"],
                        "rate_limit": {"unit": "minute", "requests_per_unit": numbers["address"]},
                    }
                ],
            }
            for rate_class, numbers in limits.items()
        ],
    }
