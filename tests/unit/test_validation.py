"""What is refused of every request, whoever serves it."""

import pytest
from document.v1 import document_pb2
from google.api import httpbody_pb2
from google.protobuf.message import Message
from google.type import money_pb2
from notification.v1 import webhook_pb2
from payment.v1 import invoice_pb2, payment_pb2
from user.v1 import user_pb2

from services.runtime.errors import InvalidRequest
from services.runtime.validation import require_plain_text, require_valid


def refused(message: Message) -> list[str]:
    """The fields that are not plain text."""
    try:
        require_plain_text(message)
    except InvalidRequest as error:
        return [one.field for one in error.fields]
    return []


@pytest.mark.parametrize(
    "character", ["\0", "\x01", "\x08", "\x0b", "\x1b", "\x7f", "\x85", "\x9b", "\ufffe", "\uffff"]
)
def test_no_text_has_control_characters(character: str) -> None:
    assert refused(payment_pb2.CreatePaymentRequest(description=f"a{character}b")) == ["description"]


@pytest.mark.parametrize(
    "text", ["", "two\nlines\r\n\tand a tab", "Zoë 日本 🙂", "\u200b\u202e\u2028\xa0\ue000", "e\u0301"], ids=ascii
)
def test_any_other_text_is_plain(text: str) -> None:
    assert refused(payment_pb2.CreatePaymentRequest(description=text)) == []


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (user_pb2.CreateSessionRequest(email="a@example.com", password="correct\x00horse"), "password"),
        (user_pb2.UpdateUserRequest(user=user_pb2.User(display_name="A\x07")), "user.displayName"),
        (payment_pb2.CreatePaymentRequest(amount=money_pb2.Money(currency_code="EU\x01")), "amount.currencyCode"),
        (user_pb2.UpdateUserRequest(user=user_pb2.User(roles=["customer", "ad\x00min"])), "user.roles[1]"),
        (
            invoice_pb2.CreateInvoiceRequest(
                lines=[invoice_pb2.InvoiceLine(), invoice_pb2.InvoiceLine(unit_amount={"currency_code": "\x02"})]
            ),
            "lines[1].unitAmount.currencyCode",
        ),
        (webhook_pb2.CreateWebhookRequest(event_types=["\x9b"]), "eventTypes[0]"),
    ],
)
def test_text_is_found_however_deep(message: Message, field: str) -> None:
    assert refused(message) == [field]


def test_every_text_that_is_not_plain_is_named() -> None:
    assert refused(payment_pb2.CreatePaymentRequest(payee_id="\x01", description="\x02")) == ["payeeId", "description"]


def test_the_bytes_of_a_file_are_no_text() -> None:
    content = httpbody_pb2.HttpBody(content_type="image/png", data=b"\x89PNG\r\n\x1a\n\x00")
    assert refused(document_pb2.UploadDocumentRequest(content=content)) == []


def test_a_broken_rule_names_the_item_that_breaks_it() -> None:
    money = money_pb2.Money(currency_code="EUR", units=1)
    lines = [invoice_pb2.InvoiceLine(description=text, unit_amount=money) for text in ("one", "", "three")]
    request = invoice_pb2.CreateInvoiceRequest(payer_id="usr_1", due_date={"year": 2030}, lines=lines)
    with pytest.raises(InvalidRequest) as error:
        require_valid(request)
    assert [one.field for one in error.value.fields] == ["lines[1].description"]
