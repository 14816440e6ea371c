"""The dependency audit, when the vulnerability database is unreachable."""

import subprocess

import pytest

from tests.tools.dependency_audit import find_failure


@pytest.mark.parametrize(
    ("output", "skipped"),
    [
        (b'{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', False),
        (b'{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', True),
        (b"", True),
    ],
)
def test_incomplete_audit_is_reported(
    monkeypatch: pytest.MonkeyPatch, output: bytes, *, skipped: bool
) -> None:
    """A package that was not checked is reported and does not count as free of vulnerabilities."""
    result = subprocess.CompletedProcess([], 0, stdout=output)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: result)
    assert bool(find_failure("a==1 \\\n    --hash=sha256:00\n")) == skipped
