"""What the environment says of channels, and how long a delivery waits, without a network."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.protobuf.message import Message
from notification.v1 import notification_pb2, webhook_pb2

from services.notification.delivery.channels import ChannelSettings
from services.notification.delivery.domain import Delivery, Outcome, Refused, TryAgain, backoff, failed
from services.notification.delivery.smtp import Server, server
from services.runtime import config

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("smtp://mail.example", Server("mail.example", 25, tls=False)),
        ("smtp://mail.example:2525/", Server("mail.example", 2525, tls=False)),
        ("smtps://mail.example", Server("mail.example", 465, tls=True)),
        ("smtp://ada:pass@mail.example", Server("mail.example", 587, tls=False, username="ada", password="pass")),
        ("smtps://a%40b:p%3A%2F@[::1]:99", Server("::1", 99, tls=True, username="a@b", password="p:/")),
    ],
)
def test_an_smtp_server_is_read_from_its_url(url: str, there: Server) -> None:
    assert server(url) == there


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SMTP_URL", "smtp://ada:s3cr3t/@mail.example"),
        ("SMTP_URL", "smtp://ada:s3cr3t@mail.example:s3cr3t"),
        ("SMTP_URL", "http://s3cr3t"),
        ("SMTP_FROM", "s3cr3t"),
        ("SMS_URL", "s3cr3t.example"),
        ("PUSH_URL", "ftp://s3cr3t.example"),
    ],
)
def test_a_setting_that_cannot_be_read_is_named_but_not_repeated(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=name) as ended:
        config.load(ChannelSettings, tmp_path)
    assert "s3cr3t" not in str(ended.value)


def test_channels_are_off_unless_the_environment_says_where_they_lead(tmp_path: Path) -> None:
    settings = config.load(ChannelSettings, tmp_path)
    assert (settings.smtp_url.get_secret_value(), settings.sms_url, settings.push_url) == ("", "", "")


def test_a_delivery_waits_longer_each_time_but_never_longer_than_an_hour() -> None:
    for attempts in range(1, 100):
        longest = min(2 ** (attempts - 1), 3600)
        assert longest / 2 <= backoff(attempts) <= longest
    assert len({backoff(5) for _ in range(10)}) > 1, "not all at the same moment"


def delivery(age: timedelta = timedelta()) -> Delivery:
    return Delivery(
        id="dlv_1",
        user_id="usr_1",
        channel="EMAIL",
        event_id="payment.pay_1.1",
        event_type="payment.settled",
        payment_id="pay_1",
        body="You paid.",
        attempts=1,
        create_time=NOW - age,
    )


def test_what_was_refused_or_is_too_old_is_given_up() -> None:
    assert failed(delivery(), Refused("no", 410), NOW) == Outcome("FAILED", 410, "no")
    assert failed(delivery(timedelta(days=3, seconds=1)), TryAgain("later"), NOW) == Outcome("FAILED", 0, "later")
    assert failed(delivery(timedelta(days=2)), TryAgain("later"), NOW).state == "PENDING"


def test_a_receiver_may_ask_for_patience_of_an_hour_at_the_most() -> None:
    assert failed(delivery(), TryAgain("later", 429, 60), NOW).wait == timedelta(minutes=1)
    assert failed(delivery(), TryAgain("later", 429, 1e9), NOW).wait == timedelta(hours=1)


def test_an_error_is_kept_in_short() -> None:
    assert len(failed(delivery(), Refused("x" * 10_000), NOW).error) == 500


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (webhook_pb2.Webhook, "secret"),
        (notification_pb2.Preferences, "phone_number"),
        (notification_pb2.Preferences, "push_token"),
    ],
)
def test_secrets_and_addresses_are_not_for_printing(message: type[Message], field: str) -> None:
    assert message.DESCRIPTOR.fields_by_name[field].GetOptions().debug_redact
