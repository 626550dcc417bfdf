"""Update masks."""

import pytest
from user.v1.user_pb2 import User

from services.runtime.errors import InvalidUpdateMask
from services.runtime.masks import fields_to_change

FIELDS = frozenset({"display_name", "address", "roles"})


def test_a_mask_names_fields_or_all_that_can_be_changed() -> None:
    assert fields_to_change(["address"], User(display_name="Ada"), FIELDS) == {"address"}
    assert fields_to_change(["*"], User(), FIELDS) == FIELDS
    assert fields_to_change(["roles", "*"], User(), FIELDS, star={"address"}) == {"roles", "address"}


def test_without_a_mask_an_update_changes_what_it_sets() -> None:
    update = User(id="usr_1", address="1 Square", roles=["admin"], etag="1")
    assert fields_to_change([], update, FIELDS) == {"address", "roles"}


@pytest.mark.parametrize("path", ["email", "id", "etag", "", "displayName", "date_of_birth.year"])
def test_a_mask_that_names_anything_else_is_refused(path: str) -> None:
    with pytest.raises(InvalidUpdateMask):
        fields_to_change(["address", path], User(), FIELDS)
