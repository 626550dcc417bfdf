"""Whose document is read next: nobody's many, and nothing that takes long, holds up the others."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from services.document.domain import Kind
from services.document.verification.domain import Facts
from services.document.verification.store import _CLAIM, _LOCK_CLAIMS, LEASE
from tests.integration.reading import EXPIRES, House
from tests.waiting import eventually


async def test_a_user_with_many_documents_does_not_keep_others_waiting(quiet: House) -> None:
    many = [await quiet.upload("usr_many") for _ in range(5)]
    other = await quiet.upload("usr_other")
    claims = [await quiet.archive.verifications.claim() for _ in range(3)]
    assert [claim and claim.document.id for claim in claims] == [many[0].id, other.id, None]


async def test_one_of_a_users_documents_is_read_at_a_time(quiet: House) -> None:
    for _ in range(5):
        await quiet.wait_no_longer(await quiet.upload("usr_many"))
    other = await quiet.upload("usr_other")
    claims = await asyncio.gather(*(quiet.archive.verifications.claim() for _ in range(6)))
    assert sorted(claim.document.owner_id for claim in claims if claim) == ["usr_many", other.owner_id]


async def test_who_had_to_wait_for_its_turn_to_claim_sees_what_was_claimed_meanwhile(quiet: House) -> None:
    for _ in range(2):
        await quiet.wait_no_longer(await quiet.upload("usr_many"))
    async with quiet.archive.database.transaction() as connection:
        await connection.execute(_LOCK_CLAIMS)
        late = asyncio.create_task(quiet.archive.verifications.claim())
        await eventually(partial(_somebody_waits, quiet))
        await connection.execute(_CLAIM, LEASE)  # later than the other began
    assert await late is None


async def _somebody_waits(house: House) -> bool:
    waiting = """
        SELECT FROM pg_locks JOIN pg_database ON pg_database.oid = database
        WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"""
    return bool(await house.archive.database.fetch(waiting))


@pytest.mark.parametrize("ends", ["decided", "failed"])
async def test_who_takes_long_to_read_lets_those_go_first_who_came_meanwhile(quiet: House, ends: str) -> None:
    many = [await quiet.upload("usr_many") for _ in range(3)]
    claim = await quiet.archive.verifications.claim()
    assert claim is not None
    other = await quiet.upload("usr_other")
    took_long = replace(claim, begin=claim.begin - 20)
    if ends == "decided":
        facts = Facts(kind=Kind.PASSPORT, content_type="image/png", today=EXPIRES)
        await quiet.archive.verifications.decide(took_long, facts)
    else:
        await quiet.archive.verifications.postpone(took_long, timedelta(minutes=1), its_fault=True)
    following = [await quiet.archive.verifications.claim() for _ in range(2)]
    assert [claim and claim.document.id for claim in following] == [other.id, None]
    for document in many[1:]:
        await quiet.wait_no_longer(document)
    assert await quiet.archive.verifications.claim(), "what failed and waits does not hold up the others"
