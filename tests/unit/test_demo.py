"""The demo finds its way into any system."""

import re

from scripts import demo
from scripts.stack.folder import REPOSITORY


def test_without_being_told_the_demo_knows_the_administrator_of_compose() -> None:
    text = (REPOSITORY / "docker-compose.yml").read_text()
    assert dict(re.findall(r"\$\{(ADMIN_\w+):-([^}]+)\}", text)) == demo.COMPOSE_ADMIN
