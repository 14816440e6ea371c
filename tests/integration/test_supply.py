"""What is installed, what a start refuses, and what the repository does not hold."""

import re
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.audit import find_fault
from tests.processes import referral

ROOT = Path(__file__).parents[2]
SECRETS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----\n|\beyJ[\w-]{20,}\.[\w-]{20,}\."
    r"|\b(?:ghp|gho|xox[bp]|AKIA|sk_live)[\w-]{16,}"
)
PASSWORD = re.compile(r"(?i)^\s*(?:REFERRAL_\w*)?(?:SECRET|PASSWORD|API_KEY)\w*\s*=\s*\w{6,}\s*$")


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-dev.lock"])
def test_every_locked_package_has_its_hashes(name: str) -> None:
    """One release of each, and none that pip would take unseen."""
    entries = re.split(r"\n(?=[a-z0-9])", (ROOT / name).read_text())
    packages = [entry for entry in entries if not entry.startswith("#")]
    assert len(packages) > 30
    for entry in packages:
        assert re.match(r"[a-z0-9][a-z0-9-]*==\S+", entry), entry
        assert "--hash=sha256:" in entry, entry


def test_all_that_runs_is_in_the_lock_for_development() -> None:
    """So that what the tests try is what users get."""
    runs, develops = (
        set(re.findall(r"^[a-z0-9-]+==\S+", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-dev.lock")
    )
    assert runs <= develops


@pytest.mark.parametrize("bits", [None, 1024])
def test_no_start_with_a_default_or_a_short_key(tmp_path: Path, bits: int | None) -> None:
    """With a database of one's own there is no key but one's own, of a safe length."""
    settings = {"database_url": "postgresql://nobody@127.0.0.1:9/nothing"}
    if bits:
        key = generate_private_key(65537, bits)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / "short.pem").write_bytes(pem)
        settings["signing_key_file"] = str(tmp_path / "short.pem")
    refused = referral(tmp_path, "run", **settings)
    assert refused.returncode == 2
    assert "REFERRAL_SIGNING_KEY_FILE" in refused.stderr


def test_the_repository_holds_no_secret() -> None:
    """No private key, no token, no password in a file of settings."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"],  # noqa: S607 - wherever it is
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    files = [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    assert len(files) > 100
    for file in files:
        text = file.read_bytes().decode(errors="replace")
        assert not SECRETS.search(text), file
        if file.suffix in {"", ".example", ".env", ".yaml", ".yml", ".toml"}:
            assert not any(PASSWORD.match(line) for line in text.splitlines()), file


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
    assert bool(find_fault("a==1 \\\n    --hash=sha256:00\n")) == skipped
