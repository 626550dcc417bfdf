"""Signatures, as another implementation of Standard Webhooks verifies them."""

import base64
import time

import pytest
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from services.notification.webhooks import signature

BODY = '{"type":"payment.settled","data":{"description":"Grüße"}}'.encode()


def now() -> int:
    return int(time.time())


def test_a_signature_is_that_of_the_specification() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signature.headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}', [key])
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_whoever_has_one_of_the_secrets_can_verify() -> None:
    newest, older, other = (signature.new_secret() for _ in range(3))
    headers = signature.headers("dlv_1", now(), BODY, [newest, older])
    for secret in (newest, older):
        assert Verifier(signature.written(secret)).verify(BODY, headers)["type"] == "payment.settled"
    with pytest.raises(WebhookVerificationError):
        Verifier(signature.written(other)).verify(BODY, headers)


def test_what_was_changed_or_is_old_does_not_verify() -> None:
    secret = signature.new_secret()
    verifier = Verifier(signature.written(secret))
    good = signature.headers("dlv_1", now(), BODY, [secret])
    for headers, body in (
        (good, BODY + b" "),
        ({**good, "webhook-id": "dlv_2"}, BODY),
        ({**good, "webhook-timestamp": str(now() - 1)}, BODY),
        (signature.headers("dlv_1", now() - 3600, BODY, [secret]), BODY),
    ):
        with pytest.raises(WebhookVerificationError):
            verifier.verify(body, headers)


def test_secrets_are_32_random_bytes() -> None:
    secret, other = signature.new_secret(), signature.new_secret()
    assert len(secret) == 32 and secret != other
    assert signature.written(secret).startswith("whsec_")
    assert base64.b64decode(signature.written(secret).removeprefix("whsec_")) == secret
