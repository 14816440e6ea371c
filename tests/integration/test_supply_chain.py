"""The supply chain, and secrets at the start."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from referral.settings import InvalidSettingsError, read_settings

ROOT = Path(__file__).parents[2]
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
SECRET = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\n[A-Za-z0-9+/=]|AKIA[0-9A-Z]{16}|ghp_[A-Za-z0-9]{36}"
    rb"|xox[bap]-[0-9A-Za-z-]{20}|eyJhbGciOi[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{60,}\.[A-Za-z0-9_-]{60,}"
)


@pytest.mark.parametrize(
    "name", ["requirements.lock", "requirements-dev.lock", "requirements-clients.lock"]
)
def test_every_dependency_is_locked_with_hashes(name: str) -> None:
    """Each has one version and the hashes of its files."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert len(lines) > 30
    for line in lines:
        assert re.match(r"[a-z0-9._-]+==\S+", line), line
        assert HASH.search(line), line


def test_every_npm_package_is_locked_with_a_hash() -> None:
    """Each has an integrity hash, and none the address of a registry."""
    lock = json.loads((ROOT / "tests/clients/typescript/package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert len(packages) > 100
    assert [name for name, entry in packages.items() if not entry.get("integrity")] == []
    assert [name for name, entry in packages.items() if "resolved" in entry] == []


def test_repository_holds_no_secret() -> None:
    """No committed file has a private key or a known kind of token."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout  # noqa: S603
    names = [name.decode() for name in listed.split(b"\0") if name]
    assert "pyproject.toml" in names
    assert [name for name in names if SECRET.search((ROOT / name).read_bytes())] == []


@pytest.mark.parametrize("bits", [512, 1024])
def test_short_signing_key_is_rejected(tmp_path: Path, bits: int) -> None:
    """RSA keys below 2,048 bits are insecure."""
    key = tmp_path / "short.pem"
    command = ["openssl", "genrsa", "-out", str(key), str(bits)]
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - a fixed command
    with pytest.raises(InvalidSettingsError, match="SIGNING_KEY_FILE"):
        read_settings({"REFERRAL_SIGNING_KEY_FILE": str(key)})


def test_no_secret_has_a_default() -> None:
    """An external database requires an explicit signing key."""
    with pytest.raises(InvalidSettingsError, match="SIGNING_KEY_FILE"):
        read_settings({"REFERRAL_DATABASE_URL": "postgresql://db/referral"})
    assert read_settings({}).signing_key_file == ""
