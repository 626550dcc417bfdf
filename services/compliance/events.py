"""What compliance hears of users."""

from datetime import UTC, date

from google.type.date_pb2 import Date
from user.v1 import user_pb2

from services.compliance.domain import Profile
from services.compliance.store import Profiles
from services.runtime.bus import Bus
from services.runtime.consumer import consume
from services.runtime.postgres import Connection, Database


async def follow_users(bus: Bus, database: Database, profiles: Profiles) -> None:
    """Keeps the profile of every user up to date, for ever."""

    async def handle(connection: Connection, event: user_pb2.UserEvent) -> None:
        await profiles.put(connection, _profile(event))

    await consume(bus, database, stream="user", consumer="compliance", message=user_pb2.UserEvent, handle=handle)


def _profile(event: user_pb2.UserEvent) -> Profile:
    time = event.create_time.ToDatetime(UTC)
    return Profile(
        user_id=event.user_id,
        sequence=event.sequence,
        display_name=event.display_name,
        country=event.country,
        date_of_birth=_date(event.date_of_birth),
        create_time=time,
        update_time=time,
    )


def _date(proto: Date) -> date | None:
    """Reads a date; one without a year or a day is none."""
    return date(proto.year, proto.month, proto.day) if proto.year and proto.month and proto.day else None
