"""axe-core's check of a page in Chromium."""

from pathlib import Path
from typing import Any

from playwright.async_api import Page

SEVERE = {"serious", "critical"}
RUN = "() => axe.run(document, {resultTypes: ['violations']})"


async def severe_violations(page: Page, axe: Path) -> list[dict[str, Any]]:
    """Return what axe-core calls serious or critical; `axe` is its script."""
    await page.evaluate(axe.read_text(encoding="utf-8"))
    result = await page.evaluate(RUN)
    return [
        {"id": found["id"], "nodes": [node["html"] for node in found["nodes"]]}
        for found in result["violations"]
        if found["impact"] in SEVERE
    ]
