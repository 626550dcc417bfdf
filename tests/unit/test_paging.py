"""Pagination: pages of a list that stay in place, and tokens that belong to one list only."""

import pytest

from services.runtime import paging
from services.runtime.errors import InvalidPageToken

ROWS = [f"id_{number:03}" for number in range(120, 0, -1)]


def rows_of(page: paging.Page) -> list[str]:
    return [row for row in ROWS if row < page.before][: page.rows]


def test_pages_follow_each_other_to_the_end() -> None:
    seen: list[str] = []
    token = ""
    while True:
        page = paging.page(50, token, "list", "usr_1")
        rows, token = page.cut(rows_of(page), str)
        seen += rows
        if not token:
            break
    assert seen == ROWS


def test_no_size_is_fifty_and_too_large_a_size_is_a_thousand() -> None:
    assert paging.page(0, "").size == 50
    assert paging.page(5000, "").size == 1000


def test_a_token_belongs_to_the_arguments_it_was_given_for() -> None:
    page = paging.page(1, "", "list", "usr_1")
    _, token = page.cut(rows_of(page), str)
    paging.page(7, token, "list", "usr_1")
    with pytest.raises(InvalidPageToken):
        paging.page(1, token, "list", "usr_2")


@pytest.mark.parametrize("token", ["x", "AAAA", "not base64!", "AAAAAAAAAAA", "é", "=" * 8, "A" * 512])
def test_a_token_that_was_never_given_out_is_refused(token: str) -> None:
    with pytest.raises(InvalidPageToken):
        paging.page(1, token, "list")
