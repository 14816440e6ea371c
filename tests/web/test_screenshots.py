"""The pictures of the docs pages in the README."""

from tests.screenshots import PAGES, SHOWN, digest


async def test_the_pictures_show_the_pages_as_they_are() -> None:
    """A change of the API document, the pages or the bundles wants new pictures."""
    assert SHOWN.read_text().strip() == await digest(), "run `make screenshots`"
    assert {f"{name}.png" for name in PAGES} <= {path.name for path in SHOWN.parent.iterdir()}
