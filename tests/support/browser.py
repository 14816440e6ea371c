"""A service in its own process, and a browser for its pages."""

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from playwright.async_api import Browser, async_playwright

from tests.support.service_process import free_port

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
STOP_SECONDS = 20


@asynccontextmanager
async def service_client(**settings: str) -> AsyncIterator[httpx.AsyncClient]:
    """Run the service by its command, and yield an HTTP client once it is ready."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    defaults = {"REFERRAL_PUBLIC_URL": url, "REFERRAL_LOG_LEVEL": "warning"}
    command = (sys.executable, "-m", "referral", "run", "--port", str(port))
    process = await asyncio.create_subprocess_exec(*command, env=os.environ | defaults | settings)
    transport = httpx.AsyncHTTPTransport(retries=7)  # 0.5 s, 1 s, 2 s and so on, until it listens
    try:
        async with httpx.AsyncClient(base_url=url, transport=transport) as client:
            (await client.get("/health/ready")).raise_for_status()
            yield client
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), STOP_SECONDS)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Start the machine's Chromium, or the one from `playwright install`."""
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found)
        try:
            yield browser
        finally:
            await browser.close()
