"""Reads a sanctions list in the layout of OFAC's SDN.CSV: twelve columns, no header, `-0-` where there is nothing.

sanctions_sample.csv beside this file is such a list; everybody on it is invented.
"""

import csv
import io

from services.compliance.domain import Listed

_COLUMNS = 12
_NOTHING = "-0-"
_END_OF_FILE = "\x1a"  # OFAC still ends its files as CP/M did


def read(content: bytes) -> list[Listed]:
    """Returns the list's entries. Raises ValueError when there are none, or for a line of another layout."""
    text = content.decode("utf-8-sig").rstrip(_END_OF_FILE + "\r\n")
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    entries = [_entry(row, rows.line_num) for row in rows]
    if not entries:
        raise ValueError("the sanctions list is empty: with nobody on it, everybody would pass")
    return entries


def _entry(row: list[str], line: int) -> Listed:
    if len(row) != _COLUMNS or not row[0].strip().isdecimal():
        raise ValueError(f"line {line} is not one of an SDN list: {_COLUMNS} columns, the first one a number")
    number, name, kind, program, *_, remarks = ("" if cell.strip() == _NOTHING else cell.strip() for cell in row)
    return Listed(int(number), name, kind, program, remarks)
