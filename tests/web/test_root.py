"""The paths that browsers request by themselves."""

import struct

import httpx
import pytest

from referral.web.public_urls import PublicUrls


async def test_root_redirects_to_the_page_to_join(client: httpx.AsyncClient) -> None:
    """The address of the service is no dead end."""
    response = await client.get("/")
    assert (response.status_code, response.headers["Location"]) == (302, "/join")
    assert (await client.get("/join")).status_code == 200


@pytest.mark.parametrize(
    ("landing_url", "home"),
    [
        ("https://www.example.com/join", "https://www.example.com/join"),
        ("https://api.example.com/docs", "/docs"),
        ("https://api.example.com", "/join"),
        ("https://api.example.com/join", "/join"),
    ],
)
def test_root_redirects_to_the_landing_page(landing_url: str, home: str) -> None:
    """Pages link to the root as the home page; it never redirects to itself."""
    urls = PublicUrls("https://api.example.com", landing_url, confirm_url="", reset_url="")
    assert urls.home() == home


async def test_favicon_is_a_small_icon(client: httpx.AsyncClient) -> None:
    """It is an ICO file with a PNG of 32 pixels, of less than a kilobyte."""
    response = await client.get("/favicon.ico")
    assert response.headers["Content-Type"] == "image/vnd.microsoft.icon"
    assert response.headers["Cache-Control"].startswith("public")
    assert struct.unpack_from("<HHHBB", response.content) == (0, 1, 1, 32, 32)
    assert response.content[22:].startswith(b"\x89PNG")
    assert len(response.content) < 1000


async def test_both_are_outside_of_the_api_document(client: httpx.AsyncClient) -> None:
    """Clients need neither."""
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert not {"/", "/favicon.ico"} & set(paths)
