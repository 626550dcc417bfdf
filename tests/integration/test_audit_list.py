"""The audit as officers read it: all services' trails as one list."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from compliance.v1.audit_pb2 import ListAuditEntriesRequest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.integration.archive import refusal
from tests.integration.auditing import Office, actions, entries, open_office, record, somebody
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import reason

REFUND = "/payment.v1.PaymentService/RefundPayment"


@pytest.fixture
async def office(fresh_database: FreshDatabase, certificates: Path) -> AsyncIterator[Office]:
    async with open_office(fresh_database, certificates) as office:
        yield office


async def test_what_was_done_anywhere_is_one_list_newest_first(office: Office) -> None:
    done = [f"{name}s/{number}" for number in range(3) for name in office.databases]
    for resource in done:
        await record(office.databases[resource.partition("s/")[0]], resource, somebody())
    listed = await office.page()
    assert [entry.resource for entry in listed] == done[::-1]
    assert [f"{entry.service}s" for entry in listed] == [entry.resource.partition("/")[0] for entry in listed]
    first = listed[-1]
    assert (first.actor_id, first.credential_id, list(first.roles)) == ("usr_1", "ses_1", ["customer"])
    assert (first.request_id, first.action) == ("req_1", somebody().rpc)
    assert abs(first.create_time.ToDatetime(UTC) - datetime.now(UTC)) < timedelta(minutes=1)


async def test_pages_have_everything_once(office: Office) -> None:
    done = [f"payments/{number}" for number in range(7)]
    for number, resource in enumerate(done):
        await record(office.databases["payment" if number % 3 else "user"], resource, somebody())
    asked = ListAuditEntriesRequest(page_size=3)
    page = await office.asks().ListAuditEntries(asked)
    token, found = page.next_page_token, list(page.entries)
    while page.next_page_token:
        asked.page_token = page.next_page_token
        page = await office.asks().ListAuditEntries(asked)
        found += page.entries
    assert [entry.resource for entry in found] == done[::-1]
    asked.actor_id, asked.page_token = "usr_1", token
    assert reason(await refusal(office.asks().ListAuditEntries(asked))) == "INVALID_PAGE_TOKEN"


async def test_it_is_asked_by_service_actor_resource_action_and_time(office: Office) -> None:
    payment, user = office.databases["payment"], office.databases["user"]
    await record(payment, "payments/1", somebody())
    await record(payment, "payments/1", somebody("usr_2", REFUND))
    await record(user, "users/usr_2", somebody("usr_2", "/user.v1.UserService/UpdateUser"))
    between = datetime.now(UTC)
    await record(payment, "payments/2", somebody())
    since, until = _time(between), _time(datetime.now(UTC) + timedelta(seconds=1))
    assert await office.did(service="user") == ["users/usr_2"]
    assert await office.did(actor_id="usr_2") == ["users/usr_2", "payments/1"]
    assert await office.did(resource="payments/1", actor_id="usr_1") == ["payments/1"]
    assert await office.did(action="RefundPayment") == await office.did(action=REFUND) == ["payments/1"]
    assert await office.did(action="Refund") == []
    assert await office.did(start_time=since, end_time=until, service="payment") == ["payments/2"]
    assert await office.did(end_time=since) == ["users/usr_2", "payments/1", "payments/1"]
    assert await office.did(start_time=until, service="payment") == []


async def test_who_reads_it_is_in_it(office: Office) -> None:
    assert await office.page() == []
    assert await actions(office.databases["compliance"], "audit") == [("usr_officer", "ListAuditEntries")]
    assert await office.did() == ["audit"]


async def test_a_service_that_is_away_is_named_and_the_others_can_be_asked(office: Office) -> None:
    await record(office.databases["payment"], "payments/1", somebody())
    await office.away["document"].aclose()
    error = await refusal(office.page())
    assert (error.code(), reason(error)) == (grpc.StatusCode.UNAVAILABLE, "AUDIT_TRAIL_UNAVAILABLE")
    assert "document" in (error.details() or "")
    assert await office.did(service="payment") == ["payments/1"]
    assert [entry["resource"] for entry in await entries(office.databases["compliance"])] == ["audit"]


async def test_a_service_that_there_is_not_is_refused_with_those_that_there_are(office: Office) -> None:
    error = await refusal(office.page(service="ledger"))
    assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_SERVICE")
    assert all(name in (error.details() or "") for name in office.databases)


@pytest.mark.parametrize(
    "time", [Timestamp(seconds=-1), Timestamp(seconds=1 << 40), Timestamp(nanos=-1), Timestamp(nanos=1 << 30)]
)
async def test_a_time_that_is_none_is_refused(office: Office, time: Timestamp) -> None:
    for name, field in (("start_time", "startTime"), ("end_time", "endTime")):
        error = await refusal(office.page(**{name: time}))
        assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert field in (error.details() or "")


async def test_the_ends_of_time_are_times(office: Office) -> None:
    await record(office.databases["user"], "users/1", somebody())
    last = Timestamp(seconds=253_402_300_799, nanos=999_999_999)
    assert await office.did(start_time=Timestamp(), end_time=last, service="user") == ["users/1"]


def _time(at: datetime) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(at)
    return time
