"""The screenshots of the docs pages in the README."""

from tests.tools.docs_screenshots import DIGEST_FILE, PAGES, digest


async def test_screenshots_are_current() -> None:
    """Their digest covers the document, the pages and the bundles; the images are not compared."""
    assert DIGEST_FILE.read_text().strip() == await digest(), "run `make screenshots`"
    assert {f"{name}.png" for name in PAGES} <= {path.name for path in DIGEST_FILE.parent.iterdir()}
