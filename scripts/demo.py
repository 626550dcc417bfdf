"""Shows one payment from sign-up to settlement, through the edge, as an outside client would make it.

Goes to EDGE_TLS_URL or EDGE_URL, trusting EDGE_CA (PEM) or whom this machine trusts, as the administrator ADMIN_EMAIL
with ADMIN_PASSWORD, or the one of docker-compose.yml. Without either URL it starts the native stack and goes there.
"""

import os
import secrets
import ssl
import sys
from datetime import date
from decimal import Decimal
from typing import Any

import httpx

from scripts.stack.folder import StackError, missing

try:
    from scripts.demo_page import Page, Unexpected, amount
    from scripts.specimens import passport
    from scripts.stack import commands
except ModuleNotFoundError as error:
    sys.exit(f"demo: {missing(error.name or str(error))}")

Json = dict[str, Any]

DEPOSIT = {"currencyCode": "EUR", "units": "250", "nanos": 0}
PRICE = {"currencyCode": "EUR", "units": "42", "nanos": 500_000_000}
BORN = date(1985, 12, 10)
COMPOSE_ADMIN = {"ADMIN_EMAIL": "admin@drawbridge.example", "ADMIN_PASSWORD": "drawbridge-on-this-machine"}
"""What docker-compose.yml gives where nobody says otherwise."""


def main() -> None:
    """Runs the demo. Ends with 1, and says why, when anything is not as it should be."""
    try:
        reach = _reach()
        with _client(reach) as client:
            journey(Page(client), reach)
    except (Unexpected, StackError) as error:
        sys.exit(f"demo: {error}")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        sys.exit(f"demo: the edge did not answer: {type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def journey(page: Page, reach: dict[str, str]) -> None:
    """Goes through it, step by step. Raises Unexpected."""
    run = secrets.token_hex(4)
    page.title("Two people sign up")
    payer = _sign_up(page, f"ada.{run}@example.com", "Ada Payer", "DE")
    payee = _sign_up(page, f"grace.{run}@example.com", "Grace Payee", "NL")

    page.title("The payer is known: screened after sign-up, and by a passport, which is read")
    page.call_until(
        "Ada Payer", "/api/v1/kyc/me", payer["token"], "verified", lambda kyc: bool(kyc["state"] == "VERIFIED")
    )
    _prove_identity(page, payer)

    page.title("The treasurer pays 250.00 EUR into the payer's account")
    treasurer = _log_in(page, "the treasurer", reach["ADMIN_EMAIL"], reach["ADMIN_PASSWORD"])
    account = _account(page, payer)
    page.call(
        "the treasurer",
        "POST",
        f"/api/v1/accounts/{account['id']}:deposit",
        token=treasurer,
        json={"amount": DEPOSIT},
        headers={"Idempotency-Key": secrets.token_hex(16)},
    )

    page.title("The payer pays the payee 42.50 EUR")
    payment = page.call(
        "Ada Payer",
        "POST",
        "/api/v1/payments",
        token=payer["token"],
        json={"payeeId": payee["id"], "amount": PRICE, "description": "Concert tickets"},
        headers={"Idempotency-Key": secrets.token_hex(16)},
        status=201,
    )

    page.title("The payer watches it settle")
    states = page.watch("Ada Payer", f"/api/v1/payments/{payment['id']}/status", payer["token"])
    page.expect(states == ["AUTHORIZED", "SETTLED"], f"the payment went {' → '.join(states)}, not AUTHORIZED → SETTLED")

    page.title("What both sides have now")
    _check_ledger(page, payer, payee, payment["id"])
    for who in (payer, payee):
        page.call_until(who["name"], "/api/v1/notifications", who["token"], "told of it", _told_of_settlement)
    page.title(f"Payment {payment['id']} went from AUTHORIZED to SETTLED")


def _reach() -> dict[str, str]:
    """Returns where to go, and as which administrator, by the names of the environment variables."""
    if "EDGE_TLS_URL" in os.environ or "EDGE_URL" in os.environ:
        return {**COMPOSE_ADMIN, **os.environ}
    return commands.up(commands.chosen_folder()).reach()


def _client(reach: dict[str, str]) -> httpx.Client:
    try:
        trust = ssl.create_default_context(cafile=reach.get("EDGE_CA"))
    except OSError as error:
        raise StackError(f"EDGE_CA={reach['EDGE_CA']} cannot be read: {error}") from error
    url = reach.get("EDGE_TLS_URL") or reach["EDGE_URL"]
    return httpx.Client(base_url=url, verify=trust, trust_env=False, timeout=30)


def _sign_up(page: Page, email: str, name: str, country: str) -> Json:
    """Returns the new user, with a token."""
    password = secrets.token_urlsafe(18)
    profile = {
        "email": email,
        "password": password,
        "displayName": name,
        "country": country,
        "dateOfBirth": {"year": BORN.year, "month": BORN.month, "day": BORN.day},
    }
    user = page.call(name, "POST", "/api/v1/users", json=profile, status=201)
    return {"id": user["id"], "name": name, "token": _log_in(page, name, email, password)}


def _log_in(page: Page, who: str, email: str, password: str) -> str:
    session = page.call(who, "POST", "/api/v1/sessions", json={"email": email, "password": password}, status=201)
    return str(session["accessToken"])


def _prove_identity(page: Page, owner: Json) -> None:
    """Uploads a specimen of a passport, and shows what was found in it."""
    specimen = passport(owner["name"], BORN, number=f"{secrets.randbelow(10**9):09}")
    uploaded = page.call(
        owner["name"],
        "POST",
        "/api/v1/documents/upload",
        token=owner["token"],
        data={"kind": "PASSPORT"},
        files={"file": ("passport.png", specimen, "image/png")},
        status=201,
    )
    path = f"/api/v1/documents/{uploaded['id']}"
    document = page.call_until(
        owner["name"], path, owner["token"], "known by it", lambda found: bool(found["state"] != "PENDING")
    )
    page.expect(document["state"] == "VERIFIED", f"the passport is {document['state']}, not VERIFIED")


def _account(page: Page, owner: Json) -> Json:
    found = page.call(owner["name"], "GET", "/api/v1/accounts", token=owner["token"])["accounts"]
    euros = [account for account in found if account["currencyCode"] == "EUR"]
    page.expect(len(euros) == 1, f"{owner['name']} has {len(euros)} accounts in EUR, not 1")
    account: Json = euros[0]
    return account


def _check_ledger(page: Page, payer: Json, payee: Json, payment_id: str) -> None:
    moved = Decimal(0)
    for who, balance in ((payer, amount(DEPOSIT) - amount(PRICE)), (payee, amount(PRICE))):
        account = _account(page, who)
        found = {name: amount(account[name]) for name in ("balance", "available")}
        page.expect(set(found.values()) == {balance}, f"{who['name']} has {found}, not {balance} EUR")
        path = f"/api/v1/accounts/{account['id']}/entries"
        entries = page.call(who["name"], "GET", path, token=who["token"])["entries"]
        total = sum(amount(entry["amount"]) for entry in entries)
        page.expect(total == balance, f"{who['name']}'s entries sum to {total}, not {balance}")
        moved += sum(amount(entry["amount"]) for entry in entries if entry["paymentId"] == payment_id)
    page.expect(moved == 0, f"the payment's entries sum to {moved}, not 0")


def _told_of_settlement(found: Json) -> bool:
    return any(one["kind"] == "PAYMENT_SETTLED" for one in found["notifications"])


if __name__ == "__main__":
    main()
