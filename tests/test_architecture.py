"""The folder map of docs/architecture.md names every module."""

from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs/architecture.md").read_text()
PACKAGE = ROOT / "src/referral"
MODULES = [
    path.relative_to(PACKAGE)
    for path in sorted(PACKAGE.rglob("*.py"))
    # The map has one line for all repositories: one module per port.
    if not path.stem.startswith("__") and path.parent.name != "repositories"
]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_map_names_the_module(module: Path) -> None:
    """By its name in the line of its folder, or by its path."""
    assert f"`{module.stem}`" in TEXT or f"{module}`" in TEXT


def test_glossary_defines_each_term_once() -> None:
    """A term with two rows has two meanings, or one row too many."""
    glossary = TEXT.split("## Glossary")[1]
    terms = Counter(
        line.split("|")[1].strip() for line in glossary.splitlines() if line.startswith("|")
    )
    assert [term for term, count in terms.items() if count > 1] == []
