"""What can be read in two ways is read in one, or not at all: nowhere does the edge find a request in a request."""

from collections.abc import Mapping

import pytest

from tests.edge.contract.backend import Backend, Call
from tests.edge.contract.edge import Edge, reason_of
from tests.edge.contract.gadgets import LURE, NUMBER, Gadget, Outcome, gadgets
from tests.edge.contract.raw import CREDENTIAL, Exchange, exchange_all

GADGETS = gadgets()
ACCOUNTS = "/payment.v1.AccountService/ListAccounts"
UPLOAD = "/document.v1.DocumentService/UploadDocument"
HONEST = "/payment.v1.PaymentService/ListPayments"

Seen = tuple[Exchange, list[Call]]


def sent(gadget: Gadget, number: int) -> bytes:
    """Returns a gadget and the honest request that follows it."""
    name = b"gadget-%d-" % number
    honest = b"GET /api/v1/payments HTTP/1.1\r\nHost: x\r\nIdempotency-Key: %s\r\n%s\r\n" % (name, CREDENTIAL)
    return gadget.data.replace(NUMBER, name) + honest


@pytest.fixture(scope="module")
def seen(edge: Edge, _backend: Backend) -> Mapping[str, Seen]:
    """What came of each gadget: at its client, and behind the edge."""
    _backend.calls.clear()
    exchanges = exchange_all(edge.port, [(sent(gadget, number), 2) for number, gadget in enumerate(GADGETS)])
    calls = [(call, [*call.values("idempotency-key")]) for call in _backend.calls]
    assert not [call for call, _ in calls if call.rpc == ACCOUNTS and LURE in str(call.messages)], "a lure was taken"
    return {
        gadget.name: (exchange, [call for call, keys in calls if f"gadget-{number}-" in keys])
        for number, (gadget, exchange) in enumerate(zip(GADGETS, exchanges, strict=True))
    }


def test_there_are_many() -> None:
    assert len(GADGETS) > 600


@pytest.mark.parametrize("gadget", GADGETS, ids=lambda gadget: gadget.name)
def test_a_gadget_is_one_request_or_none(seen: Mapping[str, Seen], gadget: Gadget) -> None:
    exchange, calls = seen[gadget.name]
    for answer in exchange.answers:
        assert answer.status_code == 200 or reason_of(answer)
    outcome = _outcome(gadget, exchange, calls)
    assert outcome in gadget.right, (exchange.statuses(), calls)


def test_every_error_has_an_id_and_tells_no_software(seen: Mapping[str, Seen]) -> None:
    errors = [answer for exchange, _ in seen.values() for answer in exchange.answers if answer.status_code != 200]
    assert len(errors) > 400
    for answer in errors:
        assert answer.headers["x-request-id"]
        assert "server" not in answer.headers
        assert "envoy" not in str(answer.headers).lower() + answer.text.lower()


def _outcome(gadget: Gadget, exchange: Exchange, calls: list[Call]) -> Outcome | str:
    rpcs, statuses = [call.rpc for call in calls], exchange.statuses()
    # Refused either with the connection, or as a whole request after which comes the next.
    with_connection = not rpcs and exchange.closed and len(statuses) == 1
    if (with_connection or (rpcs == [HONEST] and statuses[1:] == [200])) and statuses[0] >= 400 and not exchange.rest:
        return "refused"
    if len(rpcs) != 2 or rpcs[1] != HONEST or statuses != [200, 200] or exchange.rest:
        return "desync"
    if rpcs[0] == ACCOUNTS:
        return "served"
    first = calls[0]
    content = b"".join(one.content.data for one in first.messages)  # type: ignore[attr-defined]
    if content == gadget.body:
        return "length" if gadget.body else "empty"
    return "chunked" if content == b"hello" else "another body"
