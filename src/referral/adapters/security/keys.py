"""The service's RSA keys, in files that may change while it runs."""

import hashlib
import hmac
import json
import os
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import RSAAlgorithm

from referral.adapters.private_folders import make_private_folder

MIN_KEY_BITS = 2048
PEM_BLOCK = re.compile(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL)

RELOAD_SECONDS = 30.0
"""The interval between checks of the files for changes."""

UNKNOWN_KEY_RELOAD_SECONDS = 1.0
"""The interval when a token has an unknown key id, whose key may have just been added."""


@dataclass(frozen=True)
class SigningKey:
    """An RSA key pair, its public JWK, and the keys derived from it: for HMAC and for AES-256."""

    private: RSAPrivateKey
    public: RSAPublicKey
    jwk: dict[str, str]
    hmac_key: bytes
    encryption_key: bytes

    @property
    def kid(self) -> str:
        """The key id: the JWK thumbprint (RFC 7638)."""
        return self.jwk["kid"]


class KeyRing:
    """The keys of one or more files, reloaded when a file changes. The first key signs.

    A file may contain several keys. Deleting a file removes its keys. When a file cannot be read,
    the loaded keys stay in use and the log gets a warning.
    """

    def __init__(self, files: Sequence[Path], now: Callable[[], float] = time.monotonic) -> None:
        """Load the files; raises `OSError`, or `ValueError` for an invalid key."""
        self._files = files
        self._now = now
        self._checked_at = now()
        self._file_versions = self._read_file_versions()
        self._keys = _load_files(files)

    def all(self) -> tuple[SigningKey, ...]:
        """Return the keys, the signing key first."""
        if self._now() - self._checked_at > RELOAD_SECONDS:
            self._reload_changed()
        return self._keys

    def get(self, kid: str) -> SigningKey:
        """Return the key with an id, or raise `KeyError`; an unknown id checks the files early."""
        key = _find_key(self.all(), kid)
        if key is None and self._now() - self._checked_at > UNKNOWN_KEY_RELOAD_SECONDS:
            self._reload_changed()
            key = _find_key(self._keys, kid)
        if key is None:
            raise KeyError(kid)
        return key

    def _reload_changed(self) -> None:
        self._checked_at = self._now()
        file_versions = self._read_file_versions()
        if file_versions == self._file_versions:
            return
        self._file_versions = file_versions
        log = structlog.get_logger()
        try:
            self._keys = _load_files([path for path in self._files if path.exists()])
        except (OSError, ValueError) as error:
            log.warning("signing keys not reloaded, old keys stay in use", error=str(error))
        else:
            log.info("signing keys reloaded", kids=[key.kid for key in self._keys])

    def _read_file_versions(self) -> list[tuple[int, int, int] | None]:
        return [_file_version(path) for path in self._files]


class HmacFingerprinter:
    """HMAC-SHA256: guesses of the input cannot be tested with a database dump alone."""

    def __init__(self, key_ring: KeyRing) -> None:
        """The HMAC keys are derived from the signing keys."""
        self._key_ring = key_ring

    def compute(self, data: bytes) -> tuple[bytes, ...]:
        """Return the fingerprint with each key, the signing key's first."""
        return tuple(hmac.digest(key.hmac_key, data, "sha256") for key in self._key_ring.all())


def load_keys(pem: bytes) -> list[SigningKey]:
    """Parse PEM-encoded RSA keys; raises `ValueError` for an invalid or too short key."""
    return [_load_key(block) for block in PEM_BLOCK.findall(pem) or [pem]]


def _load_files(files: Sequence[Path]) -> tuple[SigningKey, ...]:
    keys = {key.kid: key for path in files for key in load_keys(path.read_bytes())}
    if not keys:
        raise ValueError("no signing key file is left")
    return tuple(keys.values())


def _load_key(pem: bytes) -> SigningKey:
    try:
        private_key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise ValueError("must be an unencrypted private key in PEM format") from error
    if not isinstance(private_key, RSAPrivateKey) or private_key.key_size < MIN_KEY_BITS:
        raise ValueError(f"must be an RSA key of {MIN_KEY_BITS} bits or more")
    public_key = private_key.public_key()
    public_jwk: dict[str, str] = RSAAlgorithm.to_jwk(public_key, as_dict=True)
    thumbprint_members = {name: public_jwk[name] for name in ("e", "kty", "n")}
    digest = hashlib.sha256(json.dumps(thumbprint_members, separators=(",", ":")).encode()).digest()
    kid = urlsafe_b64encode(digest).rstrip(b"=").decode()
    jwk = {**thumbprint_members, "kid": kid, "use": "sig", "alg": "RS256"}
    hmac_key = _derive_key(private_key, b"referral fingerprints")
    encryption_key = _derive_key(private_key, b"referral stored secrets")
    return SigningKey(private_key, public_key, jwk, hmac_key, encryption_key)


def _derive_key(private_key: RSAPrivateKey, purpose: bytes) -> bytes:
    der = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return HKDF(SHA256(), 32, salt=None, info=purpose).derive(der)


def _find_key(keys: Sequence[SigningKey], kid: str) -> SigningKey | None:
    return next((key for key in keys if key.kid == kid), None)


def _file_version(path: Path) -> tuple[int, int, int] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return None


def make_key_file(path: Path) -> None:
    """Create a key file unless it exists; processes that start together get the same key."""
    make_private_folder(path.parent)
    if path.exists():
        return
    key = generate_private_key(public_exponent=65537, key_size=MIN_KEY_BITS)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    with suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()
