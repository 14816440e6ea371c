"""The audit of dependencies, where nobody can be asked."""

import subprocess

import pytest

from tests.tools.dependency_audit import find_failure


@pytest.mark.parametrize(
    ("said", "skipped"),
    [
        (b'{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', False),
        (b'{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', True),
        (b"", True),
    ],
)
def test_an_audit_that_asked_nobody_says_so(
    monkeypatch: pytest.MonkeyPatch, said: bytes, *, skipped: bool
) -> None:
    """A package that nobody could tell of is not one without holes."""
    done = subprocess.CompletedProcess([], 0, stdout=said)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert bool(find_failure("a==1 \\\n    --hash=sha256:00\n")) == skipped
