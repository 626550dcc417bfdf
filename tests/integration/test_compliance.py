"""The compliance service behind its interceptors, with real Postgres and NATS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from pathlib import Path

import grpc
import pytest
from compliance.v1 import compliance_pb2, compliance_pb2_grpc
from compliance.v1.compliance_pb2 import Kyc, KycCheck, ScreenPaymentResponse
from google.type.date_pb2 import Date
from google.type.money_pb2 import Money
from user.v1 import user_pb2

import services.compliance
from services.compliance.domain import Listed
from services.compliance.events import follow_users
from services.compliance.sanctions import Sanctions, SanctionsListNotLoaded
from services.compliance.service import ComplianceService
from services.compliance.store import Profiles, SanctionsList, Screenings
from services.runtime.bus import MESSAGE_ID, Bus, open_bus
from services.runtime.ids import new_id
from services.runtime.postgres import Database, open_database
from tests.integration.conftest import FreshDatabase
from tests.integration.serving import As, identity, reason, serving
from tests.waiting import eventually

SAMPLE = Path(services.compliance.__file__).with_name("sanctions_sample.csv")
LISTED = "Torleif Åkervindsson"
VELOCITY_LIMIT = 5


@dataclass
class House:
    """The service, and what the tests reach around it for."""

    edge: As
    payment: As
    database: Database
    bus: Bus

    def kyc(self, user_id: str, *roles: str) -> "compliance_pb2_grpc.ComplianceServiceAsyncStub":
        return compliance_pb2_grpc.ComplianceServiceStub(self.edge.user(user_id, *roles))

    @property
    def inside(self) -> "compliance_pb2_grpc.ComplianceServiceAsyncStub":
        return compliance_pb2_grpc.ComplianceServiceStub(self.payment.user())

    async def tell(self, event: user_pb2.UserEvent) -> None:
        """Publishes an event as the user service does."""
        subject = f"user.{event.user_id}"
        jetstream = await self.bus.stream("user")
        headers = {MESSAGE_ID: f"{subject}.{event.sequence}"}
        await jetstream.publish(subject, event.SerializeToString(), headers=headers)

    async def user(self, name: str = "Ada Byron", country: str = "DE", born: int = 1990) -> str:
        """Signs a user up and waits until compliance has heard of it."""
        event = signed_up(new_id("usr"), name=name, country=country, born=born)
        await self.tell(event)
        await self.heard(event)
        return event.user_id

    async def heard(self, event: user_pb2.UserEvent) -> None:
        message_id = f"user.{event.user_id}.{event.sequence}"
        handled = partial(self.database.fetch, "SELECT FROM handled_events WHERE message_id = $1", message_id)
        await eventually(handled)

    async def screen(self, request: compliance_pb2.ScreenPaymentRequest) -> ScreenPaymentResponse:
        return await self.inside.ScreenPayment(request)


def signed_up(
    user_id: str, sequence: int = 1, name: str = "Ada Byron", country: str = "DE", born: int = 1990
) -> user_pb2.UserEvent:
    event = user_pb2.UserEvent(
        user_id=user_id,
        sequence=sequence,
        display_name=name,
        country=country,
        date_of_birth=Date(year=born, month=5, day=17),
    )
    event.create_time.FromDatetime(datetime(2026, 11, sequence, tzinfo=UTC))
    return event


def payment(
    payer_id: str = "", payer: str = "Ada Byron", payee: str = "Bo Lind", country: str = "DE", units: int = 10
) -> compliance_pb2.ScreenPaymentRequest:
    return compliance_pb2.ScreenPaymentRequest(
        payment_id=new_id("pay"),
        payer=compliance_pb2.Party(user_id=payer_id or new_id("usr"), display_name=payer, country="SE"),
        payee=compliance_pb2.Party(user_id=new_id("usr"), display_name=payee, country=country),
        amount=Money(currency_code="EUR", units=units, nanos=990_000_000),
    )


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(fresh_database("compliance")))
        bus = await stack.enter_async_context(open_bus(nats_url, identity(certificates, "compliance")))
        profiles, sanctions = Profiles(database), Sanctions(SAMPLE, SanctionsList(database))
        servicer = ComplianceService(profiles, sanctions, Screenings(database, VELOCITY_LIMIT))
        register = [partial(compliance_pb2_grpc.add_ComplianceServiceServicer_to_server, servicer)]
        port = await stack.enter_async_context(serving(register, certificates, "compliance"))
        edge, paying = (As(port, certificates, "compliance", peer) for peer in ("edge", "payment"))
        stack.push_async_callback(edge.close)
        stack.push_async_callback(paying.close)

        async def loaded() -> bool:
            await sanctions.check()
            return True

        running = [asyncio.create_task(one) for one in (sanctions.follow(), follow_users(bus, database, profiles))]

        await eventually(partial(bus.stream, "user"))
        await eventually(loaded)
        yield House(edge, paying, database, bus)
        for task in running:
            task.cancel()


async def get(house: House, asked: str, by: str, *roles: str) -> Kyc:
    return await house.kyc(by, *roles).GetKyc(compliance_pb2.GetKycRequest(user_id=asked))


async def check(house: House, user_id: str) -> int:
    response = await house.inside.CheckKYC(compliance_pb2.CheckKYCRequest(user_id=user_id))
    return response.state


async def test_a_user_who_signed_up_is_verified_and_sees_every_check(house: House) -> None:
    user_id = await house.user()
    kyc = await get(house, "me", user_id)
    assert (kyc.user_id, kyc.state) == (user_id, Kyc.VERIFIED)
    assert [one.name for one in kyc.checks] == ["PROFILE_COMPLETE", "LEGAL_AGE", "SANCTIONS", "COUNTRY"]
    assert {one.outcome for one in kyc.checks} == {KycCheck.PASSED}
    assert kyc.create_time == kyc.update_time
    assert await check(house, user_id) == Kyc.VERIFIED


async def test_before_the_profile_has_arrived_kyc_is_pending_to_its_user_and_not_found_to_others(house: House) -> None:
    kyc = await get(house, "me", "usr_new")
    assert (kyc.user_id, kyc.state, list(kyc.checks)) == ("usr_new", Kyc.PENDING, [])
    assert await check(house, "usr_new") == Kyc.PENDING
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await get(house, "usr_new", "usr_officer", "officer")
    assert (refused.value.code(), reason(refused.value)) == (grpc.StatusCode.NOT_FOUND, "KYC_NOT_FOUND")


async def test_an_officer_sees_the_record_of_others_and_a_customer_does_not(house: House) -> None:
    user_id = await house.user()
    assert (await get(house, user_id, "usr_officer", "officer")).user_id == user_id
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await get(house, user_id, "usr_other", "customer")
    assert (refused.value.code(), reason(refused.value)) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_THE_OWNER")


async def test_a_minor_is_rejected(house: House) -> None:
    assert await check(house, await house.user(born=datetime.now(UTC).year - 17)) == Kyc.REJECTED


async def test_a_listed_name_is_flagged_and_verified(house: House) -> None:
    user_id = await house.user(name=LISTED)
    kyc = await get(house, "me", user_id)
    assert kyc.state == Kyc.VERIFIED
    [flagged] = [one for one in kyc.checks if one.outcome != KycCheck.PASSED]
    assert (flagged.name, flagged.outcome) == ("SANCTIONS", KycCheck.FLAGGED)
    assert flagged.detail == "The name is like that of entry 900006 of the sanctions list."


async def test_a_changed_profile_is_checked_anew_and_an_older_event_changes_nothing(house: House) -> None:
    user_id = new_id("usr")
    newest, older = signed_up(user_id, 3, country="KP"), signed_up(user_id, 2, born=2020)
    for event in (signed_up(user_id), newest, older):
        await house.tell(event)
        await house.heard(event)
    kyc = await get(house, "me", user_id)
    assert kyc.state == Kyc.VERIFIED
    assert [one.name for one in kyc.checks if one.outcome == KycCheck.FLAGGED] == ["COUNTRY"]
    assert (kyc.create_time.ToDatetime().day, kyc.update_time.ToDatetime().day) == (1, 3)


async def test_an_everyday_payment_is_allowed_and_recorded(house: House) -> None:
    request = payment()
    assert await house.screen(request) == ScreenPaymentResponse(decision=ScreenPaymentResponse.ALLOW)
    [row] = await house.database.fetch("SELECT * FROM screenings WHERE payment_id = $1", request.payment_id)
    assert (row["payer_id"], row["amount"], row["currency_code"]) == (request.payer.user_id, Decimal("10.99"), "EUR")
    assert (row["decision"], row["score"], row["reasons"]) == ("ALLOW", 0, [])


@pytest.mark.parametrize(
    ("payer", "payee"), [(LISTED, "Bo Lind"), ("Ada Byron", "Akervindson Torleif")], ids=["payer", "payee"]
)
async def test_a_listed_party_on_either_side_declines_the_payment(house: House, payer: str, payee: str) -> None:
    screened = await house.screen(payment(payer=payer, payee=payee))
    assert (screened.decision, screened.risk_score) == (ScreenPaymentResponse.DECLINE, 100)
    assert screened.reasons[0] == "SANCTIONS_HIT"


async def test_a_large_amount_is_reviewed_and_a_prohibited_country_declined(house: House) -> None:
    large, prohibited = await house.screen(payment(units=10_000)), await house.screen(payment(country="IR"))
    assert (large.decision, large.reasons[0]) == (ScreenPaymentResponse.REVIEW, "AMOUNT_OVER_THRESHOLD")
    assert (prohibited.decision, prohibited.reasons[0]) == (ScreenPaymentResponse.DECLINE, "RISK_TOO_HIGH")


async def test_the_same_payment_gets_the_same_answer_at_once_and_later(house: House) -> None:
    request = payment(units=10_000)
    answers = await asyncio.gather(*(house.screen(request) for _ in range(10)))
    again = compliance_pb2.ScreenPaymentRequest()
    again.CopyFrom(request)
    again.amount.units = 1
    assert all(answer == answers[0] for answer in [*answers, await house.screen(again)])
    [row] = await house.database.fetch("SELECT count(*) FROM screenings WHERE payment_id = $1", request.payment_id)
    assert row["count"] == 1


async def test_a_payer_over_the_hours_limit_is_reviewed_until_the_hour_is_over(house: House) -> None:
    payer_id = new_id("usr")
    decisions = [(await house.screen(payment(payer_id))).decision for _ in range(VELOCITY_LIMIT + 1)]
    assert decisions == [ScreenPaymentResponse.ALLOW] * VELOCITY_LIMIT + [ScreenPaymentResponse.REVIEW]
    over = await house.screen(payment(payer_id))
    assert list(over.reasons) == ["RISK_REVIEW", "VELOCITY_OVER_LIMIT"]
    await house.database.execute(
        "UPDATE screenings SET create_time = create_time - interval '1 hour' WHERE payer_id = $1", payer_id
    )
    assert (await house.screen(payment(payer_id))).decision == ScreenPaymentResponse.ALLOW


async def test_only_payment_may_have_payments_screened(house: House) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await house.kyc("usr_officer", "officer").ScreenPayment(payment())
    assert reason(refused.value) == "CALLER_NOT_ALLOWED"


async def test_nobody_passes_before_the_list_is_loaded(tmp_path: Path, fresh_database: FreshDatabase) -> None:
    async with open_database(fresh_database("compliance")) as database:
        sanctions = Sanctions(tmp_path / "missing.csv", SanctionsList(database))
        with pytest.raises(SanctionsListNotLoaded):
            await sanctions.check()
        with pytest.raises(SanctionsListNotLoaded):
            sanctions.match("Ada Byron")


async def test_a_new_list_reaches_replicas_that_are_running(tmp_path: Path, fresh_database: FreshDatabase) -> None:
    newer = tmp_path / "newer.csv"
    newer.write_text('1,"BYRON, Ada","individual","SAMPLE",-0-,-0-,-0-,-0-,-0-,-0-,-0-,-0-\n')
    async with open_database(fresh_database("compliance")) as database:
        stored = SanctionsList(database)
        old, new = (Sanctions(path, stored, poll_seconds=0.01) for path in (SAMPLE, newer))

        async def follows(sanctions: Sanctions, listed: str, unlisted: str) -> None:
            async def look() -> bool:
                return bool(sanctions.match(listed)) and sanctions.match(unlisted) is None

            await eventually(look)

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(old.follow())]
            await follows(old, LISTED, "Ada Byron")
            running.append(tasks.create_task(new.follow()))
            for replica in (old, new):
                await follows(replica, "Ada Byron", LISTED)
            for task in running:
                task.cancel()


async def test_a_list_that_is_lost_is_loaded_again(fresh_database: FreshDatabase) -> None:
    async with open_database(fresh_database("compliance")) as database, asyncio.TaskGroup() as tasks:
        stored = SanctionsList(database)
        sanctions = Sanctions(SAMPLE, stored, poll_seconds=0.01)
        following = tasks.create_task(sanctions.follow())
        await eventually(stored.sha256)
        await database.execute("DELETE FROM sanctions_list")
        await eventually(stored.sha256)
        assert sanctions.match(LISTED)
        following.cancel()


async def test_replicas_that_start_at_once_load_the_list_once(fresh_database: FreshDatabase) -> None:
    async with open_database(fresh_database("compliance")) as database:
        stored = SanctionsList(database)
        entries = [Listed(number, f"NAME{number}, A", "individual", "SAMPLE", "") for number in range(1000)]
        await asyncio.gather(*(stored.replace(b"sha", entries) for _ in range(4)))
        assert sorted(await stored.entries(), key=lambda entry: entry.number) == entries
