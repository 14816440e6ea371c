"""Rotation of signing keys while the service runs."""

from pathlib import Path
from uuid import UUID

import httpx
import pytest
from structlog.testing import capture_logs

from referral.adapters.security.access_tokens import JwtAccessTokenIssuer
from referral.adapters.security.keys import (
    RELOAD_SECONDS,
    UNKNOWN_KEY_RELOAD_SECONDS,
    HmacFingerprinter,
    KeyRing,
    make_key_file,
)
from referral.adapters.security.unsubscribe_tokens import SignedUnsubscribeTokens
from referral.adapters.system import SystemClock
from referral.core.errors import NotFound, Unauthenticated
from tests.support.api_client import join

ISSUER = "https://referral.example"


class FakeStopwatch:
    """A stopwatch that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def stopwatch() -> FakeStopwatch:
    """The stopwatch of the key ring."""
    return FakeStopwatch()


@pytest.fixture
def pems(tmp_path: Path) -> list[bytes]:
    """Two private keys."""
    paths = [tmp_path / "made" / f"{number}.pem" for number in range(2)]
    for path in paths:
        make_key_file(path)
    return [path.read_bytes() for path in paths]


def make_access_tokens(ring: KeyRing) -> JwtAccessTokenIssuer:
    """Make the token service over a key ring."""
    return JwtAccessTokenIssuer(ISSUER, ring, 10, SystemClock())


def issue_token(ring: KeyRing) -> str:
    """Sign a token with the current signing key."""
    return make_access_tokens(ring).issue("someone", "a-client", "referrals:read")


def test_new_key_signs_and_old_key_verifies(
    tmp_path: Path, pems: list[bytes], stopwatch: FakeStopwatch
) -> None:
    """A key that is put first in the file is used within a minute, without a restart."""
    file = tmp_path / "signing.pem"
    file.write_bytes(pems[0])
    ring = KeyRing([file], stopwatch)
    old, kid = issue_token(ring), ring.all()[0].kid
    file.write_bytes(pems[1] + pems[0])
    stopwatch.seconds = RELOAD_SECONDS + 1
    assert [key.kid for key in ring.all()][1] == kid
    assert make_access_tokens(ring).verify(issue_token(ring)).subject == "someone"
    assert make_access_tokens(ring).verify(old).subject == "someone"
    assert [key["kid"] for key in make_access_tokens(ring).jwks()["keys"]] == [
        k.kid for k in ring.all()
    ]


def test_removed_key_does_not_verify(
    tmp_path: Path, pems: list[bytes], stopwatch: FakeStopwatch
) -> None:
    """Tokens of a removed key are rejected, whether its file is changed or deleted."""
    files = [tmp_path / "a.pem", tmp_path / "b.pem"]
    for file, pem in zip(files, pems, strict=True):
        file.write_bytes(pem)
    ring = KeyRing(files, stopwatch)
    old = issue_token(ring)
    files[0].unlink()
    stopwatch.seconds = RELOAD_SECONDS + 1
    with pytest.raises(Unauthenticated):
        make_access_tokens(ring).verify(old)
    assert make_access_tokens(ring).verify(issue_token(ring)).subject == "someone"


def test_unknown_key_id_reloads_the_files(
    tmp_path: Path, pems: list[bytes], stopwatch: FakeStopwatch
) -> None:
    """A token with an unknown key id reloads the files at once, at most once a second."""
    file = tmp_path / "signing.pem"
    file.write_bytes(pems[0])
    ring = KeyRing([file], stopwatch)
    file.write_bytes(pems[1] + pems[0])
    token = issue_token(KeyRing([file], stopwatch))
    with pytest.raises(Unauthenticated):
        make_access_tokens(ring).verify(token)
    stopwatch.seconds = UNKNOWN_KEY_RELOAD_SECONDS + 0.1
    assert make_access_tokens(ring).verify(token).subject == "someone"


@pytest.mark.parametrize("content", [b"", b"no key", None])
def test_broken_key_file_keeps_the_loaded_keys(
    tmp_path: Path, pems: list[bytes], stopwatch: FakeStopwatch, content: bytes | None
) -> None:
    """An invalid file changes nothing and is logged."""
    file = tmp_path / "signing.pem"
    file.write_bytes(pems[0])
    ring = KeyRing([file], stopwatch)
    token = issue_token(ring)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    stopwatch.seconds = RELOAD_SECONDS + 1
    with capture_logs() as logs:
        assert make_access_tokens(ring).verify(token).subject == "someone"
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_fingerprints_survive_a_key_rotation(
    tmp_path: Path, pems: list[bytes], stopwatch: FakeStopwatch
) -> None:
    """A fingerprint of the old key still matches, as long as the key is in the file."""
    file = tmp_path / "signing.pem"
    file.write_bytes(pems[0])
    ring = KeyRing([file], stopwatch)
    old = HmacFingerprinter(ring).compute(b"a body")
    file.write_bytes(pems[1] + pems[0])
    stopwatch.seconds = RELOAD_SECONDS + 1
    new = HmacFingerprinter(ring).compute(b"a body")
    assert old[0] in new
    assert old[0] != new[0]
    assert not set(HmacFingerprinter(ring).compute(b"another")) & set(new)


async def test_jwks_has_the_public_keys(client: httpx.AsyncClient, key_file: Path) -> None:
    """The key set has the public parts only."""
    await join(client)
    keys = (await client.get("/.well-known/jwks.json")).json()["keys"]
    assert [key["kid"] for key in keys] == [key.kid for key in KeyRing([key_file]).all()]
    assert {name for key in keys for name in key} == {"kty", "kid", "use", "alg", "n", "e"}


def test_unsubscribe_token_lives_as_long_as_its_signing_key(
    tmp_path: Path, pems: list[bytes], stopwatch: FakeStopwatch
) -> None:
    """A second key keeps the token valid; the removal of its key ends it."""
    file = tmp_path / "signing.pem"
    file.write_bytes(pems[0])
    tokens = SignedUnsubscribeTokens(KeyRing([file], stopwatch))
    user_id = UUID(int=1)
    token = tokens.sign(user_id)
    file.write_bytes(pems[1] + pems[0])
    stopwatch.seconds = RELOAD_SECONDS + 1
    assert tokens.verify(token) == user_id
    file.write_bytes(pems[1])
    stopwatch.seconds *= 2
    with pytest.raises(NotFound):
        tokens.verify(token)
