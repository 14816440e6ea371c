"""The shell session of the README."""

import os
import re
import subprocess
from pathlib import Path

from tests.support.service_process import running_service

README = Path(__file__).parents[2] / "README.md"


def first_session() -> str:
    """Return the first shell session of the README."""
    found = re.search(r"```sh\n(?P<session>.*?)```", README.read_text(), re.DOTALL)
    assert found
    return found["session"]


def test_first_session_works_as_printed(tmp_path: Path) -> None:
    """Ann creates a code, Bob registers with it, and Ann sees his referral."""
    with running_service(tmp_path / "data") as service:
        result = subprocess.run(  # noqa: S603 - our own README
            ["/bin/sh", "-e", "-c", first_session()],
            env=os.environ | {"API": f"{service.url}/api/v1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert '"status":"active"' in result.stdout
    assert '"email": "bob@example.com"' in result.stdout
    assert '"code": "ANN-2026"' in result.stdout
