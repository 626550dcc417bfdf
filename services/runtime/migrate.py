"""Brings a service's database to its newest schema: services/<service>/migrations, run by Alembic.

Usage: python -m services.runtime.migrate <service>, with DATABASE_URL in the environment.
"""

import sys
import time
from pathlib import Path

import sqlalchemy
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import RevisionStep
from alembic.script import ScriptDirectory

from services.runtime import config, log

_SERVICES = Path(__file__).parent.parent
_LOCK = 0x6D696772  # any number that all replicas share: "migr"
PATIENCE_SECONDS = 300.0
_RETRY_SECONDS = 1.0


def upgrade(service: str, database_url: str) -> None:
    """Applies what is missing, in one transaction. Safe to run again, and by several replicas at once.

    A schema that is newer than this version stays as it is: it was made to fit the version before it, too.
    """
    script = ScriptDirectory(str(_SERVICES / "runtime"), version_locations=[str(_SERVICES / service / "migrations")])
    url = database_url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with (
        engine.begin() as connection,
        EnvironmentContext(
            Config(),
            script,
            fn=lambda revisions, _: _missing(script, revisions),
        ) as environment,
    ):
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        # Whoever waits for a table holds up all that come behind.
        connection.execute(sqlalchemy.text("SET LOCAL lock_timeout = '3s'"))
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()


def _missing(script: ScriptDirectory, revisions: tuple[str, ...]) -> list[RevisionStep]:
    known = {one.revision for one in script.walk_revisions()}
    if unknown := set(revisions) - known:
        print(f"The schema is newer than this version, which has no {', '.join(sorted(unknown))}: it stays.")
        return []
    return script._upgrade_revs("head", revisions)  # type: ignore[arg-type]  # as alembic.command.upgrade does


def upgrade_patiently(service: str, database_url: str, patience: float = PATIENCE_SECONDS) -> None:
    """Does so as soon as Postgres answers and its tables are free, which it waits for (seconds) before it raises."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return upgrade(service, database_url)
        except sqlalchemy.exc.OperationalError as error:
            if time.monotonic() > deadline:
                raise
            print(f"migrate: waiting: {error.orig}", file=sys.stderr, flush=True)
        time.sleep(_RETRY_SECONDS)


if __name__ == "__main__":
    log.configure(sys.argv[1])
    upgrade_patiently(sys.argv[1], config.load(config.DatabaseSettings).database_url)
