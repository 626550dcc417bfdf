"""The audit trail: who did what to which resource, written in the transaction of the effect and never changed.

Whoever changes something for a caller from outside records it. Who sees what is somebody else's, by a role, is recorded
before they see it: see trail.py.
"""

from datetime import UTC, datetime

from services.runtime import caller
from services.runtime.caller import Caller
from services.runtime.contract import EDGE
from services.runtime.ids import new_id
from services.runtime.postgres import Connection

_ADD = """
    INSERT INTO audit (id, create_time, actor_id, credential_id, roles, action, resource, request_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"""


async def record(connection: Connection, resource: str, actor_id: str = "") -> None:
    """Writes, in the transaction of the effect, that the current caller does what they call to a resource.

    `resource` is its collection and id: `payments/pay_1`. `actor_id` is who it turned out to be, where nobody is logged
    in. Does nothing for what the service does by itself, when there is no caller, or for another service.
    """
    who = caller.acting()
    if who is not None and who.peer == EDGE:
        await connection.execute(_ADD, *_row(who, resource, actor_id))


def _row(who: Caller, resource: str, actor_id: str) -> tuple[object, ...]:
    actor = who.user_id or actor_id
    now = datetime.now(UTC)
    return new_id("aud"), now, actor, who.session_id, sorted(who.roles), who.rpc, resource, who.request_id
