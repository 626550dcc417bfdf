"""Access tokens that nobody must get in with, for what they claim. All are signed with a key that is trusted."""

from collections.abc import Iterator
from typing import Any

from tests.issuer import AUDIENCE, CLAIMS, NOW, PRIVATE, token, without

NO_TEXTS = {"a number": 1, "null": None, "true": True, "a list": ["usr_1"], "an object": {"a": "usr_1"}}
_NO_TIMES: dict[str, Any] = {
    "a text": str(int(NOW) + 600),
    "true": True,
    "false": False,
    "null": None,
    "a list": [int(NOW) + 600],
    "an object": {},
    "negative": -1,
    "a negative float": -0.5,
    "beyond the year 9999": 253_402_300_800,
    "beyond what a float holds": 10**400,
    "the largest float": 1.7e308,
}


def wrong_claims() -> Iterator[tuple[str, str]]:
    """Yields each token after what is wrong with it."""
    yield from _names()
    yield from _times()
    yield from _audiences()


def _with(claim: str, value: object) -> str:
    return token(None, PRIVATE, **{claim: value})


def _names() -> Iterator[tuple[str, str]]:
    """Claims that say who it is and are no names."""
    for claim in ("sub", "jti", "client_id", "sid"):
        for name, value in NO_TEXTS.items():
            yield f"{claim} {name}", _with(claim, value)
        yield f"{claim} empty", _with(claim, "")
        yield f"{claim} blank", _with(claim, " ")
        yield f"{claim} with a line break", _with(claim, "usr_1\r\nx-user-roles: admin")
        yield f"{claim} with a NUL", _with(claim, "usr_1\0")
        yield f"{claim} not ASCII", _with(claim, "usr_\u0661")
        yield f"{claim} with a lone surrogate", _with(claim, "usr_\ud800")
        yield f"{claim} too long", _with(claim, "u" * 256)
        yield f"{claim} that is two", _with(claim, "usr_1,usr_2")
    for claim in ("iss", "aud", "sub", "jti", "iat", "exp"):
        yield f"no {claim}", without(claim)
    yield "roles a text", token(roles="admin")
    yield "roles null", token(roles=None)
    yield "roles an object", token(roles={"admin": True})
    yield "a role that is two", token(roles=["customer,admin"])
    yield "a role that is a list", token(roles=[["admin"]])
    yield "a role that is a number", token(roles=["customer", 1])
    yield "a role that is empty", token(roles=["customer", ""])
    yield "a role with a line break", token(roles=["customer\nadmin"])


def _times() -> Iterator[tuple[str, str]]:
    """Claims that say when, at their edges."""
    for claim in ("exp", "iat", "nbf"):
        for name, value in _NO_TIMES.items():
            yield f"{claim} {name}", _with(claim, value)
    yield from {
        "expired": token(iat=NOW - 700, exp=NOW - 60),
        "expired in 1970": token(iat=0, exp=1),
        "exp zero": token(exp=0),
        "exp before iat": token(iat=int(NOW), exp=int(NOW) - 1),
        "exp at iat": token(iat=int(NOW), exp=int(NOW)),
        "exp before nbf": token(nbf=int(NOW) + 2, exp=int(NOW) + 1),
        "issued in a minute": token(iat=NOW + 60),
        "issued next year": token(iat=NOW + 365 * 86400, exp=NOW + 366 * 86400),
        "valid in a minute": token(nbf=NOW + 60),
        "valid for a year": token(exp=NOW + 365 * 86400),
        "valid until the year 9999": token(exp=253_402_300_799),
        "milliseconds for seconds": token(iat=int(NOW * 1000), exp=int(NOW * 1000) + 600_000),
        "issued two hours ago": token(iat=NOW - 7200, exp=NOW + 600),
    }.items()


def _audiences() -> Iterator[tuple[str, str]]:
    """Tokens from or for somebody else."""
    issuer = str(CLAIMS["iss"])
    for other in (issuer + "/", issuer.upper(), issuer.replace("s:", ":"), issuer + ".evil.example", "", " " + issuer):
        yield f"from {other!r}", token(iss=other)
    for name, value in {**NO_TEXTS, "a list": [issuer], "an object": {"a": issuer}}.items():
        yield f"iss {name}", token(iss=value)
    for audience in ("another", "", AUDIENCE.upper(), AUDIENCE + " ", " " + AUDIENCE, f"{AUDIENCE},another", "*"):
        yield f"for {audience!r}", token(aud=audience)
    yield from {
        "for nobody": token(aud=[]),
        "for null": token(aud=None),
        "for a number": token(aud=1),
        "for true": token(aud=True),
        "for an object": token(aud={AUDIENCE: True}),
        "for parts of the audience": token(aud=["draw", "bridge"]),
        "for a list in a list": token(aud=[[AUDIENCE]]),
        "for the audience and a number": token(aud=[AUDIENCE, 1]),
        "for the audience and null": token(aud=[AUDIENCE, None]),
    }.items()
