"""The browser's own EventSource, through whatever becomes of the servers."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.browser.tab import Tab, token
from tests.edge.people import Json, People, Person
from tests.edge.replica import second_replica
from tests.edge.stack import Stack
from tests.waiting import eventually, wait_until

EVENTS = "/api/v1/payments/events"
FINAL = "SETTLED"


def pay(payer: Person, payee: Person, times: int = 1) -> list[str]:
    """Makes payments, each of two events. Returns their ids."""
    made = [payer.pay(payee, 1) for _ in range(times)]
    assert {one.status_code for one in made} == {201}, made[0].text
    return [str(one.json()["id"]) for one in made]


def end(stack: Stack, name: str, sign: signal.Signals) -> None:
    """Ends a process and waits until another is ready in its place."""
    ended = stack.pid(name)
    os.kill(ended, sign)
    wait_until(lambda: stack.pid(name) not in {0, ended}, f"{name} was not restarted")
    stack.wait_until_ready(name)


async def test_the_stream_of_a_payment_ends_for_good_with_its_last_event(
    tab: Tab, people: People, payer: Person
) -> None:
    [payment_id] = pay(payer, people.sign_up())
    stream = await tab.follow(f"/api/v1/payments/{payment_id}/status", payer)
    seen = await stream.until("seen['closed']")
    assert (seen["ids"], [one["state"] for one in seen["changes"]]) == ([1, 2], ["AUTHORIZED", FINAL])
    assert (seen["over"], seen["told"], seen["opened"]) == (True, [], 1)
    of_stream = [url for url in tab.asked if "/status" in url]
    assert len(of_stream) == 2  # the second was answered 204


async def test_all_payments_of_a_user_come_as_they_are_made(tab: Tab, people: People, payer: Person) -> None:
    payee = people.sign_up()
    stream = await tab.follow(EVENTS, payee)
    await stream.until("seen['open']")
    paid = pay(payer, payee, 3)
    seen = await stream.until("len(seen['ids']) >= 6")
    assert seen["ids"] == [1, 2, 3, 4, 5, 6]
    assert {one["paymentId"] for one in seen["changes"]} == set(paid)
    assert (seen["opened"], seen["broken"]) == (1, 0)


@pytest.mark.parametrize(
    ("process", "sign"),
    [("payment", signal.SIGKILL), ("payment", signal.SIGTERM), ("envoy", signal.SIGKILL), ("nats", signal.SIGKILL)],
    ids=lambda what: getattr(what, "name", what),
)
async def test_a_stream_goes_on_by_itself_after_a_restart_with_no_gap_and_no_repeat(
    tab: Tab, people: People, payer: Person, stack: Stack, process: str, sign: signal.Signals
) -> None:
    payee = people.sign_up()
    stream = await tab.follow(EVENTS, payee)
    await stream.until("seen['open']")
    pay(payer, payee, 2)
    await stream.until("len(seen['ids']) >= 2")
    end(stack, process, sign)
    pay(payer, payee, 2)
    seen = await stream.until("len(seen['ids']) >= 8 or seen['closed']")
    assert seen["ids"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (seen["told"], seen["closed"]) == ([], False)


async def test_a_stream_goes_on_through_a_rolling_restart(
    tab: Tab, people: People, payer: Person, stack: Stack
) -> None:
    payee = people.sign_up()
    with second_replica(stack, "payment"):
        streams = [await tab.follow(EVENTS, payee) for _ in range(2)]
        for stream in streams:
            await stream.until("seen['open']")
        pay(payer, payee)
        end(stack, "payment", signal.SIGTERM)
        pay(payer, payee)
    pay(payer, payee)  # the second is gone
    for stream in streams:
        seen = await stream.until("len(seen['ids']) >= 6 or seen['closed']")
        assert (seen["ids"], seen["told"]) == ([1, 2, 3, 4, 5, 6], [])


async def test_a_page_that_comes_back_goes_on_after_what_it_has_seen(tab: Tab, people: People, payer: Person) -> None:
    payee = people.sign_up()
    pay(payer, payee, 2)
    first = await tab.follow(EVENTS, payee)
    await first.until("len(seen['ids']) >= 4")
    await tab.page.reload()
    again = await tab.follow(EVENTS, payee, afterSequence="3")
    assert (await again.until("seen['ids']"))["ids"] == [4]


async def test_a_stream_ends_with_its_session_and_is_not_opened_again(tab: Tab, people: People, payer: Person) -> None:
    payee = people.sign_up()
    other = people.log_in(payee.id, payee.email, payee.password)
    stream, others = await tab.follow(EVENTS, payee), await tab.follow(EVENTS, other)
    await stream.until("seen['open']")
    await others.until("seen['open']")
    payee.client.delete("/api/v1/sessions/current").raise_for_status()
    seen = await stream.until("seen['closed']")
    [told] = seen["told"]
    assert (told["code"], told["details"][0]["reason"]) == (16, "SESSION_ENDED")
    tried = sum(token(payee) in url for url in tab.asked)
    assert tried == 2  # the second was answered 401
    pay(payer, payee)
    assert (await others.until("len(seen['ids']) >= 2"))["opened"] == 1
    assert sum(token(payee) in url for url in tab.asked) == tried


async def test_a_token_that_is_none_closes_an_event_source_at_once(tab: Tab, people: People) -> None:
    somebody = people.sign_up()
    somebody.client.headers["authorization"] = "Bearer none"
    stream = await tab.follow(EVENTS, somebody)
    seen = await stream.until("seen['closed']")
    assert (seen["opened"], len([url for url in tab.asked if EVENTS in url])) == (0, 1)


async def test_a_token_in_a_query_is_in_no_log(tab: Tab, people: People, stack: Stack) -> None:
    somebody = people.sign_up()
    stream = await tab.follow(EVENTS, somebody)
    await stream.until("seen['open']")
    await tab.page.reload()
    wait_until(lambda: stack.in_flight("payment") == 0, "the stream is still open")
    elsewhere = await tab.ask(f"/api/v1/accounts?access_token={token(somebody)}")
    assert elsewhere["status"] == 401
    signature = token(somebody).rpartition(".")[2]
    for log in stack.settings.folder.logs.iterdir():
        assert signature not in log.read_text(errors="replace"), log.name


async def test_json_lines_are_read_as_they_come(tab: Tab, people: People, payer: Person) -> None:
    [payment_id] = pay(payer, people.sign_up())
    answer = await tab.lines(f"/api/v1/payments/{payment_id}/events", payer)
    assert (answer["status"], answer["rest"]) == (200, "")
    assert [(one["sequence"], one["state"]) for one in answer["read"]] == [(1, "AUTHORIZED"), (2, FINAL)]


async def test_one_stream_too_many_says_so_and_when_to_come_back(tab: Tab, people: People) -> None:
    somebody = people.sign_up()
    streams = [await tab.follow(EVENTS, somebody) for _ in range(3)]
    for stream in streams:
        await stream.until("seen['open']")
    refused = await tab.ask(EVENTS, somebody)
    assert refused["status"] == 429
    assert "TOO_MANY_STREAMS" in refused["text"]
    assert int(refused["headers"]["retry-after"]) > 0
    await tab.page.reload()  # which closes them

    async def free() -> bool:
        stream = await tab.follow(EVENTS, somebody)
        return bool((await stream.until("seen['open'] or seen['closed']"))["open"])

    await eventually(free, 30)


async def run_the_documented_program(tab: Tab, fresh_token: str) -> None:
    """Runs it with a function in JavaScript that gives its token. What becomes of it is in the page's `noted`."""
    guide = (Path(__file__).parents[2] / "docs/streams.md").read_text()
    [program] = re.findall(r"```js\n(function followPayments.*?)```", guide, re.DOTALL)
    await tab.page.evaluate(f"""(edge) => {{
        const EDGE = edge, noted = window.noted = {{shown: [], told: [], planned: 0}};
        const setTimeout = (what, after) => {{ noted.planned += 1; return window.setTimeout(what, after); }};
        const EventSource = class extends window.EventSource {{
            constructor(url) {{
                super(url);
                this.addEventListener("error", (event) => event.data && noted.told.push(JSON.parse(event.data).code));
            }}
        }};
        {program}
        window.stop = followPayments({fresh_token}, (change) => noted.shown.push(change.state));
    }}""", tab.edge_url)  # fmt: skip


async def noted(tab: Tab, what: str, seconds: float = 30) -> Json:
    """Waits until an expression in JavaScript holds in the page. Returns what is noted then."""

    async def holds() -> bool:
        return bool(await tab.page.evaluate(what))

    await eventually(holds, seconds)
    found: Json = await tab.page.evaluate("noted")
    return found


async def test_the_program_in_the_documentation_shows_each_change_once_until_its_session_ends(
    tab: Tab, people: People, payer: Person, stack: Stack
) -> None:
    payee = people.sign_up()
    await run_the_documented_program(tab, f"async () => '{token(payee)}'")
    pay(payer, payee)
    await noted(tab, "noted.shown.length >= 2")
    end(stack, "payment", signal.SIGKILL)
    pay(payer, payee)
    before = await noted(tab, "noted.shown.length >= 4", 60)
    assert (before["shown"], before["told"]) == (["AUTHORIZED", FINAL] * 2, [])
    payee.client.delete("/api/v1/sessions/current").raise_for_status()
    after = await noted(tab, "noted.told.length")
    assert (after["told"], after["planned"]) == ([16], before["planned"])


async def test_the_program_in_the_documentation_asks_for_a_token_until_it_gets_one(
    tab: Tab, people: People, payer: Person
) -> None:
    payee = people.sign_up()
    pay(payer, payee)
    failing = "async () => { if (noted.planned < 3) throw new Error('away'); return '%s'; }"
    await run_the_documented_program(tab, failing % token(payee))
    found = await noted(tab, "noted.shown.length >= 2")
    assert (found["shown"], found["planned"]) == (["AUTHORIZED", FINAL], 3)


async def test_the_program_in_the_documentation_opens_nothing_once_it_is_stopped(tab: Tab, people: People) -> None:
    somebody = people.sign_up()
    await run_the_documented_program(tab, "() => new Promise((give) => { window.give = give; })")
    await tab.page.evaluate("(token) => { stop(); give(token); }", token(somebody))
    stream = await tab.follow(EVENTS, somebody)
    await stream.until("seen['open']")
    assert sum(EVENTS in url for url in tab.asked) == 1
