"""The plan of docs/scaling.md follows from the figures in tests/performance."""

from pathlib import Path
from xml.etree import ElementTree as ET

from tests.performance.scaling_picture import PICTURE, picture
from tests.performance.scaling_plan import LIMITS, shares, table, users_at_limit

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"


def test_page_has_the_current_table_and_picture() -> None:
    """If it fails: `python -m tests.performance.scaling_picture`, and copy the table."""
    assert table() in PAGE.read_text()
    assert picture() == PICTURE.read_text()


def test_page_has_the_current_limits() -> None:
    """Each with the number of users that reaches it, which is where the share is 1."""
    text = PAGE.read_text()
    for limit in LIMITS:
        users = users_at_limit(limit)
        assert 0.9 < shares(users)[limit] < 1.1
        assert f"| {limit} | {users / 1e6:,.0f} million |" in text


def test_picture_says_what_it_shows() -> None:
    """With a title, a description and both units, for screen readers too."""
    root = ET.fromstring(picture())  # noqa: S314 - our own
    texts = [element.text for element in root.iter() if element.text]
    assert root.attrib["aria-labelledby"] == "title desc"
    assert {"Users", "Percent of the limit", *(limit.capitalize() for limit in LIMITS)} <= {*texts}
