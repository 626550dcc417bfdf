"""What a page may do and read across origins, and what a page of a stranger may not."""

import json

from playwright.async_api import Browser

from tests.browser.tab import Tab
from tests.edge.people import People
from tests.edge.stack import Stack


async def test_errors_are_readable_whoever_made_them(tab: Tab, people: People) -> None:
    somebody = people.sign_up()
    for path, status, reason in [
        ("/api/v1/payments/pay_none", 404, "PAYMENT_NOT_FOUND"),
        ("/api/v1/nothing", 404, "ROUTE_NOT_FOUND"),
        ("/api/v1/users", 403, ""),
    ]:
        answer = await tab.ask(path, somebody)
        assert answer.get("status") == status, (path, answer)
        assert reason in answer["text"]
        assert json.loads(answer["text"])["details"]
        assert answer["headers"]["x-request-id"], path
    not_so = await tab.ask("/api/v1/payments", somebody, method="DELETE")
    assert (not_so.get("status"), not_so.get("text", "").count("METHOD_NOT_ALLOWED")) == (405, 1), not_so
    assert (not_so["headers"]["allow"], bool(not_so["headers"]["x-request-id"])) == ("GET, POST", True)
    nobody = await tab.ask("/api/v1/users/me")
    assert nobody["headers"]["x-request-id"]
    assert (nobody["status"], nobody["headers"]["www-authenticate"]) == (401, "Bearer")


async def test_a_page_is_told_when_to_come_back(tab: Tab, people: People, stack: Stack) -> None:
    somebody = people.sign_up()
    with stack.without("compliance"):
        answer = await tab.ask("/api/v1/kyc/me", somebody)
    assert answer.get("status") == 503, answer
    assert int(answer["headers"]["retry-after"]) > 0
    assert json.loads(answer["text"])["code"] == 14


async def test_requests_that_need_a_preflight_are_made(tab: Tab, people: People) -> None:
    somebody = people.sign_up()
    content = {"content-type": "application/json"}
    patched = await tab.ask(
        "/api/v1/users/me?updateMask=address", somebody, method="PATCH", headers=content, body='{"address": "1 Square"}'
    )
    assert json.loads(patched["text"])["address"] == "1 Square"
    refused = await tab.ask(
        "/api/v1/payments",
        somebody,
        method="POST",
        headers=content | {"idempotency-key": "first"},
        body=json.dumps({"payeeId": "usr_none", "amount": {"currencyCode": "EUR", "units": 1}}),
    )
    assert refused.get("status") in {400, 404}, refused
    gone = await tab.ask("/api/v1/sessions/current", somebody, method="DELETE")
    assert (gone["status"], gone["size"]) == (204, 0)


async def test_a_page_of_a_stranger_reads_nothing(
    tab: Tab, chromium: Browser, origin: str, edge_url: str, people: People
) -> None:
    somebody = people.sign_up()
    context = await chromium.new_context(ignore_https_errors=True)
    page = await context.new_page()
    await page.goto(f"{origin.replace('localhost', '127.0.0.1')}")
    stranger = Tab(page, edge_url, [])
    assert "failed" in await stranger.ask("/api/v1/users/me", somebody)
    assert "failed" in await stranger.ask("/.well-known/jwks.json")
    stream = await stranger.follow("/api/v1/payments/events", somebody)
    assert (await stream.until("seen['closed']"))["opened"] == 0
    assert (await tab.ask("/.well-known/jwks.json"))["status"] == 200
    await context.close()
