"""Brings a service's database to its newest schema: services/<service>/migrations, run by Alembic.

Usage: python -m services.runtime.migrate <service>, with DATABASE_URL in the environment.
"""

import sys
from pathlib import Path

import sqlalchemy
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import RevisionStep
from alembic.script import ScriptDirectory

from services.runtime import config

_SERVICES = Path(__file__).parent.parent
_LOCK = 0x6D696772  # any number that all replicas share: "migr"


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
        environment.configure(connection=connection, transactional_ddl=True)
        environment.run_migrations()


def _missing(script: ScriptDirectory, revisions: tuple[str, ...]) -> list[RevisionStep]:
    known = {one.revision for one in script.walk_revisions()}
    if unknown := set(revisions) - known:
        print(f"The schema is newer than this version, which has no {', '.join(sorted(unknown))}: it stays.")
        return []
    return script._upgrade_revs("head", revisions)  # type: ignore[arg-type]  # as alembic.command.upgrade does


if __name__ == "__main__":
    upgrade(sys.argv[1], config.load(config.DatabaseSettings).database_url)
