"""The receiver and the commands of docs/webhooks.md, as printed."""

import json
import os
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
from standardwebhooks import Webhook

from tests.support.service_process import free_port
from tests.support.waiting import wait_for_port

PAGE = Path(__file__).parents[2] / "docs/webhooks.md"
SECRET = "whsec_" + b64encode(b"secret of the tests: 32 bytes...").decode()
EVENT = {"id": "1", "type": "referral.confirmed", "data": {"code": "ÄNN"}}


def code_blocks(language: str) -> list[str]:
    """Return the blocks of a language on the page."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@contextmanager
def running_receiver(output: Path) -> Iterator[int]:
    """Run the Python receiver of the page; yield its port."""
    (source,) = code_blocks("python")
    port = free_port()
    environment = os.environ | {"WEBHOOK_SECRET": SECRET, "PORT": str(port)}
    with output.open("w") as file:
        process = subprocess.Popen(  # noqa: S603 - our own page
            [sys.executable, "-c", source],
            env=environment,
            cwd=output.parent,
            stdout=file,
            stderr=file,
        )
        try:
            wait_for_port(port)
            yield port
        finally:
            process.kill()
            process.wait()


def send(port: int, folder: Path, secret: str) -> subprocess.CompletedProcess[str]:
    """Run the commands of the page that sign an event and send it."""
    (folder / "event.json").write_text(json.dumps(EVENT, ensure_ascii=False))
    return subprocess.run(  # noqa: S603 - our own page
        ["/bin/sh", "-c", code_blocks("sh")[1]],
        env=os.environ | {"WEBHOOK_SECRET": secret, "RECEIVER": f"http://127.0.0.1:{port}/"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_printed_receiver_and_commands(tmp_path: Path) -> None:
    """The receiver accepts what the commands sign, once, and rejects another secret."""
    output = tmp_path / "output"
    with running_receiver(output) as port:
        for _ in range(2):
            sent = send(port, tmp_path, SECRET)
            assert not sent.returncode, sent.stderr
        forged = send(port, tmp_path, "whsec_" + b64encode(b"another").decode())
    assert "400" in forged.stderr
    assert output.read_text().count("referral.confirmed {'code': 'ÄNN'}") == 1


def test_simultaneous_requests_are_processed_once(tmp_path: Path) -> None:
    """All succeed; one of them inserts the id."""
    output, body, now = tmp_path / "output", json.dumps(EVENT), datetime.now(UTC)
    headers = {
        "webhook-id": "1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("1", now, body),
    }
    with running_receiver(output) as port, ThreadPoolExecutor(8) as threads:
        url = f"http://127.0.0.1:{port}/"
        sent = [
            threads.submit(httpx.post, url, content=body, headers=headers, timeout=30)
            for _ in range(16)
        ]
        assert [each.result().status_code for each in sent] == [204] * 16
    assert output.read_text().count("referral.confirmed {'code': 'ÄNN'}") == 1
