"""The contract as data: what is read from the descriptor set, and what does not build."""

from pathlib import Path

import pytest
from common.v1 import policy_pb2
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from google.type.money_pb2 import Money
from payment.v1 import payment_pb2

from services.runtime import contract
from services.runtime.contract import ContractError
from services.runtime.errors import InvalidRequest
from services.runtime.validation import require_valid

DESCRIPTORS = Path(__file__).parents[2] / "gen/contract.binpb"


def one_method(tmp_path: Path, options: descriptor_pb2.MethodOptions) -> Path:
    file = descriptor_pb2.FileDescriptorProto(name="x.proto", package="thing.v1")
    file.service.add(name="Things").method.add(
        name="Get", input_type=".thing.v1.A", output_type=".thing.v1.B", options=options
    )
    path = tmp_path / "set.binpb"
    path.write_bytes(descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString())
    return path


def options(http: str = "", **policy: object) -> descriptor_pb2.MethodOptions:
    made = descriptor_pb2.MethodOptions()
    made.Extensions[policy_pb2.policy].MergeFrom(policy_pb2.Policy(**policy))  # type: ignore[arg-type]
    if http:
        made.Extensions[annotations_pb2.http].get = http
    return made


def test_every_method_of_the_contract_can_be_called_by_somebody() -> None:
    methods = contract.load(DESCRIPTORS)
    assert "/payment.v1.PaymentService/CreatePayment" in methods
    assert all(method.callers for method in methods.values())


def test_all_that_is_got_and_is_no_stream_is_counted_as_read() -> None:
    got = [
        method
        for method in contract.load(DESCRIPTORS).values()
        if {binding.verb for binding in method.bindings} == {"GET"} and not method.server_streaming
    ]
    assert len(got) > 10
    assert {method.rate_class for method in got} == {"read"}


def test_a_method_without_a_policy_does_not_build(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="has no"):
        contract.load(one_method(tmp_path, descriptor_pb2.MethodOptions()))


def test_a_method_that_nobody_may_call_does_not_build(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="called by nobody"):
        contract.load(one_method(tmp_path, options(idempotency_key=True)))


def test_a_path_on_an_internal_method_does_not_build(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="nobody from outside"):
        contract.load(one_method(tmp_path, options("/api/v1/things", callers=["payment"])))


def test_roles_without_a_token_do_not_build(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="not for a token"):
        contract.load(one_method(tmp_path, options(access=policy_pb2.ACCESS_PUBLIC, roles=["admin"])))


def test_the_edge_may_call_what_is_open_to_the_outside_and_nothing_else(tmp_path: Path) -> None:
    [public] = contract.load(one_method(tmp_path, options(access=policy_pb2.ACCESS_PUBLIC))).values()
    assert public.callers == {contract.EDGE}
    [internal] = contract.load(one_method(tmp_path, options(callers=["payment"]))).values()
    assert internal.callers == {"payment"}


def test_a_method_has_five_seconds_unless_its_policy_says_otherwise(tmp_path: Path) -> None:
    [method] = contract.load(one_method(tmp_path, options(callers=["a"]))).values()
    assert method.deadline == 5
    [method] = contract.load(one_method(tmp_path, options(callers=["a"], deadline={"seconds": 30}))).values()
    assert method.deadline == 30


@pytest.mark.parametrize(
    ("currency_code", "units", "nanos"), [("EUR", -1, 0), ("EUR", 0, -1), ("EUR", 0, 10**9), ("", 1, 0), ("euro", 1, 0)]
)
def test_an_event_with_money_that_is_none_is_invalid(currency_code: str, units: int, nanos: int) -> None:
    event = payment_pb2.PaymentEvent(payment_id="pay_1", sequence=1, payer_id="usr_1", payee_id="usr_2")
    event.state = payment_pb2.Payment.SETTLED
    event.create_time.GetCurrentTime()
    event.amount.MergeFrom(Money(currency_code="EUR", units=1))
    require_valid(event)
    event.amount.CopyFrom(Money(currency_code=currency_code, units=units, nanos=nanos))
    with pytest.raises(InvalidRequest, match="amount"):
        require_valid(event)
