"""The pictures of the docs pages in the README."""

from tests.tools.docs_screenshots import DIGEST_FILE, PAGES, digest


async def test_the_pictures_show_the_pages_as_they_are() -> None:
    """The digest taken with them is that of the API document, the pages and the bundles as they
    are, and each page has its file; what is in the pictures is not looked at.
    """
    assert DIGEST_FILE.read_text().strip() == await digest(), "run `make screenshots`"
    assert {f"{name}.png" for name in PAGES} <= {path.name for path in DIGEST_FILE.parent.iterdir()}
