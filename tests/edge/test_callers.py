"""Who may call what between services: every service with every method of the contract, on the processes themselves."""

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from scripts.stack.certificates import PEERS
from services.runtime import contract
from services.runtime.contract import Method
from services.runtime.status import DETAILS
from services.runtime.tls import Identity
from tests.edge.contract.edge import CONTRACT
from tests.edge.stack import Stack

METHODS = contract.load(CONTRACT)
OF_EVERY_SERVER = "common"
SERVICES = sorted({method.server for method in METHODS.values()} - {OF_EVERY_SERVER})


def servers(method: Method) -> list[str]:
    """The services that serve a method."""
    return SERVICES if method.server == OF_EVERY_SERVER else [method.server]


async def refusal(channel: grpc.aio.Channel, method: Method) -> str:
    """The reason with which an empty request is refused, the status where it has none; empty where it is not."""
    kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    call: Any = getattr(channel, kind)(method.rpc)(iter([b""]) if method.client_streaming else b"", timeout=20)
    try:
        if method.server_streaming:
            await call.read()
            code = await call.code() if call.done() else grpc.StatusCode.OK
        else:
            await call
            code = grpc.StatusCode.OK
        trailers = await call.trailing_metadata() if call.done() else ()
    except grpc.aio.AioRpcError as error:
        code, trailers = error.code(), error.trailing_metadata()
    finally:
        call.cancel()
    if code is grpc.StatusCode.OK:
        return ""
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(dict(trailers or ()).get(DETAILS, b"")).details:
        if detail.Unpack(info):
            return str(info.reason)
    return str(code.name)


@pytest.mark.parametrize("peer", PEERS)
async def test_a_peer_may_call_what_the_contract_says_and_nothing_else(stack: Stack, peer: str) -> None:
    certificates = stack.settings.folder.certificates
    identity = Identity(certificates / f"{peer}.pem", certificates / f"{peer}.key", certificates / "ca.pem")
    channels = {
        server: grpc.aio.secure_channel(
            stack.settings.address(server),
            identity.channel(),
            options=(("grpc.ssl_target_name_override", server),),
        )
        for server in SERVICES
    }
    asked = [(method, server) for method in METHODS.values() for server in servers(method)]
    try:
        reasons = await asyncio.gather(*(refusal(channels[server], method) for method, server in asked))
    finally:
        await asyncio.gather(*(channel.close() for channel in channels.values()))
    let_in = {
        (method.rpc, server)
        for (method, server), why in zip(asked, reasons, strict=True)
        if why != "CALLER_NOT_ALLOWED"
    }
    assert let_in == {(method.rpc, server) for method, server in asked if peer in method.callers}
    # The edge is a caller, but only for what authz granted.
    assert peer != contract.EDGE or {why for why in reasons if why != "CALLER_NOT_ALLOWED"} == {"RPC_NOT_GRANTED"}
