"""Log lines: what they tell of a failure, and what they keep to themselves."""

import json
import subprocess
import sys

# In a process of its own, since logs are configured once for a process.
FAILING = """
import logging
import structlog
from services.runtime import log

def log_in(password):
    raise ValueError("no such account")

log.configure("user")
try:
    log_in("correct horse battery")
except ValueError as error:
    structlog.get_logger().warning("failed", **log.failure(error))
    logging.getLogger("asyncpg").exception("failed")
"""


def test_a_failure_is_logged_with_where_it_is_from_and_without_the_values_of_variables() -> None:
    logged = subprocess.run([sys.executable, "-c", FAILING], check=True, capture_output=True, text=True).stdout
    lines = [json.loads(line) for line in logged.splitlines()]
    assert [line["exception"][0]["frames"][-1]["name"] for line in lines] == ["log_in", "log_in"]
    assert [line["exception"][0]["exc_value"] for line in lines] == ["no such account", "no such account"]
    assert "correct horse battery" not in logged
