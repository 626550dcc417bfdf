"""A tab of a real browser, on a page of another origin than the edge's."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from playwright.async_api import Page

from tests.edge.people import Json, Person
from tests.waiting import eventually


def token(person: Person) -> str:
    """Somebody's access token."""
    return str(person.client.headers["authorization"]).removeprefix("Bearer ")


@dataclass(frozen=True)
class Tab:
    """What the page may do. See page.js."""

    page: Page
    edge_url: str
    asked: list[str]
    """The URLs of the requests so far."""

    async def ask(self, path: str, who: Person | None = None, **options: Any) -> Json:
        """Fetches."""
        given = {"authorization": f"Bearer {token(who)}"} if who else {}
        options["headers"] = given | options.get("headers", {})
        answer: Json = await self.page.evaluate(
            "([url, options]) => ask(url, options)", [self.edge_url + path, options]
        )
        return answer

    async def upload(
        self,
        who: Person,
        content: bytes,
        name: str = "bill.png",
        size: int = 0,
        *,
        kind_last: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Json:
        """Uploads a proof of address, with zeros after its content up to a size."""
        head = base64.b64encode(content).decode()
        file: Json = {"name": name, "kind": "PROOF_OF_ADDRESS", "head": head, "size": size, "kindLast": kind_last}
        file["headers"] = dict(headers or {})
        answer: Json = await self.page.evaluate(
            "([url, token, file]) => upload(url, token, file)",
            [f"{self.edge_url}/api/v1/documents/upload", token(who), file],
        )
        return answer

    async def lines(self, path: str, who: Person) -> Json:
        """Reads a stream of JSON lines to its end."""
        answer: Json = await self.page.evaluate(
            "([url, token]) => lines(url, token)", [self.edge_url + path, token(who)]
        )
        return answer

    async def follow(self, path: str, who: Person, **query: str) -> "Followed":
        """Opens an EventSource."""
        url = f"{self.edge_url}{path}?{urlencode({'access_token': token(who)} | query)}"
        return Followed(self, await self.page.evaluate("(url) => follow(url)", url))


@dataclass(frozen=True)
class Followed:
    """An EventSource of the page."""

    tab: Tab
    number: int

    async def noticed(self) -> Json:
        """What the page has noticed of it so far."""
        seen: Json = await self.tab.page.evaluate("(number) => noticed(number)", self.number)
        return seen

    async def until(self, what: str, seconds: float = 60) -> Json:
        """Waits until an expression of `seen` holds. Returns what the page has noticed then."""

        async def holds() -> bool:
            return bool(eval(what, {"seen": await self.noticed()}))  # noqa: S307  # an expression of the test's own

        try:
            await eventually(holds, seconds)
        except TimeoutError:
            raise AssertionError(f"not {what}: {await self.noticed()}") from None
        return await self.noticed()
