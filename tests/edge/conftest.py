"""The whole system on free ports, beside whatever else runs on this machine."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scripts.stack import lifecycle
from scripts.stack.folder import run_folder
from tests.edge.people import People
from tests.edge.stack import Stack
from tests.integration.mailbox import Mailbox
from tests.traffic.mail import mailing


@pytest.fixture(scope="session")
def mails() -> Iterator[Mailbox]:
    """What the stack mails to its users."""
    with mailing() as box:
        yield box


@pytest.fixture(scope="session")
def stack(mails: Mailbox) -> Iterator[Stack]:
    """A native stack with a run folder of its own, from the first test that asks for it to the last."""
    folder = run_folder(Path(tempfile.mkdtemp(prefix="drawbridge-test-")))
    try:
        settings = lifecycle.up(
            folder, edge_port=0, edge_tls_port=0, wishes={"SMTP_URL": f"smtp://127.0.0.1:{mails.port}"}
        )
        yield Stack(settings, **{name.lower(): value for name, value in settings.reach().items()})
    finally:
        lifecycle.clean(folder)


@pytest.fixture(scope="module")
def people(stack: Stack) -> Iterator[People]:
    """Users of the stack."""
    with ExitStack() as clients:
        yield People(stack, clients)
