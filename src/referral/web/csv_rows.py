"""CSV (RFC 4180) that spreadsheets open without running any cell as a formula."""

import csv
import io
import re
from collections.abc import Iterable, Sequence

CSV_MEDIA_TYPE = "text/csv"

FORMULA_START = re.compile(r"(^|[;\t\r\n])(?=\s*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")
"""Where a formula may begin: in a cell, or after a separator at which spreadsheets may split it."""


def as_text(value: str | None) -> str:
    """Return a cell that is no formula: an apostrophe tells spreadsheets that it is a text.

    See "CSV Injection" of OWASP.
    """
    return FORMULA_START.sub(r"\1'", value) if value else ""


def encode_rows(rows: Iterable[Sequence[str]]) -> bytes:
    """Return lines of quoted cells, in UTF-8 without a byte-order mark."""
    lines = io.StringIO(newline="")
    csv.writer(lines, quoting=csv.QUOTE_ALL).writerows(rows)
    return lines.getvalue().encode()
