"""Schemathesis checks the service against the OpenAPI document, with all of its checks."""

import asyncio
import os
import re
import sys
from pathlib import Path

from tests.support.api_client import UNLIMITED_ENV, log_in, register
from tests.support.browser import service_client

CONFIGURATION = Path(__file__).with_name("schemathesis.toml")
HOOKS = {
    "SCHEMATHESIS_HOOKS": "tests.web.schemathesis_hooks",
    "PYTHONPATH": str(Path(__file__).parents[2]),
}
CHAIN_SECONDS = 20
"""Duration of the stateful phase; without it Schemathesis stops after twenty chains."""

SECONDS = 120
MIN_LINKS = 3
"""Minimum number of OpenAPI links that must be followed; an idle machine follows thirty."""

PASSWORD = "a password that is in no example"


async def test_service_matches_its_document(
    database_url: str, key_file: Path, tmp_path: Path
) -> None:
    """Examples, boundary values, random requests and chains of requests have no violation."""
    settings = {
        "REFERRAL_DATA_DIR": str(tmp_path),
        "REFERRAL_DATABASE_URL": database_url,
        "REFERRAL_SIGNING_KEY_FILE": str(key_file),
    }
    settings |= {f"REFERRAL_{name.upper()}": value for name, value in UNLIMITED_ENV.items()}
    async with service_client(**settings) as client:
        # With the password of the examples a request would soon delete the account.
        await register(client, "ann@example.com", password=PASSWORD)
        tokens = (await log_in(client, "ann@example.com", PASSWORD)).json()
        bearer = f"Bearer {tokens['access_token']}"
        url = f"{client.base_url}/openapi.json"
        single = await run_schemathesis(
            url, bearer, tmp_path, "--phases", "examples,coverage,fuzzing"
        )
        chains = await run_schemathesis(
            url, bearer, tmp_path, "--phases", "stateful", "--max-time", str(CHAIN_SECONDS)
        )
    assert re.search(r" (\d+) selected / \1 total", single), single
    assert all(f"✅  {phase}" in single for phase in ("Coverage", "Fuzzing")), single
    assert "✅  Stateful" in chains, chains
    followed = re.search(r"API Links: +(\d+) covered", chains)
    assert followed is not None, chains
    assert int(followed[1]) >= MIN_LINKS, chains


async def run_schemathesis(url: str, bearer: str, folder: Path, *options: str) -> str:
    """Run Schemathesis, expect no failure, and return the report."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIGURATION)),
        *("run", url, "--checks", "all", "--no-color", *options),
        *("--header", f"Authorization: {bearer}"),
        cwd=folder,
        env=os.environ | HOOKS,
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    report = output.decode()
    assert process.returncode == 0, report
    return report
