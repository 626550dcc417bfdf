"""authz as a process of its own, beside the built-in issuer another one that the configuration names."""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from authz.__main__ import Settings
from scripts.stack import ports
from scripts.stack.folder import CONTRACT
from services.runtime import config, probe
from tests.integration.asking import Edge, headers_of, reason
from tests.integration.publisher import Publisher, publishing
from tests.issuer import AUDIENCE, ISSUER, PRIVATE, jwk, key_set, token
from tests.outside import ED25519, P384, PSS, RSA, THEIRS, their_keys, their_token
from tests.waiting import eventually, wait_until

GET_USER = "/user.v1.UserService/GetUser"
APPROVE = "/payment.v1.PaymentService/ApprovePayment"


@contextmanager
def authz(certificates: Path, folder: Path, *issuers: dict[str, Any], **settings: str) -> Iterator[int]:
    """Runs authz and yields its port."""
    port, health = ports.free(2)
    environment = {
        "LISTEN_ADDRESS": f"127.0.0.1:{port}",
        "HEALTH_ADDRESS": f"127.0.0.1:{health}",
        "TLS_CERT": str(certificates / "authz.pem"),
        "TLS_KEY": str(certificates / "authz.key"),
        "TLS_CA": str(certificates / "ca.pem"),
        "CONTRACT": str(CONTRACT),
        "TOKEN_ISSUER": ISSUER,
        "TOKEN_AUDIENCE": AUDIENCE,
        "USER_ADDRESS": "127.0.0.1:1",
        "OUTSIDE_ISSUERS": json.dumps(issuers),
        **settings,
    }
    log = folder / "authz.log"
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [sys.executable, "-m", "authz"], env={**os.environ, **environment}, stdout=output, stderr=output
        ) as process,
    ):
        try:
            wait_until(lambda: probe.serving(environment["HEALTH_ADDRESS"]), f"authz is not ready; see {log}", 60)
            yield port
        finally:
            process.terminate()


@dataclass
class Issuers:
    """Both issuers, and the edge that asks authz."""

    own: Publisher
    theirs: Publisher
    edge: Edge
    log: Path

    async def granted(self, token: str, rpc: str = GET_USER) -> dict[str, str]:
        return headers_of(await self.edge.granted(rpc, ("authorization", f"Bearer {token}")))

    async def refused(self, token: str, rpc: str = GET_USER) -> str:
        return reason(await self.edge.denied(rpc, ("authorization", f"Bearer {token}")))

    async def is_granted(self, token: str) -> bool:
        return not (await self.edge.check(GET_USER, ("authorization", f"Bearer {token}"))).status.code


def theirs(key: str = RSA, **claims: Any) -> str:
    now = int(time.time())
    return their_token(key, **{"iat": now, "exp": now + 600, **claims})


def ours(**claims: Any) -> str:
    now = int(time.time())
    return token(iat=now, exp=now + 600, **claims)


@pytest.fixture
async def issuers(certificates: Path, nats_url: str, tmp_path: Path) -> AsyncIterator[Issuers]:
    with publishing(certificates, "edge") as own, publishing(certificates, "public", mutual=False) as outside:
        own.body, outside.body = key_set(jwk(PRIVATE, "k1")), their_keys()
        provider = {
            "issuer": THEIRS.issuer,
            "jwks_url": outside.url,
            "jwks_ca": str(certificates / "edge-ca.pem"),
            "audience": THEIRS.audience,
            "user_claim": "user",
            "roles_claim": "groups",
            "roles": {"payers": "customer", "staff": "officer"},
        }
        with authz(certificates, tmp_path, provider, JWKS_URL=own.url, NATS_URL=nats_url) as port:
            edge = Edge(port, certificates)
            yield Issuers(own, outside, edge, tmp_path / "authz.log")
            await edge.channel.close()


async def test_users_of_both_issuers_get_in_as_what_they_are(issuers: Issuers) -> None:
    assert (await issuers.granted(ours()))["x-user-session"] == "ses_1"
    for key in (RSA, PSS, ED25519, P384):
        await eventually(lambda key=key: issuers.is_granted(theirs(key)), 30)  # type: ignore[misc]
        assert await issuers.granted(theirs(key)) == {
            "x-user-rpc": GET_USER,
            "x-user-id": "usr_9",
            "x-user-roles": "customer",
            "x-user-session": "",
        }
    assert await issuers.refused(theirs(), APPROVE) == "ROLE_REQUIRED"
    assert (await issuers.granted(theirs(groups=["staff", "admin"]), APPROVE))["x-user-roles"] == "officer"
    for forged in (theirs(iss=ISSUER, aud=AUDIENCE), ours(iss=THEIRS.issuer, aud=THEIRS.audience, user="usr_1")):
        assert await issuers.refused(forged) == "INVALID_TOKEN"


async def test_an_issuer_that_is_away_or_publishes_rubbish_is_nothing_to_the_others(issuers: Issuers) -> None:
    await eventually(lambda: issuers.is_granted(theirs()), 30)
    issuers.theirs.status, issuers.own.body = 503, b"<html>"
    asked = issuers.theirs.asked, issuers.own.asked
    forged = their_token(RSA, {"kid": "unheard-of"}), token({"kid": "unheard-of"})
    for one in forged:  # each has its issuer's keys fetched anew
        assert await issuers.refused(one) == "INVALID_TOKEN"
    wait_until(lambda: issuers.theirs.asked > asked[0] and issuers.own.asked > asked[1], "no key set was fetched anew")
    await issuers.granted(ours())
    await issuers.granted(theirs())


async def test_an_issuer_that_cannot_be_reached_yet_lets_its_users_wait_and_all_others_in(
    certificates: Path, nats_url: str, tmp_path: Path
) -> None:
    away = {"issuer": THEIRS.issuer, "jwks_url": "https://127.0.0.1:1/", "audience": THEIRS.audience}
    with publishing(certificates, "edge") as own:
        own.body = key_set(jwk(PRIVATE, "k1"))
        with authz(certificates, tmp_path, away, JWKS_URL=own.url, NATS_URL=nats_url) as port:
            issuers = Issuers(own, own, Edge(port, certificates), tmp_path)
            await issuers.granted(ours())
            assert await issuers.refused(theirs()) == "KEYS_UNAVAILABLE"
            assert (
                reason(await issuers.edge.denied(GET_USER, ("x-api-key", "dbk_" + "x" * 43))) == "API_KEYS_UNAVAILABLE"
            )
            await issuers.edge.channel.close()


async def test_no_log_has_a_token_or_a_key(issuers: Issuers) -> None:
    sent = [ours(), ours()[:-1], theirs(sub="x y"), "dbk_" + "x" * 43]
    for one in sent[:3]:
        await issuers.edge.check(GET_USER, ("authorization", f"Bearer {one}"))
    await issuers.edge.check(GET_USER, ("x-api-key", sent[3]))
    wait_until(lambda: "API_KEYS_UNAVAILABLE" in issuers.log.read_text(), "authz has not logged what it refused")
    for one in sent:
        assert one not in issuers.log.read_text()


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ("{", "Invalid JSON"),
        ('{"issuer": "a"}', "tuple"),
        ('[{"issuer": "a", "audience": "b"}]', "Field required"),
        ('[{"issuer": "a", "audience": "b", "jwks_url": "http://c"}]', "https"),
        ('[{"issuer": "a", "audience": "b", "jwks_url": "https://c", "secret": "d"}]', "Extra inputs"),
        (json.dumps([{"issuer": ISSUER, "audience": "b", "jwks_url": "https://c"}]), "none TOKEN_ISSUER"),
        (json.dumps([{"issuer": "a", "audience": "b", "jwks_url": "https://c"}] * 2), "each issuer"),
    ],
)
def test_a_wrong_setting_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch, wrong: str, problem: str) -> None:
    monkeypatch.setenv("OUTSIDE_ISSUERS", wrong)
    monkeypatch.setenv("TOKEN_ISSUER", ISSUER)
    with pytest.raises(SystemExit, match=f"OUTSIDE_ISSUERS: .*{problem}"):
        config.load(Settings)
