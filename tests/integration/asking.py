"""authz as the edge asks it."""

import json
from pathlib import Path

import grpc
from ext_authz import external_auth_pb2, external_auth_pb2_grpc

from tests.integration.serving import identity

Denied = external_auth_pb2.DeniedHttpResponse


class Edge:
    """The edge, asking."""

    def __init__(self, port: int, certificates: Path, peer: str = "edge") -> None:
        options = (("grpc.ssl_target_name_override", "authz"),)
        self.channel = grpc.aio.secure_channel(
            f"127.0.0.1:{port}", identity(certificates, peer).channel(), options=options
        )
        self._stub: external_auth_pb2_grpc.AuthorizationAsyncStub = external_auth_pb2_grpc.AuthorizationStub(
            self.channel
        )

    async def check(self, rpc: str, *headers: tuple[str, str], path: str = "/") -> external_auth_pb2.CheckResponse:
        request = external_auth_pb2.CheckRequest()
        http = request.attributes.request.http
        http.path = path
        for name, value in headers:
            http.header_map.headers.add(key=name, raw_value=value.encode())
        request.attributes.context_extensions["rpc"] = rpc
        if "?" in path:
            request.attributes.context_extensions["body"] = ""  # as of REST, which alone has queries
        return await self._stub.Check(request)

    async def granted(self, rpc: str, *headers: tuple[str, str], path: str = "/") -> external_auth_pb2.OkHttpResponse:
        response = await self.check(rpc, *headers, path=path)
        assert response.status.code == 0
        assert response.WhichOneof("http_response") == "ok_response", response
        return response.ok_response

    async def denied(self, rpc: str, *headers: tuple[str, str], path: str = "/") -> Denied:
        response = await self.check(rpc, *headers, path=path)
        assert response.status.code != 0
        assert response.WhichOneof("http_response") == "denied_response", response
        return response.denied_response


def headers_of(response: external_auth_pb2.OkHttpResponse | Denied) -> dict[str, str]:
    return {option.header.key: option.header.value for option in response.headers}


def reason(denied: Denied) -> str:
    return str(json.loads(denied.body)["details"][0]["reason"])
