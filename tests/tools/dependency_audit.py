"""Audit the locked packages for vulnerabilities; succeed if the advisories are unreachable."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

COMMAND = (sys.executable, "-m", "pip_audit", "--disable-pip", "--progress-spinner", "off")


def main(locks: list[str]) -> int:
    """Audit the lock files, and return the exit code of pip-audit."""
    failure = find_failure(Path(locks[0]).read_text())
    if failure:
        print(f"audit skipped: the advisories are unreachable ({failure})")  # noqa: T201
        return 0
    options = [part for lock in locks for part in ("-r", lock)]
    command = [*COMMAND, "--require-hashes", "--strict", *options]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - our own command


def find_failure(lock: str) -> str:
    """Return why the advisories of one package are unreachable, or an empty text."""
    package = re.search(r"^[a-z0-9-]+==[^ ]+", lock, re.MULTILINE)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(package[0] if package else "")
        file.flush()
        command = [*COMMAND, "--no-deps", "--timeout", "5", "--format", "json", "-r", file.name]
        try:
            completed = subprocess.run(  # noqa: S603 - our own command
                command, capture_output=True, check=False, timeout=30
            )
            dependencies = json.loads(completed.stdout)["dependencies"]
        except (ValueError, KeyError, subprocess.TimeoutExpired) as error:
            return type(error).__name__
    return next((str(each["skip_reason"]) for each in dependencies if "skip_reason" in each), "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
