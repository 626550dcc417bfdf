"""The error tree, and the one shape in which errors leave."""

from google.rpc import error_details_pb2

from services.runtime import status
from services.runtime.errors import (
    Error,
    FieldViolation,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    PreconditionViolation,
    Unavailable,
)


class PaymentNotFound(NotFound):
    message = "There is no payment {payment_id}."


class NotAParty(PermissionDenied):
    message = "No."


def every(cls: type[Error]) -> set[type[Error]]:
    return {cls}.union(*(every(sub) for sub in cls.__subclasses__()))


def test_the_reason_is_the_class_name_in_upper_snake_case() -> None:
    assert (PaymentNotFound.reason, NotAParty.reason) == ("PAYMENT_NOT_FOUND", "NOT_A_PARTY")


def test_every_variable_of_the_message_is_in_the_metadata() -> None:
    proto = status.to_proto(PaymentNotFound(payment_id="pay_1"))
    info = error_details_pb2.ErrorInfo()
    assert proto.message == "There is no payment pay_1."
    assert proto.details[0].Unpack(info)
    assert (info.reason, info.domain, dict(info.metadata)) == (
        "PAYMENT_NOT_FOUND",
        "drawbridge",
        {"payment_id": "pay_1"},
    )


def test_a_bad_request_names_its_fields_in_message_and_details() -> None:
    error = InvalidRequest(FieldViolation("email", "must be an address"), FieldViolation("", "is not UTF-8"))
    proto = status.to_proto(error)
    bad_request = error_details_pb2.BadRequest()
    assert proto.message == "The request is not valid: email must be an address; is not UTF-8."
    assert proto.details[1].Unpack(bad_request)
    assert [one.field for one in bad_request.field_violations] == ["email", ""]


def test_unmet_preconditions_and_the_time_to_wait_are_details() -> None:
    failure, retry = error_details_pb2.PreconditionFailure(), error_details_pb2.RetryInfo()
    unmet = PaymentNotFound(payment_id="p", preconditions=[PreconditionViolation("KYC", "usr_1", "missing")])
    assert status.to_proto(unmet).details[1].Unpack(failure)
    assert failure.violations[0].subject == "usr_1"
    assert status.to_proto(Unavailable()).details[1].Unpack(retry)
    assert retry.retry_delay.seconds == 1


def test_every_error_has_a_code_a_reason_and_a_message_of_one_line() -> None:
    for error in every(Error) - {Error}:
        assert 1 <= error.code <= 16, error
        assert error.reason == error.reason.upper()
        assert "\n" not in error.message


def test_what_came_with_a_request_is_not_repeated_at_any_length() -> None:
    fields = [FieldViolation(f"lines[{place}].description", "x" * 100_000) for place in range(100)]
    for error in (PaymentNotFound(payment_id="\U0001f642" * 900_000), InvalidRequest(*fields)):
        assert status.to_proto(error).ByteSize() < 16 * 1024  # what gRPC takes of headers


def test_of_much_that_is_wrong_some_is_told() -> None:
    error = InvalidRequest(*(FieldViolation(f"lines[{place}]", "is wrong") for place in range(100)))
    assert [one.field for one in error.fields] == [f"lines[{place}]" for place in range(10)]
