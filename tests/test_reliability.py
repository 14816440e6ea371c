"""Every row of docs/reliability.md, and every refusal in docs/signing-in.md, names its tests."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/reliability.md").read_text()
TABLE = re.findall(r"^\| (\d+) \| (.+) \| (.+) \| (.+) \|$", TEXT, re.MULTILINE)
FIXED_DEFECTS = re.findall(r"^\| ([SD]\d+) \| (.+) \| (.+) \| (.*) \|$", TEXT, re.MULTILINE)
SIGNING_IN = (ROOT / "docs/signing-in.md").read_text()
REFUSALS = [
    (row, what, tests, response)
    for row, what, response, tests in re.findall(
        r"^\| (RFC .+) \| (.*) \| (.+) \| (.+) \|$", SIGNING_IN, re.MULTILINE
    )
]
REFERENCES = [
    (row, *found)
    for row, _, cell, _ in TABLE + FIXED_DEFECTS + REFUSALS
    for found in re.findall(r"`(\S+?)::(\w+)`", cell)
]


def test_every_row_is_there_once() -> None:
    """The rows are numbered without a gap, and each one names a test."""
    assert [int(row) for row, *_ in TABLE] == list(range(1, len(TABLE) + 1))
    shown = {row for row, *_ in REFERENCES}
    assert [row for row, *_ in TABLE + FIXED_DEFECTS + REFUSALS if row not in shown] == []
    assert len(TABLE) > 40
    assert REFUSALS


@pytest.mark.parametrize(("row", "path", "name"), REFERENCES)
def test_what_shows_a_row_exists(row: str, path: str, name: str) -> None:
    """It is a test, or the entry function of a scenario."""
    tree = ast.parse((ROOT / path).read_text())
    defined = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert name in defined, row
