"""The audit trail of a service: what is an entry, and what is none."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from common.v1 import audit_pb2, audit_pb2_grpc
from document.v1 import document_pb2
from payment.v1 import payment_pb2, payment_pb2_grpc

from scripts.stack.settings import SERVICES
from services.runtime.ids import new_id
from services.runtime.paging import page
from services.runtime.postgres import Database, open_database
from services.runtime.trail import Trail
from tests.integration.archive import Archive, form, requests, scan
from tests.integration.auditing import CREATE_PAYMENT, actions, entries, record, somebody
from tests.integration.billing import issued, pay
from tests.integration.conftest import FreshDatabase
from tests.integration.paying import House, euros, open_house, refusal
from tests.integration.serving import As, reason, serving


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("payment"), nats_url, certificates) as house:
        yield house


@pytest.fixture
async def database(fresh_database: FreshDatabase) -> AsyncIterator[Database]:
    async with open_database(fresh_database("payment")) as database:
        yield database


def paying(house: House, payer: str, **metadata: str) -> "payment_pb2_grpc.PaymentServiceAsyncStub":
    known = {"x_user_session": "ses_1", "x_request_id": "req_1", "idempotency_key": new_id("key")}
    return house.pays(payer, **known, **metadata)


async def test_who_does_something_is_recorded_with_what_it_was_done_to(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    request = payment_pb2.CreatePaymentRequest(payee_id=payee, amount=euros(1))
    payment = await paying(house, payer).CreatePayment(request)
    [entry] = await entries(house.database, f"payments/{payment.id}")
    assert entry["actor_id"] == payer
    assert entry["credential_id"] == "ses_1"
    assert entry["roles"] == ["customer"]
    assert entry["action"] == CREATE_PAYMENT
    assert entry["request_id"] == "req_1"
    assert entry["id"].startswith("aud_")
    assert datetime.now(UTC) - timedelta(minutes=1) < entry["create_time"] <= datetime.now(UTC)


async def test_a_request_that_is_sent_again_makes_no_second_entry(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    payment = await house.pay(payer, payee, 1, key="k")
    assert await house.pay(payer, payee, 1, key="k") == payment
    assert await actions(house.database, f"payments/{payment.id}") == [(payer, "CreatePayment")]


async def test_a_file_that_is_sent_again_makes_no_second_entry_and_reading_it_for_others_none(archive: Archive) -> None:
    body, stub = form(scan()), archive.sending("usr_1", idempotency_key="k")
    document = await stub.UploadDocument(requests(body))
    assert await stub.UploadDocument(requests(body)) == document
    read = "UPDATE documents SET state = 'REJECTED', sequence = sequence + 1, verify_time = NULL WHERE id = $1"
    request = document_pb2.VerifyDocumentRequest(document_id=document.id)
    for stub in (archive.inside(), archive.of("usr_o", "officer")):
        await archive.database.execute(read, document.id)
        await stub.VerifyDocument(request)
    done = await actions(archive.database, f"documents/{document.id}")
    assert done == [("usr_1", "UploadDocument"), ("usr_o", "VerifyDocument")]


async def test_what_is_refused_leaves_no_entry(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    payment = await house.pay(payer, payee, 1)
    await house.settled(payer, payment.id)
    cancelling = house.pays(payer).CancelPayment(payment_pb2.CancelPaymentRequest(payment_id=payment.id))
    assert reason(await refusal(cancelling)) == "ILLEGAL_TRANSITION"
    assert await actions(house.database, f"payments/{payment.id}") == [(payer, "CreatePayment")]


async def test_what_is_rolled_back_takes_its_entry_with_it(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    # Its rows are written after the entries.
    failing = "TRIGGER failing BEFORE INSERT ON idempotency_keys EXECUTE FUNCTION audit_stays()"
    await house.database.execute(f"CREATE {failing}")
    try:
        assert reason(await refusal(house.pay(payer, payee, 1))) == "INTERNAL"
    finally:
        await house.database.execute("DROP TRIGGER failing ON idempotency_keys")
    assert await house.payments.list_of(payer, None, page(0, "")) == []
    assert payer not in [entry["actor_id"] for entry in await entries(house.database)]


async def test_what_a_service_does_by_itself_after_a_request_is_no_entry(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    payment = await house.pay(payer, payee, 1)
    assert (await house.settled(payer, payment.id)).state == payment_pb2.Payment.SETTLED
    assert await actions(house.database, f"payments/{payment.id}") == [(payer, "CreatePayment")]
    assert await actions(house.database, f"accounts/{(await house.account(payee)).id}") == []


async def test_what_is_done_for_nobody_or_for_another_service_is_no_entry(database: Database) -> None:
    await record(database, "payments/pay_1", None)
    await record(database, "payments/pay_1", somebody(peer="notification"))
    assert await entries(database) == []
    await record(database, "payments/pay_1", somebody())
    assert len(await entries(database)) == 1


async def test_who_pays_an_invoice_is_recorded_with_it_and_with_the_payment(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    invoice = await issued(house, payee, payer)
    payment = await pay(house, invoice)
    assert await actions(house.database, f"payments/{payment.id}") == [(payer, "PayInvoice")]
    assert await actions(house.database, f"invoices/{invoice.id}") == [(payee, "CreateInvoice"), (payer, "PayInvoice")]


async def test_who_sees_what_is_somebody_elses_by_a_role_is_recorded(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    payment, account = await house.pay(payer, payee, 1), await house.account(payer)
    await house.payments_as("usr_o", "officer").GetPayment(payment_pb2.GetPaymentRequest(payment_id=payment.id))
    await house.payments_as("usr_a", "admin").ListPayments(payment_pb2.ListPaymentsRequest())
    await house.accounts("usr_t", "treasurer").ListEntries(payment_pb2.ListEntriesRequest(account_id=account.id))
    assert await actions(house.database, f"payments/{payment.id}") == [
        (payer, "CreatePayment"),
        ("usr_o", "GetPayment"),
    ]
    assert await actions(house.database, "payments") == [("usr_a", "ListPayments")]
    assert (await actions(house.database, f"accounts/{account.id}"))[1:] == [("usr_t", "ListEntries")]


async def test_who_sees_what_is_their_own_is_not_recorded_whatever_their_roles(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    payment, account = await house.pay(payer, payee, 1), await house.account(payer)
    before = len(await entries(house.database))
    for user_id in (payer, payee):
        stub = house.payments_as(user_id, "customer", "officer", "admin")
        await stub.GetPayment(payment_pb2.GetPaymentRequest(payment_id=payment.id))
    await house.pays(payer).ListPayments(payment_pb2.ListPaymentsRequest())
    statement = payment_pb2.ListEntriesRequest(account_id=account.id)
    await house.accounts(payer, "treasurer").ListEntries(statement)
    assert reason(await refusal(house.accounts(payee).ListEntries(statement))) == "NOT_THE_OWNER"
    assert len(await entries(house.database)) == before


async def test_a_stream_that_a_role_opens_is_recorded_once_when_it_opens(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    payment = await house.pay(payer, payee, 1)
    request = payment_pb2.WatchPaymentRequest(payment_id=payment.id)
    watching = house.payments_as("usr_o", "officer", x_user_session="ses_1").WatchPayment(request)
    assert len([event async for event in watching]) > 1
    [_, entry] = await actions(house.database, f"payments/{payment.id}")
    assert entry == ("usr_o", "WatchPayment")
    seen = payment_pb2.WatchPaymentRequest(payment_id=payment.id, after_sequence=2)
    assert [event async for event in house.payments_as("usr_o", "officer").WatchPayment(seen)] == []
    assert len(await entries(house.database, f"payments/{payment.id}")) == 3  # that nothing has happened since, too


async def test_what_cannot_be_recorded_is_not_shown(house: House) -> None:
    payer, payee = await house.user_with(10), await house.user_with(0)
    request = payment_pb2.GetPaymentRequest(payment_id=(await house.pay(payer, payee, 1)).id)
    await house.settled(payer, request.payment_id)
    watching = payment_pb2.WatchPaymentRequest(payment_id=request.payment_id)
    await house.database.execute("ALTER TABLE audit RENAME TO elsewhere")
    try:
        officer = house.payments_as("usr_o", "officer")
        assert reason(await refusal(officer.GetPayment(request))) == "INTERNAL"
        assert reason(await refusal(anext(aiter(officer.WatchPayment(watching))))) == "INTERNAL"
        await house.pays(payer).GetPayment(request)
    finally:
        await house.database.execute("ALTER TABLE elsewhere RENAME TO audit")


@pytest.mark.parametrize("service", SERVICES)
async def test_entries_are_never_changed_or_removed(fresh_database: FreshDatabase, service: str) -> None:
    async with open_database(fresh_database(service)) as database:
        await record(database, "payments/pay_1", somebody())
        for statement in ("UPDATE audit SET actor_id = 'usr_2'", "DELETE FROM audit", "TRUNCATE audit"):
            with pytest.raises(asyncpg.RaiseError, match="append-only"):
                await database.execute(statement)
        assert [entry["actor_id"] for entry in await entries(database)] == ["usr_1"]


async def test_a_trail_is_read_by_compliance_and_nobody_else(database: Database, certificates: Path) -> None:
    await record(database, "payments/pay_1", somebody())
    everything = audit_pb2.ListTrailRequest(before="~", limit=1)
    async with serving([], certificates, "payment", trail=Trail("payment", database)) as port:
        for name in ("compliance", "edge", "user"):
            peer = As(port, certificates, "payment", name)
            call = audit_pb2_grpc.AuditTrailServiceStub(peer.user("usr_admin", "admin")).ListTrail(everything)
            if name == "compliance":
                assert [entry.service for entry in (await call).entries] == ["payment"]
            else:
                assert reason(await refusal(call)) == "CALLER_NOT_ALLOWED"
            await peer.close()
