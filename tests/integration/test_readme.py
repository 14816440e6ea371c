"""The README's first session, as it is printed."""

import os
import re
import subprocess
from pathlib import Path

from tests.support.service_process import running_service

README = Path(__file__).parents[2] / "README.md"


def first_session() -> str:
    """Return the shell session of the README."""
    found = re.search(r"```sh\n(?P<session>.*?)```", README.read_text(), re.DOTALL)
    assert found
    return found["session"]


def test_the_first_session_works_as_printed(tmp_path: Path) -> None:
    """Ann makes a code, Bob joins with it, and Ann sees him."""
    with running_service(tmp_path / "data") as service:
        done = subprocess.run(  # noqa: S603 - our own README
            ["/bin/sh", "-e", "-c", first_session()],
            env=os.environ | {"API": f"{service.url}/api/v1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert '"status":"active"' in done.stdout
    assert '"email": "bob@example.com"' in done.stdout
    assert '"code": "ANN-2026"' in done.stdout
