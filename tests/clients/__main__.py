"""Linters of the API document, generated clients and OAuth libraries: `make test-clients`."""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import httpx

from referral.core.policies.webhook_requests import encode_event, signature_headers
from tests.clients.checks import CHECKS, Check
from tests.clients.tools import ROOT, WORK, Unreachable, install, tool_environment
from tests.support.service_process import free_port, run_command, running_service

SOURCES = Path(__file__).parent
DOCS = SOURCES.parents[1] / "docs"
SUBJECT = "linters, generated clients and OAuth libraries"


def main(names: Sequence[str]) -> int:
    """Run all checks, or these; return 0 if they passed or a registry is unreachable."""
    unknown = set(names) - CHECKS.keys()
    if unknown:
        return say(f"Unknown: {', '.join(unknown)}. Known: {', '.join(CHECKS)}", code=2)
    try:
        install()
    except Unreachable as error:
        return say(f"{SUBJECT} left out: {error}")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (
        tempfile.TemporaryDirectory() as parent,
        running_service(folder := Path(parent, "data"), port=port, public_url=url),
    ):
        prepare(url)
        project = {"root": str(ROOT), "python": sys.executable}
        values = {"url": url} | project | create_client(folder)
        failed = [name for name in names or CHECKS if not passes(name, CHECKS[name], values)]
    if failed:
        return say(f"{SUBJECT} failed: {', '.join(failed)}", code=1)
    return say(f"{SUBJECT} passed")


def create_client(folder: Path) -> dict[str, str]:
    """Create an OAuth client of the running service and a public one; return their fields."""
    options = ("--redirect-uri", "http://127.0.0.1/callback", "--json")
    scopes = ("--scope", "codes:read,referrals:read")
    created = run_command(folder, "create-client", "OAuth library", *scopes, *options)
    public = run_command(folder, "create-client", "Public OAuth library", "--public", *options)
    fields: dict[str, str] = json.loads(created.stdout)
    return fields | {"public_client_id": json.loads(public.stdout)["client_id"]}


def prepare(url: str) -> None:
    """Copy the sources of the checks beside the tools, with the document that is served."""
    for language in ("typescript", "python"):
        for leftover in ("generated", "compiled"):
            shutil.rmtree(WORK / language / leftover, ignore_errors=True)
        shutil.copytree(SOURCES / language, WORK / language, dirs_exist_ok=True)
    document = httpx.get(f"{url}/openapi.json").raise_for_status()
    (WORK / "openapi.json").write_bytes(document.content)
    write_webhook(WORK / "typescript/generated")


def write_webhook(folder: Path) -> None:
    """Write a signed delivery, and the receiver of docs/webhooks.md."""
    secrets, event_id, now = [b"n" * 32, b"o" * 32], uuid4(), datetime.now(UTC)
    body = encode_event(event_id, "referral.confirmed", now, {"code": "ÄNN \U0001f98a"})
    delivery = {
        "secrets": ["whsec_" + b64encode(secret).decode() for secret in secrets],
        "headers": signature_headers(event_id, now, body, secrets),
        "body": body.decode(),
    }
    receiver = re.search(r"```js\n(.*?)```", (DOCS / "webhooks.md").read_text(), re.DOTALL)
    assert receiver
    folder.mkdir()
    (folder / "webhook.json").write_text(json.dumps(delivery))
    (folder / "receiver.mjs").write_text(receiver[1])


def passes(name: str, check: Check, values: dict[str, str]) -> bool:
    """Run the commands of a check until one fails; show its output."""
    started = time.monotonic()
    for command in check.commands:
        completed = subprocess.run(  # noqa: S603 - the commands of this folder
            [part.format_map(values) for part in command],
            cwd=WORK / check.folder,
            env=tool_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            text=True,
        )
        if completed.returncode:
            say(f"{name}: FAILED: {' '.join(command)}\n{completed.stdout}")
            return False
    say(f"{name}: passed ({time.monotonic() - started:.0f} s)")
    return True


def say(text: str, code: int = 0) -> int:
    """Write a line, and return the exit code."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
