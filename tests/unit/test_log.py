"""Log lines: what they tell of a failure, and what they keep to themselves."""

import asyncio
import json
import subprocess
import sys
from typing import Any

import asyncpg
import grpc
import nats.errors
import obstore.exceptions
import pytest

from services.runtime import log
from services.runtime.errors import NotFound, Unavailable


class PaymentNotFound(NotFound):
    """As any service has it."""

    message = "There is no payment {payment_id}."


# In a process of its own, since logs are configured once for a process.
BEGINNING = """
import asyncio, gc, logging
import structlog
from services.runtime import log

def log_in(password):
    raise ValueError(f"wrong: {password}")

async def forget():
    await asyncio.wait([asyncio.get_running_loop().create_task(asyncio.to_thread(log_in, "correct horse battery"))])
    gc.collect()

log.configure("user")
"""
CAUGHT = """
try:
    log_in("correct horse battery")
except ValueError as error:
    structlog.get_logger().warning("failed", **log.failure(error))
    logging.getLogger("asyncpg").exception("failed")
"""
GROUP = """
try:
    try:
        log_in("correct horse battery")
    except ValueError as error:
        error.add_note("correct horse battery")
        raise ExceptionGroup("correct horse battery", [error]) from error
except ExceptionGroup as group:
    structlog.get_logger().warning("failed", **log.failure(group))
"""
FORGOTTEN = "asyncio.run(forget())"
CRASHING = "log_in('correct horse battery')"


def lines(script: str, status: int = 0) -> list[dict[str, Any]]:
    """What a process logs, on standard output and anywhere else. It never says the password."""
    done = subprocess.run([sys.executable, "-c", BEGINNING + script], check=False, capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    assert done.stderr == ""
    assert "correct horse" not in done.stdout
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_failure_is_logged_with_where_it_is_from_and_without_what_it_says() -> None:
    logged = lines(CAUGHT)
    assert [line["exception"][0]["frames"][-1]["name"] for line in logged] == ["log_in", "log_in"]
    assert [line["error"] for line in logged] == ["ValueError", "ValueError"]


def test_so_are_failures_in_groups() -> None:
    [line] = lines(GROUP)
    assert (line["error"], line["cause"]) == ("ExceptionGroup", "ValueError")
    assert line["exception"][0]["exceptions"][0][0]["exc_type"] == "ValueError"


def test_so_is_what_a_task_failed_of_that_nobody_waited_for() -> None:
    [line] = lines(FORGOTTEN)
    assert (line["event"], line["error"]) == ("Task exception was never retrieved", "ValueError")
    assert line["exception"][0]["frames"][-1]["name"] == "log_in"


def test_so_is_what_ends_the_process() -> None:
    [line] = lines(CRASHING, status=1)
    assert (line["event"], line["error"]) == ("crashed", "ValueError")


def unique(email: str) -> asyncpg.PostgresError:
    fields = {"S": "ERROR", "C": "23505", "M": "duplicate key", "D": f"Key (email)=({email})", "n": "users_email"}
    return asyncpg.PostgresError.new(fields)


def of_grpc(details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PaymentNotFound(payment_id="pay_1"), "PaymentNotFound: There is no payment pay_1."),
        (ConnectionRefusedError(111, "Connection refused"), "ConnectionRefusedError: [Errno 111] Connection refused"),
        (unique("ada@example.com"), "UniqueViolationError: 23505 users_email"),
        (asyncpg.PostgresError.new({"C": "57P01", "M": "going down"}), "AdminShutdownError: 57P01: going down"),
        (asyncpg.InterfaceError("connection is closed"), "InterfaceError: connection is closed"),
        (asyncpg.exceptions._base.DataError("invalid argument $1: 'ada'"), "DataError"),
        (of_grpc("no connection"), "AioRpcError: UNAVAILABLE: no connection"),
        (nats.errors.TimeoutError(), "TimeoutError: nats: timeout"),
        (obstore.exceptions.GenericError("403: <Error>a secret</Error>"), "GenericError: 403: "),
        (ValueError("ada"), "ValueError"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_the_text_of_an_exception_is_told_where_it_quotes_nothing_that_somebody_sent(
    error: BaseException, said: str
) -> None:
    assert log.brief(error) == said


def test_a_cause_is_told_likewise() -> None:
    failed = Unavailable()
    failed.__cause__ = unique("ada@example.com")
    assert log.failure(failed)["cause"] == "UniqueViolationError: 23505 users_email"
