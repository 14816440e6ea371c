"""The port `SecretCipher`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from referral.adapters.security.keys import KeyRing, make_key_file
from referral.adapters.security.stored_secrets import AesGcmSecretCipher
from referral.core.ports.security import SecretCipher
from tests.support.fakes.security import FakeSecretCipher

MakeCipher = Callable[..., SecretCipher]


@pytest.fixture(scope="module")
def key_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three signing keys."""
    folder = tmp_path_factory.mktemp("keys")
    paths = [folder / f"{number}.pem" for number in range(3)]
    for path in paths:
        make_key_file(path)
    return paths


@pytest.fixture(params=["fake", "aes-gcm"])
def make_cipher(request: pytest.FixtureRequest, key_files: list[Path]) -> MakeCipher:
    """Make a cipher over the keys of these numbers, the first of which encrypts."""

    def make(*numbers: int) -> SecretCipher:
        if request.param == "aes-gcm":
            return AesGcmSecretCipher(KeyRing([key_files[number] for number in numbers]))
        fake = FakeSecretCipher()
        fake.keys = [f"key-{number}".encode() for number in numbers]
        return fake

    return make


def test_secret_is_decrypted_in_its_context_only(make_cipher: MakeCipher) -> None:
    """A secret that was copied to another row is worthless there."""
    cipher = make_cipher(0)
    encrypted = cipher.encrypt(b"secret", b"webhook 1")
    assert cipher.decrypt(encrypted, b"webhook 1") == b"secret"
    assert cipher.decrypt(encrypted, b"webhook 2") is None


def test_any_key_decrypts(make_cipher: MakeCipher) -> None:
    """In any order; without its key, a secret is lost."""
    encrypted = make_cipher(0).encrypt(b"secret", b"")
    assert make_cipher(1, 0).decrypt(encrypted, b"") == b"secret"
    assert make_cipher(1, 2).decrypt(encrypted, b"") is None


def test_secret_is_encrypted_again_with_the_first_key(make_cipher: MakeCipher) -> None:
    """Once, and if a key decrypts it."""
    encrypted = make_cipher(0).encrypt(b"secret", b"x")
    assert make_cipher(0, 1).reencrypt(encrypted, b"x") is None
    assert make_cipher(1).reencrypt(encrypted, b"x") is None
    assert make_cipher(1, 0).reencrypt(encrypted, b"y") is None
    again = make_cipher(1, 0).reencrypt(encrypted, b"x")
    assert again is not None
    assert make_cipher(1).decrypt(again, b"x") == b"secret"


def test_every_change_of_the_stored_bytes_is_noticed(key_files: list[Path]) -> None:
    """Of the nonce, the text and the tag; also a truncated or empty value."""
    cipher = AesGcmSecretCipher(KeyRing(key_files[:1]))
    encrypted = cipher.encrypt(b"secret", b"")
    assert b"secret" not in encrypted
    assert encrypted != cipher.encrypt(b"secret", b"")
    for position, byte in enumerate(encrypted):
        changed = encrypted[:position] + bytes([byte ^ 1]) + encrypted[position + 1 :]
        assert cipher.decrypt(changed, b"") is None
        assert cipher.decrypt(encrypted[:position], b"") is None
