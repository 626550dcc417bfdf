"""API keys as authz remembers them: what it asks, how often, and what it never lets in again."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from authz import api_keys
from authz.api_keys import (
    ASK_AGAIN_SECONDS,
    GRACE_SECONDS,
    KNOWN_SECONDS,
    UNKNOWN_SECONDS,
    ApiKeys,
    ApiKeysUnavailable,
    InvalidApiKey,
)
from authz.tokens import User
from services.runtime.revocations import RevocationsUnavailable
from tests.issuer import Heard
from tests.keeper import KEY, OWNER, PROGRAM, Keeper

UNKNOWN = "dbk_" + "u" * 43
GRANTED = User(OWNER, frozenset({"customer"}), PROGRAM, is_person=False)


class Desk:
    """authz's API keys, with a clock of the test's own."""

    def __init__(self) -> None:
        self.keeper, self.heard = Keeper(), Heard()
        self.passed = 0.0
        self.keys = ApiKeys(
            self.keeper.resolve, self.heard, lambda: time.time() + self.passed, lambda: 1000 + self.passed
        )

    async def refused(self, key: str = KEY) -> bool:
        with pytest.raises(InvalidApiKey):
            await self.keys.verify(key)
        return True


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    yield Desk()


async def test_a_key_is_asked_about_once_a_minute(desk: Desk) -> None:
    for _ in range(3):
        assert await desk.keys.verify(KEY) == GRANTED
    assert desk.keeper.asked == 1
    desk.passed += KNOWN_SECONDS
    desk.keeper.roles = ["officer"]
    assert (await desk.keys.verify(KEY)).roles == {"officer"}
    assert desk.keeper.asked == 2


async def test_all_who_wait_for_a_key_share_one_question(desk: Desk) -> None:
    desk.keeper.go_on.clear()
    waiting = [asyncio.create_task(desk.keys.verify(KEY)) for _ in range(20)]
    gone = waiting.pop()
    await asyncio.sleep(0)
    gone.cancel()
    desk.keeper.go_on.set()
    assert await asyncio.gather(*waiting) == [GRANTED] * 19
    assert desk.keeper.asked == 1


@pytest.mark.parametrize(
    "key", ["", KEY[:-1], KEY + "x", "dbk_", KEY.replace("k", "=", 1), "xbk_" + KEY[4:], KEY + "\n"]
)
async def test_what_does_not_look_like_a_key_is_refused_without_asking(desk: Desk, key: str) -> None:
    assert await desk.refused(key)
    assert desk.keeper.asked == 0


async def test_an_unknown_key_is_asked_about_again_after_a_short_while(desk: Desk) -> None:
    for _ in range(3):
        assert await desk.refused(UNKNOWN)
    assert desk.keeper.asked == 1
    desk.passed += UNKNOWN_SECONDS
    assert await desk.refused(UNKNOWN)
    assert desk.keeper.asked == 2


async def test_a_key_expires_though_it_is_remembered(desk: Desk) -> None:
    desk.keeper.expires = time.time() + 30
    await desk.keys.verify(KEY)
    desk.passed += 31
    assert await desk.refused()
    assert desk.keeper.asked == 1


@pytest.mark.parametrize("ended", [PROGRAM, OWNER])
async def test_a_revoked_key_is_refused_at_once(desk: Desk, ended: str) -> None:
    await desk.keys.verify(KEY)
    desk.heard.end("key_of_another")
    desk.heard.end("ses_1")
    await desk.keys.verify(KEY)
    assert desk.keeper.asked == 1
    desk.keeper.revoked = True
    desk.heard.end(ended)
    assert await desk.refused()


async def test_an_answer_from_before_a_revocation_does_not_bring_the_key_back(desk: Desk) -> None:
    def revoke() -> None:
        desk.keeper.before_answer = lambda: None
        desk.keeper.revoked = True
        desk.heard.end(PROGRAM)

    desk.keeper.before_answer = revoke
    assert await desk.refused()
    assert desk.keeper.asked == 2
    assert await desk.refused()


async def test_when_the_owner_loses_a_role_so_does_the_key(desk: Desk) -> None:
    desk.keeper.roles = ["customer", "officer"]
    await desk.keys.verify(KEY)
    desk.keeper.roles = ["customer"]
    desk.heard.end(OWNER)
    assert await desk.keys.verify(KEY) == GRANTED


async def test_while_the_user_service_is_away_known_keys_go_on_for_a_while_and_others_are_told_to_come_again(
    desk: Desk,
) -> None:
    await desk.keys.verify(KEY)
    desk.keeper.away = True
    desk.passed += KNOWN_SECONDS
    for _ in range(3):
        assert await desk.keys.verify(KEY) == GRANTED
    assert desk.keeper.asked == 2
    desk.passed += ASK_AGAIN_SECONDS
    await desk.keys.verify(KEY)
    assert desk.keeper.asked == 3
    with pytest.raises(ApiKeysUnavailable) as unavailable:
        await desk.keys.verify(UNKNOWN)
    assert unavailable.value.retry_after == 1.0
    desk.passed += GRACE_SECONDS
    with pytest.raises(ApiKeysUnavailable):
        await desk.keys.verify(KEY)


async def test_no_key_goes_on_that_was_revoked_while_the_user_service_is_away(desk: Desk) -> None:
    await desk.keys.verify(KEY)
    desk.keeper.away = True
    desk.heard.end(PROGRAM)
    with pytest.raises(ApiKeysUnavailable):
        await desk.keys.verify(KEY)


async def test_without_nats_no_key_goes_on_beyond_its_minute(desk: Desk) -> None:
    await desk.keys.verify(KEY)
    desk.keeper.away, desk.heard.connected = True, False
    await desk.keys.verify(KEY)
    desk.passed += KNOWN_SECONDS
    with pytest.raises(ApiKeysUnavailable):
        await desk.keys.verify(KEY)


async def test_a_user_service_that_hangs_is_not_waited_for(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "ANSWER_SECONDS", 0.05)
    desk.keeper.go_on.clear()
    for _ in range(2):
        with pytest.raises(ApiKeysUnavailable):
            await desk.keys.verify(KEY)
    desk.keeper.go_on.set()
    assert await desk.keys.verify(KEY) == GRANTED


async def test_a_flood_of_made_up_keys_drives_out_no_key_that_there_is(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "MOST_REMEMBERED", 10)
    await desk.keys.verify(KEY)
    flood = [desk.refused(f"dbk_{number:043d}") for number in range(100)]
    assert all(await asyncio.gather(*flood))
    assert desk.keeper.asked == 101
    assert len(desk.keys._unknown) <= 10
    assert await desk.keys.verify(KEY) == GRANTED
    assert desk.keeper.asked == 101


async def test_nobody_gets_in_before_it_is_known_what_has_ended(desk: Desk) -> None:
    desk.heard.read = False
    with pytest.raises(RevocationsUnavailable):
        await desk.keys.verify(KEY)
