"""Signing keys that change while the service runs."""

from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from referral.adapters.security.access_tokens import JwtAccessTokens
from referral.adapters.security.keys import (
    RELOAD_SECONDS,
    UNKNOWN_KEY_RELOAD_SECONDS,
    HmacFingerprints,
    KeyRing,
    make_key_file,
)
from referral.adapters.system import SystemClock
from referral.core.errors import Unauthenticated
from tests.support.api_client import join

ISSUER = "https://referral.example"


class FakeStopwatch:
    """A stopwatch that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def watch() -> FakeStopwatch:
    """The ring's idea of time."""
    return FakeStopwatch()


@pytest.fixture
def pems(tmp_path: Path) -> list[bytes]:
    """Two keys."""
    paths = [tmp_path / "made" / f"{number}.pem" for number in range(2)]
    for path in paths:
        make_key_file(path)
    return [path.read_bytes() for path in paths]


def make_access_tokens(ring: KeyRing) -> JwtAccessTokens:
    """Make access tokens over a ring."""
    return JwtAccessTokens(ISSUER, ring, 10, SystemClock())


def issue_token(ring: KeyRing) -> str:
    """Sign a token with the key that signs at the moment."""
    return make_access_tokens(ring).issue("someone", "a-client", "referrals:read")


def test_a_new_key_signs_and_the_old_one_verifies(
    tmp_path: Path, pems: list[bytes], watch: FakeStopwatch
) -> None:
    """A key put in front of the file is in use within a minute, without a restart."""
    file = tmp_path / "signing.pem"
    file.write_bytes(pems[0])
    ring = KeyRing([file], watch)
    old, kid = issue_token(ring), ring.all()[0].kid
    file.write_bytes(pems[1] + pems[0])
    watch.seconds = RELOAD_SECONDS + 1
    assert [key.kid for key in ring.all()][1] == kid
    assert make_access_tokens(ring).verify(issue_token(ring)).subject == "someone"
    assert make_access_tokens(ring).verify(old).subject == "someone"
    assert [key["kid"] for key in make_access_tokens(ring).jwks()["keys"]] == [
        k.kid for k in ring.all()
    ]


def test_a_removed_key_verifies_no_more(
    tmp_path: Path, pems: list[bytes], watch: FakeStopwatch
) -> None:
    """What it signed is refused, whether it left its file or its file is gone."""
    files = [tmp_path / "a.pem", tmp_path / "b.pem"]
    for file, pem in zip(files, pems, strict=True):
        file.write_bytes(pem)
    ring = KeyRing(files, watch)
    old = issue_token(ring)
    files[0].unlink()
    watch.seconds = RELOAD_SECONDS + 1
    with pytest.raises(Unauthenticated):
        make_access_tokens(ring).verify(old)
    assert make_access_tokens(ring).verify(issue_token(ring)).subject == "someone"


def test_a_key_that_another_process_uses_already_is_looked_for_at_once(
    tmp_path: Path, pems: list[bytes], watch: FakeStopwatch
) -> None:
    """A token of an unknown key makes the files be read sooner, and at most once a second."""
    file = tmp_path / "signing.pem"
    file.write_bytes(pems[0])
    ring = KeyRing([file], watch)
    file.write_bytes(pems[1] + pems[0])
    ahead = issue_token(KeyRing([file], watch))
    with pytest.raises(Unauthenticated):
        make_access_tokens(ring).verify(ahead)
    watch.seconds = UNKNOWN_KEY_RELOAD_SECONDS + 0.1
    assert make_access_tokens(ring).verify(ahead).subject == "someone"


@pytest.mark.parametrize("content", [b"", b"no key", None])
def test_a_broken_file_leaves_the_keys_as_they_were(
    tmp_path: Path, pems: list[bytes], watch: FakeStopwatch, content: bytes | None
) -> None:
    """An editor's slip takes nobody out, and the log tells of it."""
    file = tmp_path / "signing.pem"
    file.write_bytes(pems[0])
    ring = KeyRing([file], watch)
    token = issue_token(ring)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    watch.seconds = RELOAD_SECONDS + 1
    with capture_logs() as logs:
        assert make_access_tokens(ring).verify(token).subject == "someone"
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_fingerprints_outlive_a_new_key(
    tmp_path: Path, pems: list[bytes], watch: FakeStopwatch
) -> None:
    """What was remembered by the old key is still known, and needs the key to be made."""
    file = tmp_path / "signing.pem"
    file.write_bytes(pems[0])
    ring = KeyRing([file], watch)
    old = HmacFingerprints(ring).compute(b"a body")
    file.write_bytes(pems[1] + pems[0])
    watch.seconds = RELOAD_SECONDS + 1
    new = HmacFingerprints(ring).compute(b"a body")
    assert old[0] in new
    assert old[0] != new[0]
    assert not set(HmacFingerprints(ring).compute(b"another")) & set(new)


async def test_a_service_serves_its_keys(client: httpx.AsyncClient, key_file: Path) -> None:
    """The set holds the public half only, and a token names its key."""
    await join(client)
    keys = (await client.get("/.well-known/jwks.json")).json()["keys"]
    assert [key["kid"] for key in keys] == [key.kid for key in KeyRing([key_file]).all()]
    assert {name for key in keys for name in key} == {"kty", "kid", "use", "alg", "n", "e"}
