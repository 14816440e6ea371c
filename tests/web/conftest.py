"""One service for all tests of a module: none of them moves its clock or changes its settings."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from referral.settings import Settings
from tests.conftest import run_service
from tests.support.api_client import UNLIMITED_SETTINGS


@pytest.fixture(scope="module")
async def client(
    database_url: str, key_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service in this process."""
    settings = Settings(
        **UNLIMITED_SETTINGS,
        data_dir=tmp_path_factory.mktemp("data"),
        database_url=database_url,
        signing_key_file=str(key_file),
        worker="off",
    )
    async with run_service(settings) as client:
        yield client
