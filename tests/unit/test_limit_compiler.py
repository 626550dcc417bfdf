"""The limits of requests that envoy/rate_limits.yaml has."""

import re
from typing import Any, get_args

import pytest
import yaml
from limit_compiler import LimitsError, choose, compile_descriptors, compile_shared

from scripts.stack.folder import REPOSITORY
from services.runtime.contract import RateClass

TABLES = yaml.safe_load((REPOSITORY / "envoy/rate_limits.yaml").read_text())
FEW = {rate_class: {"address": 20, "user": 10} for rate_class in get_args(RateClass)}


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_complete(name: str) -> None:
    assert {*choose(TABLES, name)} == {*get_args(RateClass)}


def test_limits_that_are_not_there_are_told_those_that_are() -> None:
    with pytest.raises(LimitsError, match="There are no LIMITS moon; there are generous, production"):
        choose(TABLES, "moon")


@pytest.mark.parametrize(
    "numbers", [None, {}, {"address": 20}, {"address": 20, "user": 0}, {"address": 20, "user": "10"}, {"usr": 1}]
)
def test_a_class_without_its_numbers_is_named(numbers: Any) -> None:
    with pytest.raises(
        LimitsError, match="The LIMITS few have to give upload a number of requests by address and user"
    ):
        choose({"few": {**FEW, "upload": numbers}}, "few")


def test_a_user_may_do_no_more_than_an_address() -> None:
    limits = choose(TABLES, "production")
    assert all(numbers["user"] <= numbers["address"] for numbers in limits.values())


def test_operators_are_told_the_numbers_of_production() -> None:
    page = (REPOSITORY / "docs/operations.md").read_text()
    told = re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    assert told == [
        (rate_class, str(numbers["address"]), str(numbers["user"]))
        for rate_class, numbers in choose(TABLES, "production").items()
    ]


def test_each_user_has_a_bucket_of_their_own_for_each_class() -> None:
    descriptors = compile_descriptors(choose({"few": FEW}, "few"), "user")
    assert [one["entries"] for one in descriptors] == [
        [{"key": "rate_class", "value": rate_class}, {"key": "user"}] for rate_class in get_args(RateClass)
    ]
    assert {tuple(one["token_bucket"].values()) for one in descriptors} == {(10, 10, "60s")}


def test_all_edges_together_take_no_more_of_an_address_than_one_does() -> None:
    limits = choose(TABLES, "production")
    shared = {one["value"]: one["descriptors"] for one in compile_shared(limits)["descriptors"]}
    own = {one["entries"][0]["value"]: one for one in compile_descriptors(limits, "address")}
    assert shared.keys() == own.keys()
    for rate_class, [by_address] in shared.items():
        assert by_address["key"] == own[rate_class]["entries"][1]["key"]
        number = by_address["rate_limit"]["requests_per_unit"]
        assert own[rate_class]["token_bucket"] == {
            "max_tokens": number,
            "tokens_per_fill": number,
            "fill_interval": "60s",
        }
