"""An S3 server, as far as an object store needs one: moto's, in a process of its own. It forgets all when it ends."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3  # type: ignore[import-untyped]
import httpx
import pytest

from scripts.stack import ports
from tests.waiting import wait_until

if TYPE_CHECKING:  # obstore has it only in its stubs
    from obstore.store import S3Config

BUCKET = "files"


class S3:
    """The server, and an operator's view of its one bucket."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.variables = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "drawbridge",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        """What a process that uses it has in its environment."""
        self.config: S3Config = {
            "endpoint": self.url,
            "region": "eu-central-1",
            "access_key_id": "drawbridge",
            "secret_access_key": "secret",
        }
        """The same, for one store."""
        self._command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it anew, with an empty bucket."""
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, "the S3 server did not start")
        self._client.create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": self.config["region"]}
        )

    def kill(self) -> None:
        """Ends it, and what it keeps."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def send(self, sign: int) -> None:
        """Sends it a signal."""
        assert self._process is not None
        self._process.send_signal(sign)

    def names(self) -> set[str]:
        """All that is in the bucket."""
        return {one["Key"] for page in self._pages("list_objects_v2") for one in page.get("Contents", ())}

    def unfinished(self) -> set[str]:
        """The multipart uploads that nobody ended."""
        return {one["Key"] for page in self._pages("list_multipart_uploads") for one in page.get("Uploads", ())}

    def _pages(self, operation: str) -> Iterator[dict[str, Any]]:
        yield from self._client.get_paginator(operation).paginate(Bucket=BUCKET)

    @cached_property
    def _client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=self.config["region"],
            aws_access_key_id=self.config["access_key_id"],
            aws_secret_access_key=self.config["secret_access_key"],
        )

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(f"the S3 server ended: {self._command}")
        try:
            return httpx.get(f"{self.url}/moto-api/", trust_env=False).is_success
        except httpx.TransportError:
            return False


@contextmanager
def running_s3() -> Iterator[S3]:
    """Runs one on a free port."""
    [port] = ports.free(1)
    server = S3(port)
    try:
        server.start()
        yield server
    finally:
        server.kill()
