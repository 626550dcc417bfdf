"""Update masks (AIP-134): which fields of a resource an update changes."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from google.protobuf.message import Message

from services.runtime.errors import InvalidUpdateMask


def fields_to_change(
    mask: Sequence[str], update: Message, fields: frozenset[str], star: AbstractSet[str] | None = None
) -> frozenset[str]:
    """Returns those of `fields`, which can be changed, that the mask names; without a mask those that are set.

    `*` means all of them, or `star`. Raises InvalidUpdateMask.
    """
    if not mask:
        return fields.intersection(field.name for field, _ in update.ListFields())
    for path in mask:
        if path not in fields | {"*"}:
            raise InvalidUpdateMask(path)
    return frozenset(mask) - {"*"} | ((fields if star is None else star) if "*" in mask else frozenset())
