"""What can be wrong with asking for audit trails. No I/O."""

from collections.abc import Iterable

from services.runtime.errors import FieldViolation, InvalidArgument, InvalidRequest, Unavailable


class UnknownService(InvalidArgument):
    """There is no such service."""

    message = 'There is no service "{service}". There are {services}.'

    def __init__(self, service: str, services: Iterable[str]) -> None:
        known = ", ".join(sorted(services))
        super().__init__(service=service, services=known, fields=[FieldViolation("service", f"is none of {known}")])


class AuditTrailUnavailable(Unavailable):
    """A service does not tell what was done there: it is away, or an older release."""

    message = "The audit trail of {service} cannot be read right now. Those of the others can: ask for one by service."


_LAST_SECOND = 253_402_300_799
"""The end of the year 9999, which is the last that JSON and clocks can tell."""


def require_time(seconds: int, nanos: int, field: str) -> None:
    """Raises InvalidRequest for a time before 1970, or one that is none."""
    if not (0 <= seconds <= _LAST_SECOND and 0 <= nanos < 10**9):
        raise InvalidRequest(FieldViolation(field, "must be a time of 1970 or later"))
