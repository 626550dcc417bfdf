"""Certificates between services: who is let in, and how they are renewed while calls go on."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import grpc
import pytest
from user.v1 import user_pb2, user_pb2_grpc

from scripts.stack.certificates import Authority, issue, names_of
from services.runtime import caller, clients
from services.runtime.caller import Caller
from tests.integration.serving import METHODS, As, identity, serving

REQUEST = user_pb2.BatchGetUsersRequest(user_ids=["usr_1"])


class Users(user_pb2_grpc.UserServiceServicer):
    """Answers, or waits for `go_on` first."""

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self.go_on: asyncio.Event | None = None

    async def BatchGetUsers(self, _request: object, _: object) -> user_pb2.BatchGetUsersResponse:
        self.came.set()
        if self.go_on is not None:
            await self.go_on.wait()
        return user_pb2.BatchGetUsersResponse()


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """A mesh of the test's own, whose certificates it may replace."""
    issue(tmp_path / "mesh")
    return tmp_path / "mesh"


@asynccontextmanager
async def running(mesh: Path, users: Users | None = None) -> AsyncIterator[int]:
    register = [partial(user_pb2_grpc.add_UserServiceServicer_to_server, users or Users())]
    async with serving(register, mesh, "user") as port:
        yield port


@asynccontextmanager
async def payment(port: int, mesh: Path) -> AsyncIterator["user_pb2_grpc.UserServiceAsyncStub"]:
    """The stub that payment has of user."""
    caller.set_current(Caller())
    channel = clients.connect("user", f"127.0.0.1:{port}", identity(mesh, "payment"), METHODS)
    try:
        yield user_pb2_grpc.UserServiceStub(channel)
    finally:
        await channel.close()


async def code_of(port: int, mesh: Path, peer: str = "payment") -> grpc.StatusCode:
    """How a call comes out over a connection of its own."""
    channel = As(port, mesh, "user", peer)
    try:
        await user_pb2_grpc.UserServiceStub(channel.user("usr_1")).BatchGetUsers(REQUEST)
    except grpc.aio.AioRpcError as error:
        return error.code()
    finally:
        await channel.close()
    return grpc.StatusCode.OK


def replace(mesh: Path, *names: str, by: Path) -> None:
    """Replaces files as a secret volume does: each at once."""
    for name in names:
        shutil.copy(by / name, mesh / f"{name}.new")
        (mesh / f"{name}.new").replace(mesh / name)


def renew(mesh: Path, spare: Path) -> None:
    """Makes a new CA and certificates of it, and puts them in the place of those there are."""
    issue(spare)
    replace(mesh, *(file.name for file in spare.iterdir()), by=spare)


@pytest.fixture
def looked_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "RENEW_SECONDS", 0.0)


def expired(authority: Authority, mesh: Path) -> None:
    authority.save(mesh / "ca.pem")
    authority.sign(mesh / "user", "user", names_of("user"))
    authority.sign(mesh / "payment", "payment", names_of("payment"), lifetime=timedelta(minutes=-1))


def foreign(_: Authority, mesh: Path) -> None:
    stranger = Authority("Another mesh")
    stranger.sign(mesh / "payment", "payment", names_of("payment"))


def nameless(authority: Authority, mesh: Path) -> None:
    authority.save(mesh / "ca.pem")
    authority.sign(mesh / "user", "user", names_of("user"))
    authority.sign(mesh / "payment", "payment", names_of("payment")[1:])


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (expired, grpc.StatusCode.UNAVAILABLE),
        (foreign, grpc.StatusCode.UNAVAILABLE),
        (nameless, grpc.StatusCode.PERMISSION_DENIED),  # the handshake is good, but it is nobody
    ],
)
async def test_a_certificate_that_is_not_good_lets_nobody_in(
    mesh: Path, spoil: Callable[[Authority, Path], None], code: grpc.StatusCode
) -> None:
    spoil(Authority("The mesh"), mesh)
    async with running(mesh) as port:
        assert await code_of(port, mesh) is code


async def test_a_server_takes_up_new_certificates_and_calls_in_flight_go_on(mesh: Path, tmp_path: Path) -> None:
    users = Users()
    users.go_on = asyncio.Event()
    old = shutil.copytree(mesh, tmp_path / "old")
    async with running(mesh, users) as port:
        channel = As(port, mesh, "user", "payment")
        in_flight = asyncio.ensure_future(user_pb2_grpc.UserServiceStub(channel.user("usr_1")).BatchGetUsers(REQUEST))
        await users.came.wait()
        renew(mesh, tmp_path / "spare")
        users.go_on.set()
        await in_flight
        await channel.close()
        assert await code_of(port, mesh) is grpc.StatusCode.OK
        assert await code_of(port, old) is grpc.StatusCode.UNAVAILABLE  # of the CA that is no more


async def test_a_server_goes_on_with_what_it_has_while_a_key_does_not_fit(mesh: Path, tmp_path: Path) -> None:
    issue(tmp_path / "spare")
    old = shutil.copytree(mesh, tmp_path / "old")
    async with running(mesh) as port:
        replace(mesh, "user.key", by=tmp_path / "spare")
        assert await code_of(port, old) is grpc.StatusCode.OK
        replace(mesh, "user.pem", "ca.pem", by=tmp_path / "spare")
        assert await code_of(port, tmp_path / "spare") is grpc.StatusCode.OK


@pytest.mark.usefixtures("looked_at_each_call")
async def test_no_call_fails_while_the_certificates_of_both_ends_are_renewed(mesh: Path, tmp_path: Path) -> None:
    authority = Authority("The mesh")
    authority.save(mesh / "ca.pem")
    for peer in ("user", "payment"):
        authority.sign(mesh / peer, peer, names_of(peer))
    new = tmp_path / "new"
    new.mkdir()
    async with running(mesh) as port, payment(port, mesh) as users:
        for peer in ("user", "payment") * 3:
            calls = [asyncio.ensure_future(users.BatchGetUsers(REQUEST)) for _ in range(20)]
            authority.sign(new / peer, peer, names_of(peer))
            replace(mesh, f"{peer}.key", f"{peer}.pem", by=new)
            await asyncio.gather(*calls)
        # Another CA, of which the old certificates are not: whoever still gets an answer has taken the new ones up.
        renew(mesh, tmp_path / "spare")
        await users.BatchGetUsers(REQUEST)


@pytest.mark.usefixtures("looked_at_each_call")
async def test_a_client_lets_its_call_in_flight_end_on_the_old_connection(mesh: Path, tmp_path: Path) -> None:
    service = Users()
    service.go_on = asyncio.Event()
    async with running(mesh, service) as port, payment(port, mesh) as users:
        in_flight = asyncio.ensure_future(users.BatchGetUsers(REQUEST))
        await service.came.wait()
        service.came.clear()
        renew(mesh, tmp_path / "spare")
        another = asyncio.ensure_future(users.BatchGetUsers(REQUEST))
        await service.came.wait()
        service.go_on.set()
        await asyncio.gather(in_flight, another)
