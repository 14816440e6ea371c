"""The API document in docs/openapi.json; `make openapi` writes it."""

import asyncio
import json
from pathlib import Path

import httpx

from referral.app import create_app
from referral.settings import Settings

OPENAPI_FILE = Path(__file__).parents[2] / "docs" / "openapi.json"


async def current_document() -> str:
    """Return the document of a service with default settings."""
    transport = httpx.ASGITransport(create_app(Settings()))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        response = await client.get("/openapi.json")
    return json.dumps(response.json(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OPENAPI_FILE.write_text(asyncio.run(current_document()), encoding="utf-8")
