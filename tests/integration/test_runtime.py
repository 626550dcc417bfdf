"""What the runtime promises for every call, seen from both ends of a real connection."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from user.v1 import user_pb2, user_pb2_grpc

from services.runtime import caller, clients, deadline, trace
from services.runtime.caller import Caller
from services.runtime.errors import NotFound, Unavailable
from tests.integration.serving import METHODS, As, detail, identity, reason, serving, trailers


class UserNotFound(NotFound):
    """As any service has it."""

    message = "There is no user {user_id}."


class Away(Unavailable):
    """As a service that cannot reach its database says."""

    message = "Not now."


class Users(user_pb2_grpc.UserServiceServicer):
    """Does what a test asks for, and keeps who asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Caller, str, float | None]] = []
        self.behaviour: Callable[[], Any] = lambda: asyncio.sleep(0)

    async def GetUser(self, request: user_pb2.GetUserRequest, _: object) -> user_pb2.User:
        self.asked.append((caller.current(), trace.traceparent(), deadline.remaining()))
        await self.behaviour()
        return user_pb2.User(id=request.user_id)

    async def BatchGetUsers(self, request: user_pb2.BatchGetUsersRequest, _: object) -> user_pb2.BatchGetUsersResponse:
        self.asked.append((caller.current(), trace.traceparent(), deadline.remaining()))
        await self.behaviour()
        return user_pb2.BatchGetUsersResponse()

    async def CreateUser(self, request: user_pb2.CreateUserRequest, _: object) -> user_pb2.User:
        return user_pb2.User(id="usr_new")


@asynccontextmanager
async def running(users: Users, certificates: Path) -> AsyncIterator[int]:
    register = [partial(user_pb2_grpc.add_UserServiceServicer_to_server, users)]
    async with serving(register, certificates, "user") as port:
        yield port


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def stub(port: int, certificates: Path, peer: str = "edge", **metadata: str) -> "user_pb2_grpc.UserServiceAsyncStub":
    return user_pb2_grpc.UserServiceStub(As(port, certificates, "user", peer).user("usr_1", "customer", **metadata))


async def test_the_caller_is_known_to_the_handler(certificates: Path) -> None:
    users = Users()
    async with running(users, certificates) as port:
        await stub(port, certificates).GetUser(user_pb2.GetUserRequest(user_id="me"))
    who, _, _ = users.asked[0]
    assert (who.user_id, who.roles, who.peer) == ("usr_1", frozenset({"customer"}), "edge")


async def test_a_peer_without_a_certificate_gets_no_connection(certificates: Path) -> None:
    async with running(Users(), certificates) as port:
        credentials = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())
        options = (("grpc.ssl_target_name_override", "user"),)
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
            call = user_pb2_grpc.UserServiceStub(channel).GetUser(user_pb2.GetUserRequest(user_id="me"))
            assert (await refusal(call)).code() is grpc.StatusCode.UNAVAILABLE


async def test_a_peer_that_is_not_one_of_the_callers_is_refused(certificates: Path) -> None:
    async with running(Users(), certificates) as port:
        error = await refusal(stub(port, certificates, peer="document").GetUser(user_pb2.GetUserRequest(user_id="me")))
        assert (error.code(), reason(error)) == (grpc.StatusCode.PERMISSION_DENIED, "CALLER_NOT_ALLOWED")
        request = user_pb2.BatchGetUsersRequest(user_ids=["usr_1"])
        assert reason(await refusal(stub(port, certificates).BatchGetUsers(request))) == "CALLER_NOT_ALLOWED"
        await stub(port, certificates, peer="payment").BatchGetUsers(request)


async def test_the_edge_may_only_call_the_rpc_that_was_granted(certificates: Path) -> None:
    async with running(Users(), certificates) as port:
        for granted in ("/user.v1.UserService/ListUsers", ""):
            call = stub(port, certificates, x_user_rpc=granted).GetUser(user_pb2.GetUserRequest(user_id="me"))
            assert reason(await refusal(call)) == "RPC_NOT_GRANTED"


async def test_the_edge_must_name_a_user_where_a_token_is_needed(certificates: Path) -> None:
    async with running(Users(), certificates) as port:
        nobody = user_pb2_grpc.UserServiceStub(As(port, certificates, "user").user(""))
        error = await refusal(nobody.GetUser(user_pb2.GetUserRequest(user_id="me")))
        assert (error.code(), reason(error)) == (grpc.StatusCode.UNAUTHENTICATED, "NOT_LOGGED_IN")
        assert trailers(error)["www-authenticate"] == "Bearer"


async def test_what_breaks_the_contracts_rules_is_refused_field_by_field(certificates: Path) -> None:
    async with running(Users(), certificates) as port:
        request = user_pb2.CreateUserRequest(email="nobody", password="short", display_name="", country="de")
        error = await refusal(stub(port, certificates).CreateUser(request))
        assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        violations = detail(error, error_details_pb2.BadRequest()).field_violations
        assert [one.field for one in violations] == ["email", "password", "displayName", "country", "dateOfBirth"]
        assert all(one.description for one in violations)


@pytest.mark.parametrize("user_id", ["", "a\0b", "a/b", "usr_1\n", "ü", "a" * 65])
async def test_an_id_that_no_path_could_hold_is_refused(certificates: Path, user_id: str) -> None:
    async with running(Users(), certificates) as port:
        get = stub(port, certificates).GetUser(user_pb2.GetUserRequest(user_id=user_id))
        assert reason(await refusal(get)) == "INVALID_REQUEST"
        request = user_pb2.BatchGetUsersRequest(user_ids=["usr_1", user_id])
        assert (
            reason(await refusal(stub(port, certificates, peer="payment").BatchGetUsers(request))) == "INVALID_REQUEST"
        )


async def test_success_says_what_the_contract_says_about_it(certificates: Path) -> None:
    async with running(Users(), certificates) as port:
        request = user_pb2.CreateUserRequest(
            email="a@example.com",
            password="long enough 12",
            display_name="A",
            country="DE",
            date_of_birth={"year": 1990},
        )
        call = stub(port, certificates).CreateUser(request)
        await call
        said = dict(await call.initial_metadata())
        assert (said["x-http-code"], said["location"]) == ("201", "/api/v1/users/usr_new")


async def test_a_message_that_cannot_be_decoded_is_a_bad_request(certificates: Path) -> None:
    async with running(Users(), certificates) as port:
        channel = As(port, certificates, "user").user("usr_1")
        get: Any = channel.unary_unary(
            "/user.v1.UserService/GetUser", request_serializer=None, response_deserializer=None
        )
        error = await refusal(get(b"\x0a\x02\xff\xfe"))  # field 1, a string that is not UTF-8
        assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")


async def test_an_error_of_the_tree_reaches_the_caller_with_its_reason_and_metadata(certificates: Path) -> None:
    async def fail() -> None:
        raise UserNotFound(user_id="usr_9")

    users = Users()
    users.behaviour = fail
    async with running(users, certificates) as port:
        error = await refusal(stub(port, certificates).GetUser(user_pb2.GetUserRequest(user_id="usr_9")))
    info = detail(error, error_details_pb2.ErrorInfo())
    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "There is no user usr_9.")
    assert (info.reason, info.domain, dict(info.metadata)) == ("USER_NOT_FOUND", "drawbridge", {"user_id": "usr_9"})


async def test_an_unexpected_error_says_nothing_of_itself(certificates: Path) -> None:
    async def fail() -> None:
        raise RuntimeError("secret")

    users = Users()
    users.behaviour = fail
    async with running(users, certificates) as port:
        error = await refusal(stub(port, certificates).GetUser(user_pb2.GetUserRequest(user_id="me")))
    assert (error.code(), reason(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in str(error)


async def test_an_outgoing_call_carries_the_caller_the_trace_and_the_deadline_less_a_margin(
    certificates: Path,
) -> None:
    users = Users()
    async with running(users, certificates) as port:
        outgoing = clients.connect("user", f"127.0.0.1:{port}", identity(certificates, "payment"), METHODS)
        caller.set_current(Caller("usr_7", frozenset({"customer"}), "", "edge"))
        trace_id = trace.begin("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        deadline.begin(3)
        request = user_pb2.BatchGetUsersRequest(user_ids=["usr_1"])
        await user_pb2_grpc.UserServiceStub(outgoing).BatchGetUsers(request)
        await outgoing.close()
    who, traceparent, remaining = users.asked[0]
    assert (who.user_id, who.roles, who.peer) == ("usr_7", frozenset({"customer"}), "payment")
    assert trace_id == "0af7651916cd43dd8448eb211c80319c" == traceparent.split("-")[1]
    assert remaining is not None
    assert 2 < remaining <= 3 - clients.MARGIN_SECONDS


async def test_a_call_without_time_left_is_not_made(certificates: Path) -> None:
    users = Users()
    async with running(users, certificates) as port:
        outgoing = clients.connect("user", f"127.0.0.1:{port}", identity(certificates, "payment"), METHODS)
        caller.set_current(Caller())
        deadline.begin(clients.MARGIN_SECONDS / 2)
        with pytest.raises(clients.NoTimeLeft):
            await user_pb2_grpc.UserServiceStub(outgoing).BatchGetUsers(user_pb2.BatchGetUsersRequest(user_ids=["u"]))
        await outgoing.close()
    assert users.asked == []


async def test_a_call_that_is_safe_to_retry_survives_a_peer_that_is_away_for_a_moment(certificates: Path) -> None:
    failures = iter((True, False))

    async def fail_once() -> None:
        if next(failures):
            raise Away

    users = Users()
    users.behaviour = fail_once
    async with running(users, certificates) as port:
        outgoing = clients.connect("user", f"127.0.0.1:{port}", identity(certificates, "payment"), METHODS)
        caller.set_current(Caller())
        deadline.begin(3)
        await user_pb2_grpc.UserServiceStub(outgoing).BatchGetUsers(user_pb2.BatchGetUsersRequest(user_ids=["u"]))
        await outgoing.close()
    assert len(users.asked) == 2


async def test_a_call_is_ended_at_the_contracts_deadline_when_the_caller_sets_none(certificates: Path) -> None:
    users = Users()
    users.behaviour = lambda: asyncio.sleep(60)
    short = {rpc: replace(method, deadline=0.05) for rpc, method in METHODS.items()}
    register = [partial(user_pb2_grpc.add_UserServiceServicer_to_server, users)]
    async with serving(register, certificates, "user", methods=short) as port:
        error = await refusal(stub(port, certificates).GetUser(user_pb2.GetUserRequest(user_id="me")))
    assert (error.code(), reason(error)) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_PASSED")
