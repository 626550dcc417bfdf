"""What the contract asks of callers from outside."""

from pathlib import Path

import pytest

from authz.policy import Policy, RoleRequired, RpcNotReachable, require_role
from services.runtime import contract

METHODS = contract.load(Path(__file__).parents[2] / "gen/contract.binpb")
POLICY = Policy(METHODS)


@pytest.mark.parametrize("rpc", [method.rpc for method in METHODS.values() if method.access == "none"])
def test_what_is_for_services_only_is_denied(rpc: str) -> None:
    with pytest.raises(RpcNotReachable):
        POLICY.terms(rpc)


@pytest.mark.parametrize("rpc", ["", "/", "/grpc.health.v1.Health/Check", "user.v1.UserService/GetUser"])
def test_what_is_not_listed_is_denied(rpc: str) -> None:
    with pytest.raises(RpcNotReachable):
        POLICY.terms(rpc)


def test_any_one_of_the_roles_is_enough_and_no_role_is_needed_where_none_is_named() -> None:
    only_admins = POLICY.terms("/user.v1.UserService/ListUsers")
    require_role(only_admins, frozenset({"admin", "customer"}))
    for roles in (frozenset[str](), frozenset({"customer"}), frozenset({"Admin"})):
        with pytest.raises(RoleRequired, match="admin"):
            require_role(only_admins, roles)
    require_role(POLICY.terms("/user.v1.UserService/GetUser"), frozenset())
