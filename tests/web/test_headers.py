"""What browsers are told: nothing is for other origins, nothing is to be guessed or framed."""

import httpx
import msgspec
import pytest

from referral.settings import Settings
from tests.conftest import Serve
from tests.journey import API

PATHS = ("/health/live", "/nowhere", f"{API}/me", "/docs", "/confirm", "/openapi.json", "/r/NONE")
OURS, OTHERS = "https://app.example.com", "https://evil.example.com"


@pytest.mark.parametrize("path", PATHS)
async def test_every_answer_has_safe_headers(client: httpx.AsyncClient, path: str) -> None:
    """No sniffing, no frames, no referrer, and a policy on what a page may load."""
    answer = await client.get(path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy or "default-src 'self'" in policy
    assert "*" not in policy
    assert "Strict-Transport-Security" not in answer.headers  # plain HTTP must not promise TLS


@pytest.mark.parametrize("path", PATHS)
async def test_no_other_origin_is_let_in_by_default(client: httpx.AsyncClient, path: str) -> None:
    """Neither the request nor the question before it is allowed."""
    headers = {"Origin": OTHERS, "Access-Control-Request-Method": "GET"}
    for method in ("GET", "OPTIONS"):
        answer = await client.request(method, path, headers=headers)
        assert not [name for name in answer.headers if name.startswith("access-control-")]


async def test_a_listed_origin_is_let_in_and_no_other(settings: Settings, serve: Serve) -> None:
    """And none may send cookies, of which there are none."""
    async with serve(msgspec.structs.replace(settings, cors_origins=(OURS,))) as client:
        ours = await client.get("/health/live", headers={"Origin": OURS})
        others = await client.get("/health/live", headers={"Origin": OTHERS})
    assert ours.headers["Access-Control-Allow-Origin"] == OURS
    assert "Access-Control-Allow-Credentials" not in ours.headers
    assert others.headers.get("Access-Control-Allow-Origin") != OTHERS
    assert others.headers.get("Access-Control-Allow-Origin") != "*"
