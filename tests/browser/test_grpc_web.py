"""gRPC-Web, as the browser's fetch speaks it."""

import base64

from payment.v1 import payment_pb2

from tests.browser.tab import Tab, token
from tests.edge.people import Json, People, Person


async def call(tab: Tab, rpc: str, who: Person, message: bytes) -> Json:
    """Calls an RPC. Returns what the page may read of the answer."""
    answer: Json = await tab.page.evaluate(
        "([url, token, message]) => call(url, token, message)",
        [f"{tab.edge_url}/{rpc}", token(who), base64.b64encode(message).decode()],
    )
    return answer


async def test_a_page_watches_a_payment_to_its_end(tab: Tab, people: People, payer: Person) -> None:
    payment_id = payer.pay(people.sign_up(), 1).json()["id"]
    request = payment_pb2.WatchPaymentRequest(payment_id=payment_id)
    answer = await call(tab, "payment.v1.PaymentService/WatchPayment", payer, request.SerializeToString())
    *messages, (flags, trailers) = answer["frames"]
    changes = [payment_pb2.PaymentEvent.FromString(base64.b64decode(body)) for _, body in messages]
    assert [(one.payment_id, one.sequence) for one in changes] == [(payment_id, 1), (payment_id, 2)]
    assert (flags, b"grpc-status:0" in base64.b64decode(trailers)) == (128, True)


async def test_a_page_reads_why_a_call_failed(tab: Tab, people: People) -> None:
    request = payment_pb2.GetPaymentRequest(payment_id="pay_none")
    somebody = people.sign_up()
    answer = await call(tab, "payment.v1.PaymentService/GetPayment", somebody, request.SerializeToString())
    said = " ".join(base64.b64decode(body).decode("latin-1") for _, body in answer["frames"]) + str(answer["headers"])
    assert "grpc-status" in said
    assert "There is no payment" in said or "There%20is%20no%20payment" in said
