"""Chromium, a page for it, and the native stack behind both."""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from playwright.async_api import Browser, async_playwright

from scripts.stack import lifecycle
from scripts.stack.folder import run_folder
from tests.browser.tab import Tab
from tests.edge.people import People, Person
from tests.edge.stack import Stack

STREAMS_PER_USER = 3
SCRIPT = (Path(__file__).parent / "page.js").read_text()


@pytest.fixture(scope="package")
async def chromium() -> AsyncIterator[Browser]:
    """The browser of the machine: Playwright's own ones come neither from PyPI nor from Debian."""
    path = shutil.which("chromium")
    if path is None:
        why = "There is no chromium here: apt-get install chromium."
        if os.environ.get("REQUIRE_CHROMIUM"):
            pytest.fail(why)
        pytest.skip(why)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Serves the page, in one piece."""
        page = f'<!doctype html><meta charset="utf-8"><title>A page</title><script>{SCRIPT}</script>'.encode()
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="package")
def origin() -> Iterator[str]:
    """Where the page is: a loopback address that is not the edge's."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Page)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://localhost:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="package")
def stack(chromium: Browser) -> Iterator[Stack]:
    """A native stack whose limits are soon reached."""
    folder = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-test-")))
    wishes = {"MAX_STREAMS_PER_USER": str(STREAMS_PER_USER), "VELOCITY_LIMIT_PER_HOUR": "1000"}
    try:
        settings = lifecycle.up(folder, edge_port=0, edge_tls_port=0, wishes=wishes)
        yield Stack(settings, **{name.lower(): value for name, value in settings.reach().items()})
    finally:
        lifecycle.clean(folder)


@pytest.fixture(scope="package")
def people(stack: Stack) -> Iterator[People]:
    """Users of the stack."""
    with ExitStack() as clients:
        yield People(stack, clients)


@pytest.fixture(scope="package")
def payer(people: People) -> Person:
    """Somebody with enough money for all tests."""
    return people.payer(1000)


@pytest.fixture(params=["http", "https"])
def edge_url(request: pytest.FixtureRequest, stack: Stack) -> str:
    """The edge over HTTP/1.1, and over HTTP/2."""
    return stack.edge_url if request.param == "http" else stack.edge_tls_url


@pytest.fixture
async def tab(chromium: Browser, origin: str, edge_url: str) -> AsyncIterator[Tab]:
    """A new tab of a browser that knows nothing of the tests before."""
    context = await chromium.new_context(ignore_https_errors=True)
    page = await context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(f"{origin}")
    yield Tab(page, edge_url, asked)
    await context.close()
