"""Tokens that are and are not what they say, against the keys of their issuers."""

from collections.abc import Callable
from contextlib import suppress

import pytest

from authz.issuers import Issuer
from authz.jwks import Keys
from authz.tokens import LONGEST_USE_SECONDS, MOST_REMEMBERED, InvalidToken, TokenExpired, Tokens, User
from services.runtime.revocations import RevocationsUnavailable, SessionEnded
from tests.attacks import attacks
from tests.issuer import ANOTHER, AUDIENCE, ISSUER, NOW, Heard, Publisher, jwk, key_set, sign, token, without
from tests.outside import ED25519, P384, PSS, RSA, THEIRS, their_keys, their_token


async def tokens(
    publisher: Publisher | None = None, clock: Callable[[], float] = lambda: NOW, heard: Heard | None = None
) -> Tokens:
    keys = Keys((publisher or Publisher()).fetch)
    await keys.refresh()
    return Tokens([Issuer(ISSUER, AUDIENCE, keys)], heard or Heard(), clock)


async def test_a_good_token_says_who_its_user_is() -> None:
    good = token()
    verifier = await tokens()
    for _ in range(2):
        assert await verifier.verify(good) == User("usr_1", frozenset({"customer", "admin"}), "ses_1")


@pytest.mark.parametrize(
    "good",
    [
        token({"typ": "AT+JWT"}),
        token({"typ": "application/at+jwt"}),
        token(aud=["another", AUDIENCE]),
        token(nbf=NOW + 4),
        token(iat=NOW + 4),
        token(iat=NOW - 600, exp=NOW - 4.9),
        token(exp=NOW + 0.5),
        token(roles=["customer", "of nobody's".replace(" ", "-")]),
        without("sid"),
        without("roles"),
        without("client_id"),
    ],
)
async def test_what_the_standards_leave_open_is_accepted(good: str) -> None:
    assert (await (await tokens()).verify(good)).id == "usr_1"


async def test_anything_else_is_no_token() -> None:
    verifier = await tokens()
    admitted = []
    for name, attack in [*attacks().items()] * 2:  # again, lest it is remembered
        with suppress(InvalidToken, TokenExpired):
            admitted.append((name, await verifier.verify(attack)))
    assert admitted == []
    assert (await verifier.verify(token())).id == "usr_1"


@pytest.mark.parametrize("exp", [NOW - 5, NOW - 3500, 0])
async def test_an_expired_token_is_told_apart(exp: float) -> None:
    for issued in (NOW - 3600, NOW):
        with pytest.raises(TokenExpired):
            await (await tokens()).verify(token(iat=issued, exp=exp))


async def test_a_token_that_was_good_expires_though_it_is_remembered() -> None:
    good = token()
    time_now = [NOW]
    verifier = await tokens(clock=lambda: time_now[0])
    await verifier.verify(good)
    time_now[0] += 606
    with pytest.raises(TokenExpired):
        await verifier.verify(good)


async def test_no_token_is_good_for_longer_than_its_revocation_is_known() -> None:
    time_now = [NOW]
    verifier = await tokens(clock=lambda: time_now[0])
    lasting = token(exp=int(NOW) + 7200)
    time_now[0] += LONGEST_USE_SECONDS
    await verifier.verify(lasting)
    time_now[0] += 10
    with pytest.raises(TokenExpired):
        await verifier.verify(lasting)


async def test_a_token_that_was_good_is_refused_once_its_key_is_gone() -> None:
    good = token()
    publisher = Publisher()
    keys = Keys(publisher.fetch)
    await keys.refresh()
    verifier = Tokens([Issuer(ISSUER, AUDIENCE, keys)], Heard(), lambda: NOW)
    await verifier.verify(good)
    publisher.published = key_set(jwk(ANOTHER, "k2"))
    await keys.refresh()
    with pytest.raises(InvalidToken):
        await verifier.verify(good)


async def test_a_token_that_was_good_is_refused_once_its_session_has_ended() -> None:
    good = token()
    heard = Heard()
    verifier = await tokens(heard=heard)
    await verifier.verify(good)
    heard.end("ses_2")
    await verifier.verify(good)
    heard.end("ses_1")
    with pytest.raises(SessionEnded):
        await verifier.verify(good)
    await verifier.verify(token(sid="ses_3"))


async def test_a_token_without_a_session_ends_with_what_its_user_had() -> None:
    heard = Heard()
    verifier = await tokens(heard=heard)
    heard.end("usr_1", NOW + 1)
    with pytest.raises(SessionEnded):
        await verifier.verify(without("sid"))
    await verifier.verify(token())  # whose session goes on
    heard.end("usr_1", NOW - 60)
    await verifier.verify(without("sid"))


async def test_a_token_ends_though_the_clock_of_its_issuer_is_ahead() -> None:
    heard = Heard()
    verifier = await tokens(heard=heard)
    heard.end("usr_1", NOW - 4)
    with pytest.raises(SessionEnded):
        await verifier.verify(without("sid"))
    heard.end("usr_1", NOW - 6)
    await verifier.verify(without("sid"))


async def test_nobody_gets_in_before_it_is_known_what_has_ended() -> None:
    heard = Heard()
    verifier = await tokens(heard=heard)
    heard.read = False
    with pytest.raises(RevocationsUnavailable):
        await verifier.verify(token())


async def test_as_many_tokens_are_remembered_as_there_is_room_for_and_all_are_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("authz.tokens.MOST_REMEMBERED", 3)
    verifier = await tokens()
    many = [token(jti=f"t{number}") for number in range(5)]
    for _ in range(2):
        for one in many:
            await verifier.verify(one)
            assert len(verifier._verified) <= 3 < MOST_REMEMBERED
    with pytest.raises(InvalidToken):
        await verifier.verify(token(private=ANOTHER))
    assert len(verifier._verified) == 3


async def issuers() -> Tokens:
    """The built-in issuer and another, which has a key of each kind, one of them with the kid of the first's."""
    own, theirs = Keys(Publisher().fetch), Keys(Publisher(their_keys()).fetch, THEIRS.algorithms)
    await own.refresh()
    await theirs.refresh()
    outside = Issuer(
        THEIRS.issuer, THEIRS.audience, theirs, "user", "groups", {"payers": "customer", "staff": "officer"}
    )
    return Tokens([Issuer(ISSUER, AUDIENCE, own), outside], Heard(), lambda: NOW)


@pytest.mark.parametrize("key", [ED25519, P384, PSS, RSA], ids=["EdDSA", "ES384", "PS256", "RS256"])
async def test_an_outside_issuers_users_have_the_roles_that_are_mapped_and_no_session(key: str) -> None:
    verifier = await issuers()
    granted = await verifier.verify(their_token(key, groups=["payers", "admin", "of theirs", "x,y"]))
    assert granted == User("usr_9", frozenset({"customer"}), "")
    assert (await verifier.verify(token())).id == "usr_1"


async def test_a_key_of_one_issuer_verifies_no_token_of_another() -> None:
    verifier = await issuers()
    forged = [
        their_token(RSA, iss=ISSUER, aud=AUDIENCE),
        their_token(ED25519, iss=ISSUER, aud=AUDIENCE),
        their_token("k1", iss=ISSUER, aud=AUDIENCE),
        token(iss=THEIRS.issuer, aud=THEIRS.audience, user="usr_9"),
        sign('{"alg":"ES256","typ":"at+jwt","kid":"r1"}', "{}"),
    ]
    for one in forged:
        with pytest.raises(InvalidToken):
            await verifier.verify(one)


@pytest.mark.parametrize("algorithm", ["ES256", "PS256", "RS512", "none", "HS256"])
async def test_each_key_is_for_one_algorithm_only(algorithm: str) -> None:
    verifier = await issuers()
    with pytest.raises(InvalidToken, match="its alg"):
        await verifier.verify(their_token(RSA, {"alg": algorithm}))
    with pytest.raises(InvalidToken, match=r"its (alg|signature)"):
        await verifier.verify(their_token(RSA, {"alg": "PS256", "kid": PSS}))


async def test_an_issuers_claims_must_be_what_the_configuration_says() -> None:
    verifier = await issuers()
    for claims in ({"user": None}, {"user": "a b"}, {"groups": "payers"}, {"aud": AUDIENCE}, {"jti": None}, {"sub": 1}):
        with pytest.raises(InvalidToken):
            await verifier.verify(their_token(RSA, **claims))
