"""All SQL of compliance."""

from collections.abc import Sequence

import asyncpg

from services.compliance.domain import Amount, Decision, Listed, Profile, Verdict
from services.runtime.postgres import Connection, Database

_LOAD_LOCK = 0x73646E  # any number that all replicas share: "sdn"

_PUT_PROFILE = """
    INSERT INTO profiles (user_id, sequence, display_name, country, date_of_birth, create_time, update_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (user_id) DO UPDATE SET sequence = excluded.sequence, display_name = excluded.display_name,
        country = excluded.country, date_of_birth = excluded.date_of_birth, update_time = excluded.update_time
    WHERE profiles.sequence < excluded.sequence"""
_FIND_PROFILE = """
    SELECT user_id, sequence, display_name, country, date_of_birth, create_time, update_time
    FROM profiles WHERE user_id = $1"""

_LIST_IN_FORCE = "SELECT sha256 FROM sanctions_list"
_PUT_LIST = "INSERT INTO sanctions_list (sha256) VALUES ($1)"
_ENTRIES = "SELECT number, name, kind, program, remarks FROM sanctions_entries"

# Of two verdicts it keeps the one that fits the payer's velocity, so that counting and recording are one round trip.
_RECORD = """
    WITH latest AS (
        SELECT FROM screenings WHERE payer_id = $2 AND create_time > now() - interval '1 hour' LIMIT $5
    )
    INSERT INTO screenings (payment_id, payer_id, currency_code, amount, decision, score, reasons)
    SELECT $1, $2, $3, $4, decision, score, reasons
    FROM (VALUES (false, $6, $7::integer, $8::text[]), (true, $9, $10, $11)) AS verdict (over, decision, score, reasons)
    WHERE over = ((SELECT count(*) FROM latest) >= $5)
    ON CONFLICT (payment_id) DO NOTHING
    RETURNING decision, score, reasons"""
_RECORDED = "SELECT decision, score, reasons FROM screenings WHERE payment_id = $1"


class Profiles:
    """What KYC knows about users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def put(self, connection: Connection, profile: Profile) -> None:
        """Keeps a profile, unless a newer one is kept already."""
        await connection.execute(
            _PUT_PROFILE,
            profile.user_id,
            profile.sequence,
            profile.display_name,
            profile.country,
            profile.date_of_birth,
            profile.create_time,
            profile.update_time,
        )

    async def find(self, user_id: str) -> Profile | None:
        """Returns a user's profile, if there is one yet."""
        row = await self._database.fetchrow(_FIND_PROFILE, user_id)
        return Profile(**row) if row else None


class SanctionsList:
    """The sanctions list in force, the same for all replicas."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def sha256(self) -> bytes | None:
        """Returns the hash of the file it came from; None before the first."""
        row = await self._database.fetchrow(_LIST_IN_FORCE)
        return row["sha256"] if row else None

    async def replace(self, sha256: bytes, entries: Sequence[Listed]) -> None:
        """Puts another list in force, whole or not at all. When several replicas do, one does the work."""
        async with self._database.transaction() as connection:
            await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOAD_LOCK)
            if await connection.fetchval(_LIST_IN_FORCE) == sha256:
                return
            await connection.execute("DELETE FROM sanctions_list; DELETE FROM sanctions_entries")
            await connection.execute(_PUT_LIST, sha256)
            await connection.copy_records_to_table(
                "sanctions_entries",
                columns=("number", "name", "kind", "program", "remarks"),
                records=[(one.number, one.name, one.kind, one.program, one.remarks) for one in entries],
            )

    async def entries(self) -> list[Listed]:
        """Returns the whole list."""
        return [Listed(**row) for row in await self._database.fetch(_ENTRIES)]


class Screenings:
    """What was decided about payments."""

    def __init__(self, database: Database, velocity_limit: int) -> None:
        self._database = database
        self._velocity_limit = velocity_limit

    async def record(
        self, payment_id: str, payer_id: str, amount: Amount, verdict: Verdict, verdict_over_velocity: Verdict
    ) -> Verdict:
        """Records and returns the second verdict where the payer has reached the hour's limit, else the first.

        A payment that was screened before keeps its verdict. Screenings at the same moment do not count each other.
        """
        rows = await self._database.fetch(
            _RECORD,
            payment_id,
            payer_id,
            amount.currency_code,
            amount.value,
            self._velocity_limit,
            *_columns(verdict),
            *_columns(verdict_over_velocity),
        )
        [row] = rows or await self._database.fetch(_RECORDED, payment_id)
        return _verdict(row)


def _columns(verdict: Verdict) -> tuple[str, int, tuple[str, ...]]:
    return verdict.decision.name, verdict.score, verdict.reasons


def _verdict(row: asyncpg.Record) -> Verdict:
    return Verdict(Decision[row["decision"]], row["score"], tuple(row["reasons"]))
