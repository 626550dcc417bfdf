"""What becomes of a payment after it is made, with settlement only where a test asks for it."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import grpc
import pytest
from google.rpc import error_details_pb2
from payment.v1 import payment_pb2

from services.payment.domain import TRANSITIONS, State
from services.runtime.postgres import Connection
from tests.integration.conftest import FreshDatabase
from tests.integration.lives import PAID, done, made, outcome, spendable
from tests.integration.paying import House, open_house, refusal
from tests.integration.serving import detail, reason
from tests.waiting import eventually

OUTCOMES = {
    ("cancel", State.AUTHORIZED): State.CANCELLED,
    ("cancel", State.IN_REVIEW): State.CANCELLED,
    ("approve", State.IN_REVIEW): State.AUTHORIZED,
    ("decline", State.IN_REVIEW): State.DECLINED,
    ("refund", State.SETTLED): State.REFUNDED,
}
"""All that may be done, and what comes of it."""
_COPY = """
    INSERT INTO payments
    SELECT (jsonb_populate_record(p, jsonb_build_object('id', 'copy', 'state', $2::text))).*
    FROM payments p WHERE id = $1"""
SPENDABLE = {State.AUTHORIZED: (0, 0), State.IN_REVIEW: (0, 0), State.SETTLED: (0, PAID)}
"""What payer and payee can spend then; in all other states it is the payer's again."""


@pytest.fixture(scope="module")
async def house(fresh_database: FreshDatabase, nats_url: str, certificates: Path) -> AsyncIterator[House]:
    async with open_house(fresh_database("payment"), nats_url, certificates) as opened, opened.settling_paused():
        yield opened
        await opened.require_right_books()


@pytest.fixture(autouse=True)
def kind_neighbours(house: House) -> None:
    house.kind_neighbours()


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("what", ["cancel", "approve", "decline", "refund"])
async def test_only_what_is_legal_is_done_and_the_money_follows(house: House, what: str, state: State) -> None:
    payment = await made(house, state)
    target = OUTCOMES.get((what, state))
    if target:
        after = await done(house, what, payment)
        assert (after.state, int(after.etag)) == (target.value, int(payment.etag) + 1)
    else:
        error = await refusal(done(house, what, payment))
        assert (error.code(), reason(error)) == (grpc.StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION")
        said = detail(error, error_details_pb2.ErrorInfo()).metadata
        assert said == {"payment_id": payment.id, "state": state.name}
        [violation] = detail(error, error_details_pb2.PreconditionFailure()).violations
        assert (violation.type, violation.subject) == ("PAYMENT_STATE", payment.id)
        after = payment
    assert await house.payment(payment.id) == after
    assert await spendable(house, payment) == SPENDABLE.get(target or state, (PAID, 0))


@asynccontextmanager
async def copied(house: House, payment_id: str, state: State) -> AsyncIterator[Connection]:
    """A transaction that will be rolled back, in which there is a copy of a payment, in another state."""
    async with house.database.connection() as connection:
        transaction = connection.transaction()
        await transaction.start()
        try:
            await connection.execute(_COPY, payment_id, state.name)
            yield connection
        finally:
            await transaction.rollback()


async def test_the_database_lets_pass_what_the_domain_does_and_no_more(house: House) -> None:
    payment = await made(house, State.AUTHORIZED)
    change = "UPDATE payments SET state = $1, sequence = sequence + 1 WHERE id = 'copy'"
    passed = set()
    for before, after in itertools.product(State, State):
        async with copied(house, payment.id, before) as connection:
            try:
                await connection.execute(change, after.name)
                passed.add((before, after))
            except asyncpg.RaiseError as error:
                assert "cannot go from" in str(error)
    legal = {(before, after) for before, targets in TRANSITIONS.items() for after in targets}
    assert passed == legal | {(State.SETTLED, State.SETTLED)}
    with pytest.raises(asyncpg.RaiseError, match="cannot go from"):  # and no step is left out
        await house.database.execute("UPDATE payments SET state = 'CANCELLED' WHERE id = $1", payment.id)


async def test_everything_is_done_by_whom_it_concerns_only(house: House) -> None:
    authorized, reviewed = await made(house, State.AUTHORIZED), await made(house, State.IN_REVIEW)
    settled = await made(house, State.SETTLED)
    cancel = payment_pb2.CancelPaymentRequest(payment_id=authorized.id)
    for user_id in (authorized.payee_id, "usr_stranger"):
        error = await refusal(house.pays(user_id).CancelPayment(cancel))
        assert (error.code(), reason(error)) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_THE_PAYER")
    assert await outcome(house.officer().CancelPayment(cancel)) == "NOT_THE_PAYER"

    refund = payment_pb2.RefundPaymentRequest(payment_id=settled.id)
    for user_id, role in (
        (settled.payer_id, "customer"),
        ("usr_stranger", "customer"),
        ("usr_o", "officer"),
        (settled.payer_id, "admin"),
    ):
        error = await refusal(house.payments_as(user_id, role, idempotency_key="k").RefundPayment(refund))
        assert (error.code(), reason(error)) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_THE_PAYEE")
    admin = house.payments_as("usr_admin", "admin", idempotency_key="k")
    assert (await admin.RefundPayment(refund)).state == payment_pb2.Payment.REFUNDED

    for user_id in (reviewed.payer_id, reviewed.payee_id):
        approve = payment_pb2.ApprovePaymentRequest(payment_id=reviewed.id)
        error = await refusal(house.officer(user_id).ApprovePayment(approve))
        assert (error.code(), reason(error)) == (grpc.StatusCode.PERMISSION_DENIED, "OWN_PAYMENT")
        decline = payment_pb2.DeclinePaymentRequest(payment_id=reviewed.id)
        assert await outcome(house.officer(user_id).DeclinePayment(decline)) == "OWN_PAYMENT"
    unknown = payment_pb2.CancelPaymentRequest(payment_id="pay_unknown")
    assert await outcome(house.pays("usr_1").CancelPayment(unknown)) == "PAYMENT_NOT_FOUND"


@pytest.mark.parametrize(("what", "state"), OUTCOMES)
async def test_nothing_is_done_to_a_payment_that_has_changed_since_it_was_read(
    house: House, what: str, state: State
) -> None:
    payment = await made(house, state)
    error = await refusal(done(house, what, payment, etag=str(int(payment.etag) - 1)))
    assert (error.code(), reason(error)) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert await house.payment(payment.id) == payment
    assert (await done(house, what, payment, etag=payment.etag)).state == OUTCOMES[what, state].value


async def test_an_approved_payment_is_settled_and_a_declined_one_says_by_whom(house: House) -> None:
    payment, other = await made(house, State.IN_REVIEW), await made(house, State.IN_REVIEW)
    assert payment.review_expire_time.seconds - payment.create_time.seconds == 7 * 24 * 3600
    approved = await done(house, "approve", payment)
    assert (approved.state_reason, approved.HasField("review_expire_time")) == ("", False)
    assert payment.id in await house.payments.claim_due(100)
    await house.payments.settle(payment.id, datetime.now(UTC))
    assert await spendable(house, payment) == (0, PAID)
    assert (await done(house, "decline", other)).state_reason == "REVIEW_DECLINED"


async def test_a_review_that_nobody_ends_is_declined_in_time(house: House) -> None:
    payment, other = await made(house, State.IN_REVIEW), await made(house, State.IN_REVIEW)
    await house.database.execute("UPDATE payments SET review_expire_time = now() WHERE id = $1", payment.id)

    async def is_declined() -> bool:
        return (await house.payment(payment.id)).state == payment_pb2.Payment.DECLINED

    await eventually(is_declined)
    assert (await house.payment(payment.id)).state_reason == "REVIEW_EXPIRED"
    assert await spendable(house, payment) == (PAID, 0)
    assert await house.payment(other.id) == other


async def test_a_review_that_the_version_before_began_ends_too(house: House) -> None:
    payment = await made(house, State.AUTHORIZED)  # so the copy says nothing of when its review ends
    async with copied(house, payment.id, State.IN_REVIEW) as connection:
        given = await connection.fetchval("SELECT review_expire_time - create_time FROM payments WHERE id = 'copy'")
    assert given == timedelta(days=7)


async def test_the_review_queue_is_a_list_of_one_state(house: House) -> None:
    reviewed = [await made(house, State.IN_REVIEW) for _ in range(3)]
    await made(house, State.AUTHORIZED)
    in_review = payment_pb2.ListPaymentsRequest(state=payment_pb2.Payment.IN_REVIEW, page_size=2)
    first = await house.officer().ListPayments(in_review)
    assert [one.id for one in first.payments] == [reviewed[2].id, reviewed[1].id]
    in_review.page_token = first.next_page_token
    assert (await house.officer().ListPayments(in_review)).payments[0].id == reviewed[0].id
    for other in (0, payment_pb2.Payment.SETTLED):
        in_review.state = other  # type: ignore[assignment]
        assert await outcome(house.officer().ListPayments(in_review)) == "INVALID_PAGE_TOKEN"
    mine = payment_pb2.ListPaymentsRequest(state=payment_pb2.Payment.IN_REVIEW)
    assert [one.id for one in (await house.pays(reviewed[0].payee_id).ListPayments(mine)).payments] == [reviewed[0].id]
    mine.state = payment_pb2.Payment.AUTHORIZED
    assert not (await house.pays(reviewed[0].payer_id).ListPayments(mine)).payments
    assert await outcome(house.officer().ListPayments(payment_pb2.ListPaymentsRequest(state=99))) == "INVALID_REQUEST"  # type: ignore[arg-type]


async def test_one_of_many_who_decide_at_once_is_heard(house: House) -> None:
    for _ in range(5):
        payment = await made(house, State.IN_REVIEW)
        many = [done(house, what, payment, payment.etag) for what in ("approve", "decline", "cancel") * 3]
        outcomes = Counter(await asyncio.gather(*map(outcome, many)))
        assert outcomes == {"done": 1, "ETAG_MISMATCH": 8}
        other = await made(house, State.IN_REVIEW)
        outcomes = Counter(await asyncio.gather(*(outcome(done(house, "decline", other)) for _ in range(9))))
        assert outcomes == {"done": 1, "ILLEGAL_TRANSITION": 8}
        assert (await house.payment(other.id)).etag == "2"


async def test_a_payment_is_either_cancelled_or_settled(house: House) -> None:
    for head_start in (0, 0, 0, 1, 2, 3, 5, 8):
        payment = await made(house, State.AUTHORIZED)

        async def cancel(payment: payment_pb2.Payment = payment, milliseconds: int = head_start) -> str:
            await asyncio.sleep(milliseconds / 1000)
            return await outcome(done(house, "cancel", payment))

        settles = (house.payments.settle(payment.id, datetime.now(UTC)) for _ in range(3))
        [cancelled, *_] = await asyncio.gather(cancel(), *settles)
        after = await house.payment(payment.id)
        assert (cancelled, after.state) in {
            ("done", payment_pb2.Payment.CANCELLED),
            ("ILLEGAL_TRANSITION", payment_pb2.Payment.SETTLED),
        }
        assert after.etag == "2"
        assert await spendable(house, payment) == SPENDABLE.get(State(after.state), (PAID, 0))


async def test_a_payment_is_not_approved_while_one_of_its_parties_is_suspended(house: House) -> None:
    payment = await made(house, State.IN_REVIEW)
    for party, why in ((payment.payer_id, "PAYER_NOT_ACTIVE"), (payment.payee_id, "PAYEE_NOT_ACTIVE")):
        house.users.suspended = {party}
        assert reason(await refusal(done(house, "approve", payment))) == why
    house.kind_neighbours()
    assert (await done(house, "approve", payment)).state == payment_pb2.Payment.AUTHORIZED


async def test_the_time_of_a_payment_never_goes_back(house: House) -> None:
    payment = await made(house, State.SETTLED)
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)  # by the clock of another machine
    slow = await house.payments.change(
        payment.id,
        lambda one: one.refund(one.payee_id, admin=False, etag="", amount=None, now=long_ago),
    )
    assert slow.update_time >= payment.update_time.ToDatetime(UTC)
