"""CSV whose cells no spreadsheet runs as formulas."""

import csv
import io

import pytest

from referral.web.csv_rows import as_text, encode_rows

FORMULAS = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    "+1",
    "-1-2",
    "@SUM(A1)",
    "\tA1",
    "\rA1",
    "\nA1",
    " =1",
    "\uff1d1",
    "\uff0b1",
    "\uff0d1",
    "\uff20SUM(A1)",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_formula_is_a_text(text: str) -> None:
    """An apostrophe precedes it, and nothing else changes."""
    assert as_text(text) == f"'{text}"


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("spam;=1+1;x", "spam;'=1+1;x"),
        ("spam\t+1", "spam\t'+1"),
        ("spam\r\n-1", "spam\r'\n'-1"),
        ("spam; @x", "spam;' @x"),
    ],
)
def test_formula_after_another_separator_is_a_text(text: str, cell: str) -> None:
    """Where the separator of lists is a semicolon, spreadsheets split cells there."""
    assert as_text(text) == cell


@pytest.mark.parametrize("text", ["", "ann@example.com", "A-1", "a=b", "1+1", "x, -5", "'quoted'"])
def test_other_text_stays(text: str) -> None:
    """Also with these characters in the middle."""
    assert as_text(text) == text


def test_missing_value_is_an_empty_cell() -> None:
    """As in the JSON list, where it is null."""
    assert as_text(None) == ""


def test_rows_are_read_back() -> None:
    """Separators, quotes and line ends stay in their cells; lines end with CRLF."""
    rows = [["id", "reason"], ["1", 'a "quoted", text\r\nin; lines'], ["2", "Жулик"], ["", ""]]
    encoded = encode_rows(rows)
    assert encoded.startswith(b'"id","reason"\r\n"1","a ""quoted"", ')
    assert encoded.endswith(b'"",""\r\n')
    assert list(csv.reader(io.StringIO(encoded.decode(), newline=""))) == rows
