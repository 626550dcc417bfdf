"""What authz takes of queries and JSON: as much as the contract says, and nothing that can be read in two ways."""

from pathlib import Path

import pytest
from ext_authz import external_auth_pb2

from authz.requests import Requests, UnsupportedMediaType
from services.runtime import contract
from services.runtime.errors import InvalidRequest
from tests.hostile import BODIES, CONTENT_TYPES, QUERIES

CONTRACT = Path("gen/contract.binpb")
METHODS = contract.load(CONTRACT)
REQUESTS = Requests(CONTRACT, METHODS)

CREATE_PAYMENT = "/payment.v1.PaymentService/CreatePayment"
CANCEL = "/payment.v1.PaymentService/CancelPayment"
CREATE_INVOICE = "/payment.v1.InvoiceService/CreateInvoice"
CREATE_USER = "/user.v1.UserService/CreateUser"
CREATE_API_KEY = "/user.v1.ApiKeyService/CreateApiKey"
UPDATE_USER = "/user.v1.UserService/UpdateUser"
PREFERENCES = "/notification.v1.NotificationService/UpdatePreferences"
LIST_NOTIFICATIONS = "/notification.v1.NotificationService/ListNotifications"
LIST_INVOICES = "/payment.v1.InvoiceService/ListInvoices"
LIST_AUDIT = "/compliance.v1.AuditService/ListAuditEntries"
DELETE_DOCUMENT = "/document.v1.DocumentService/DeleteDocument"
STREAM = "/payment.v1.PaymentService/StreamPaymentStatus"
UPLOAD = "/document.v1.DocumentService/UploadDocument"

Violations = list[tuple[str, str]]


def refused(rpc: str, body: bytes = b"", query: str = "", *content_types: str) -> Violations:
    """What is wrong with a request: fields and descriptions."""
    http = external_auth_pb2.AttributeContext.HttpRequest(path=f"/x?{query}" if query else "/x", raw_body=body)
    for content_type in content_types or ("application/json",):
        http.header_map.headers.add(key="content-type", raw_value=content_type.encode())
    method = METHODS[rpc]
    body_field = None if method.client_streaming else method.bindings[0].body
    try:
        REQUESTS.require_strict(method, body_field, http)
    except InvalidRequest as error:
        return [(one.field, one.description) for one in error.fields]
    return []


@pytest.mark.parametrize(
    ("rpc", "body"),
    [
        (CREATE_PAYMENT, b'{"payeeId": "usr_1", "amount": {"currencyCode": "EUR", "units": "1"}, "description": "x"}'),
        (CREATE_PAYMENT, b'{"payee_id": "usr_1", "amount": {"currency_code": "EUR", "units": 1, "nanos": "5"}}'),
        (CREATE_PAYMENT, b' \r\n\t{ "payeeId" :"\\u00e9\\ud83d\\ude42" } \n'),
        (CREATE_PAYMENT, b'{"amount": {"units": -9223372036854775808, "nanos": 1e3}}'),
        (CREATE_PAYMENT, b'{"amount": {"units": "9223372036854775807", "nanos": 1.0}}'),
        (CREATE_PAYMENT, b'{"payeeId": null, "amount": null}'),
        (CREATE_PAYMENT, '{"description": "Zoë \u2028 日本"}'.encode()),
        (CREATE_INVOICE, b'{"lines": [], "dueDate": {"year": 2030}}'),
        (CREATE_INVOICE, b'{"lines": [{"description": "a, [b] {c}", "quantity": 2}, {}]}'),
        (CREATE_API_KEY, b'{"displayName": "x", "roles": ["customer"], "expireTime": "2030-01-01T00:00:00Z"}'),
        (UPDATE_USER, b'{"state": "SUSPENDED", "roles": [], "displayName": "x"}'),
        (UPDATE_USER, b'{"state": 1}'),
        (UPDATE_USER, b"{}"),
        (PREFERENCES, b'{"inApp": true, "email": false, "sms": null}'),
        (CANCEL, b""),
        (CANCEL, b"{}"),
        (CANCEL, b'{"etag": "x"}'),
        (CREATE_INVOICE, b'{"lines": [' + b",".join([b'{"description": "' + b"," * 500 + b'"}'] * 30) + b"]}"),
    ],
)
def test_what_the_contract_describes_passes(rpc: str, body: bytes) -> None:
    assert refused(rpc, body) == []


@pytest.mark.parametrize(
    ("rpc", "body", "field", "description"),
    [
        (CREATE_PAYMENT, b'{"amout": {}}', "amout", "is not known"),
        (CREATE_PAYMENT, b'{"PayeeId": "x"}', "PayeeId", "is not known"),
        (CREATE_PAYMENT, b'{"amount": {"unit": 1}}', "amount.unit", "is not known"),
        (CREATE_INVOICE, b'{"lines": [{}, {"unitAmount": {"x": 1}}]}', "lines[1].unitAmount.x", "is not known"),
        (UPDATE_USER, b'{"isAdmin": true}', "user.isAdmin", "is not known"),
        (UPDATE_USER, b'{"user": {"displayName": "x"}}', "user.user", "is not known"),
        (CANCEL, b'{"paymentId": "pay_2"}', "paymentId", "is not to be given here"),
        (CANCEL, b'{"payment_id": "pay_2"}', "payment_id", "is not to be given here"),
        (CREATE_PAYMENT, b'{"payeeId": "a", "payeeId": "a"}', "payeeId", "is given twice"),
        (CREATE_PAYMENT, b'{"amount": {"units": 1, "nanos": 0, "units": 2}}', "amount.units", "is given twice"),
        (CREATE_PAYMENT, b'{"payeeId": "a", "payee_id": "b"}', "payeeId", "is given twice"),
        (CREATE_PAYMENT, b'{"payeeId": "a", "payee\\u0049d": "b"}', "payeeId", "is given twice"),
        (CREATE_PAYMENT, b'{"payeeId": 1}', "payeeId", "must be text"),
        (CREATE_PAYMENT, b'{"payeeId": true}', "payeeId", "must be text"),
        (CREATE_PAYMENT, b'{"payeeId": ["a"]}', "payeeId", "must be text"),
        (CREATE_PAYMENT, b'{"payeeId": {"a": 1, "a": 2}}', "payeeId", "must be text"),
        (CREATE_PAYMENT, b'{"payeeId": "\\ud800"}', "payeeId", "must be text"),
        (CREATE_PAYMENT, b'{"payeeId": "\\ude00\\ud83d"}', "payeeId", "must be text"),
        (CREATE_PAYMENT, b'{"amount": 5}', "amount", "must be an object"),
        (CREATE_PAYMENT, b'{"amount": []}', "amount", "must be an object"),
        (CREATE_PAYMENT, b'{"amount": "5 EUR"}', "amount", "must be an object"),
        *(
            (CREATE_PAYMENT, b'{"amount": {"nanos": %s}}' % value, "amount.nanos", "must be a whole number from")
            for value in [
                *(b"1.5", b"1e-1", b"1e10", b"1e400", b"2147483648", b"-2147483649", b"true", b"[1]", b"{}"),
                *(b'""', b'" 1"', b'"1 "', b'"+1"', b'"01"', b'"0x1"', b'"1.0"', b'"1e3"', b'"1,000"', b'"\xd9\xa1"'),
                *(b'"2147483648"', b'"NaN"', b'"' + b"9" * 5000 + b'"'),
            ]
        ),
        (CREATE_PAYMENT, b'{"amount": {"units": 9223372036854775808}}', "amount.units", "must be a whole number from"),
        (CREATE_PAYMENT, b'{"amount": {"units": "-9223372036854775809"}}', "amount.units", "must be a whole number"),
        *(
            (PREFERENCES, b'{"inApp": %s}' % value, "preferences.inApp", "must be true or false")
            for value in (b'"true"', b'"yes"', b'"1"', b"1", b"0", b'""', b"[true]", b"{}")
        ),
        *(
            (UPDATE_USER, b'{"state": %s}' % value, "user.state", "must be one of the contract's words")
            for value in (b'"TIRED"', b'"active"', b'"1"', b"77", b"-1", b"1.0", b"true", b'""', b"[]", b"{}")
        ),
        (UPDATE_USER, b'{"roles": "admin"}', "user.roles", "must be an array"),
        (UPDATE_USER, b'{"roles": {"0": "admin"}}', "user.roles", "must be an array"),
        (UPDATE_USER, b'{"roles": ["a", null]}', "user.roles[1]", "must be text"),
        (UPDATE_USER, b'{"roles": [["admin"]]}', "user.roles[0]", "must be text"),
        (UPDATE_USER, b'{"dateOfBirth": "1985-12-10"}', "user.dateOfBirth", "must be an object"),
        (CREATE_INVOICE, b'{"lines": {}}', "lines", "must be an array"),
        (CREATE_INVOICE, b'{"lines": [null]}', "lines[0]", "must be an object"),
        (CREATE_API_KEY, b'{"expireTime": {"seconds": 5}}', "expireTime", "must be a time as in 2026-01-31T12:00:00Z"),
        (CREATE_API_KEY, b'{"expireTime": 1893456000}', "expireTime", "must be a time as in 2026-01-31T12:00:00Z"),
        (CREATE_API_KEY, b'{"expireTime": "soon"}', "expireTime", "must be a time as in 2026-01-31T12:00:00Z"),
        (CREATE_PAYMENT, b"[]", "", "the body must be a JSON object"),
        (CREATE_PAYMENT, b"null", "", "the body must be a JSON object"),
        (CANCEL, b"null", "", "the body must be a JSON object"),
        (UPDATE_USER, b"null", "user", "must be an object"),
        (CREATE_PAYMENT, b'{"payeeId":\n "x",}', "", "the body is not JSON (line 2, column 6)"),
        (CREATE_PAYMENT, b'{"payeeId": "\xff"}', "", "the body is not UTF-8"),
        (CREATE_PAYMENT, b'{"amount": {"units": ' + b"9" * 4000 + b"}}", "", "a number that is none, or too long"),
        (CREATE_PAYMENT, b'{"a":' * 1500, "", "the body is"),
        (CREATE_USER, b"", "email", "is required"),
        (UPDATE_USER, b"", "user", "is required"),
        (DELETE_DOCUMENT, b"{}", "", "this takes no body"),
        (LIST_NOTIFICATIONS, b'{"pageSize": 3}', "", "this takes no body"),
        (STREAM, b" ", "", "this takes no body"),
    ],
)
def test_anything_else_is_refused_where_it_is_wrong(rpc: str, body: bytes, field: str, description: str) -> None:
    name, why = refused(rpc, body)[0]
    assert name == field
    assert description in why


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("rpc", [CREATE_PAYMENT, CANCEL, UPDATE_USER, DELETE_DOCUMENT])
def test_no_method_takes_what_is_hostile(rpc: str, body: bytes) -> None:
    if len(body) <= 256 * 1024:  # the edge shows no more
        assert refused(rpc, body)


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("rpc", [CREATE_PAYMENT, UPDATE_USER, LIST_NOTIFICATIONS, STREAM])
def test_nor_such_queries(rpc: str, query: str) -> None:
    assert refused(rpc, b'{"etag": ""}' if rpc == UPDATE_USER else b"", query)


@pytest.mark.parametrize("content_type", CONTENT_TYPES)
def test_only_json_is_json(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType) as error:
        refused(CREATE_PAYMENT, b"{}", "", content_type)
    assert [one.field for one in error.value.fields] == ["Content-Type"]
    assert error.value.http_status == 415


def test_two_content_types_are_none() -> None:
    with pytest.raises(UnsupportedMediaType):
        refused(CREATE_PAYMENT, b"{}", "", "application/json", "application/json")


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json;charset=UTF-8", 'application/json ; charset="utf-8"'],
)
def test_json_is_json_however_it_is_spelled(content_type: str) -> None:
    assert refused(CREATE_PAYMENT, b'{"description": ""}', "", content_type) == []


def test_without_a_body_its_type_does_not_matter() -> None:
    assert refused(CANCEL, b"", "", "text/plain") == []


@pytest.mark.parametrize(
    ("rpc", "query"),
    [
        (LIST_NOTIFICATIONS, "pageSize=50&pageToken=a%2Bb+c%3D&unreadOnly=true"),
        (LIST_NOTIFICATIONS, "page_size=0&unread_only=false&pageToken="),
        (LIST_NOTIFICATIONS, "&&pageSize=5&"),
        (LIST_INVOICES, "state=OPEN"),
        (LIST_INVOICES, "state=1"),
        (LIST_AUDIT, "startTime=2026-01-01T00:00:00Z&end_time=2027-01-01T00:00:00Z&actorId=usr_1"),
        (UPDATE_USER, "updateMask=displayName,address"),
        (UPDATE_USER, "updateMask=displayName&updateMask=address"),
        (STREAM, "afterSequence=3&access_token=x"),
    ],
)
def test_a_query_that_the_contract_describes_passes(rpc: str, query: str) -> None:
    assert refused(rpc, b'{"etag": ""}' if rpc == UPDATE_USER else b"", query) == []


@pytest.mark.parametrize(
    ("rpc", "query", "field", "description"),
    [
        *((LIST_NOTIFICATIONS, f"unreadOnly={text}", "unreadOnly", "must be true or false")
          for text in ("yes", "1", "TRUE", "t", "0", "", "True", "%74rue%20", "true,true")),
        (LIST_NOTIFICATIONS, "unreadOnly", "unreadOnly", "must be true or false"),
        (LIST_NOTIFICATIONS, "pageSize=1&pageSize=1", "pageSize", "is given twice"),
        (LIST_NOTIFICATIONS, "pageSize=1&page_size=2", "pageSize", "is given twice"),
        (LIST_NOTIFICATIONS, "pageSize=1&page%53ize=2", "pageSize", "is given twice"),
        (LIST_NOTIFICATIONS, "pageSize=010", "pageSize", "must be a whole number"),
        (LIST_NOTIFICATIONS, "pageSize=many", "pageSize", "must be a whole number"),
        (LIST_NOTIFICATIONS, "pageSize=2147483648", "pageSize", "must be a whole number"),
        (LIST_NOTIFICATIONS, "pageToken=%ff", "", "the query is not UTF-8"),
        (LIST_NOTIFICATIONS, "pageToken=%ed%a0%80", "", "the query is not UTF-8"),
        (LIST_NOTIFICATIONS, "colour=red", "colour", "is not known"),
        (LIST_NOTIFICATIONS, "access_token=x", "access_token", "is not known"),
        (LIST_INVOICES, "state=open", "state", "must be one of"),
        (LIST_INVOICES, "state=77", "state", "must be one of"),
        (LIST_INVOICES, "state=OPEN&state=PAID", "state", "is given twice"),
        (LIST_AUDIT, "startTime=x", "startTime", "must be a time as in 2026-01-31T12:00:00Z"),
        (LIST_AUDIT, "startTime=2026-01-01T00:00:00.1e999Z", "startTime", "must be a time"),
        (LIST_AUDIT, "startTime=2026-13-01T00:00:00Z", "startTime", "must be a time"),
        (LIST_AUDIT, "endTime=2026-01-01", "endTime", "must be a time"),
        (LIST_AUDIT, "startTime.seconds=1", "startTime.seconds", "is not known"),
        (CREATE_PAYMENT, "payeeId=usr_9", "payeeId", "is not to be given here"),
        (CREATE_PAYMENT, "amount.units=9", "amount.units", "is not to be given here"),
        (CANCEL, "paymentId=pay_2", "paymentId", "is not to be given here"),
        (CANCEL, "payment_id=pay_2", "payment_id", "is not to be given here"),
        (STREAM, "paymentId=pay_2", "paymentId", "is not to be given here"),
        (UPDATE_USER, "user.displayName=x", "user.displayName", "is not to be given here"),
        (UPDATE_USER, "userId=usr_2", "userId", "is not to be given here"),
    ],
)  # fmt: skip
def test_any_other_query_is_refused(rpc: str, query: str, field: str, description: str) -> None:
    violations = refused(rpc, b'{"etag": ""}' if rpc in (UPDATE_USER, CREATE_PAYMENT) else b"", query)
    assert (field, True) in [(name, why.startswith(description)) for name, why in violations]


def test_a_refusal_says_no_more_than_ten_things() -> None:
    body = b"{" + b",".join(b'"a%d": 1' % number for number in range(1000)) + b"}"
    assert len(refused(CREATE_PAYMENT, body)) == 10


def test_what_is_repeated_to_strangers_is_short_and_plain() -> None:
    [(field, _)] = refused(CREATE_PAYMENT, b'{"' + b"a" * 1000 + b'": 1}')
    assert field == "a" * 64
    [(field, _)] = refused(CREATE_PAYMENT, b'{"\\ud800\\u0000\\u202e<": 1}')
    assert field == "???<"


def test_of_grpc_clients_and_uploads_the_body_is_not_read() -> None:
    http = external_auth_pb2.AttributeContext.HttpRequest(path=CREATE_PAYMENT, raw_body=b"rubbish")
    REQUESTS.require_strict(METHODS[CREATE_PAYMENT], None, http)
    assert refused(UPLOAD, b"--x--", "", "multipart/form-data; boundary=x") == []


def test_nor_do_they_have_a_query() -> None:
    assert refused(UPLOAD, b"", "kind=PASSPORT") == [("kind", "is not known")]
    assert refused(UPLOAD, b"", "content.data=AAAA") == [("content.data", "is not known")]
    http = external_auth_pb2.AttributeContext.HttpRequest(path=f"{CREATE_PAYMENT}?payeeId=x")
    with pytest.raises(InvalidRequest):
        REQUESTS.require_strict(METHODS[CREATE_PAYMENT], None, http)


@pytest.mark.parametrize("name", ["many empty objects", "many empty texts", "many members"])
def test_a_body_that_would_take_long_to_read_is_not_read(name: str) -> None:
    assert refused(CREATE_INVOICE, BODIES[name]) == [("", "the body has too many values")]
