"""The keys of the service: RSA, in files that may change while it runs."""

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
"""After how many seconds the files are looked at again."""

UNKNOWN_KEY_RELOAD_SECONDS = 1.0
"""How often that may be sooner, when a token names a key that is not known."""


@dataclass(frozen=True)
class SigningKey:
    """A private key, its public half as a JWK, and the thumbprint that names it (RFC 7638)."""

    private: RSAPrivateKey
    public: RSAPublicKey
    jwk: dict[str, str]
    hmac_key: bytes

    @property
    def kid(self) -> str:
        """The key's name."""
        return self.jwk["kid"]


class KeyRing:
    """The keys in some files, the first of which signs; a file may hold several.

    A file that is gone takes its keys along, and one that cannot be read changes nothing: the
    service goes on with the keys it has, and says so in the log.
    """

    def __init__(self, files: Sequence[Path], now: Callable[[], float] = time.monotonic) -> None:
        """Read the files; raises `ValueError` or `OSError` for what is no key."""
        self._files = files
        self._now = now
        self._checked_at = now()
        self._file_versions = self._read_file_versions()
        self._keys = _load_files(files)

    def all(self) -> tuple[SigningKey, ...]:
        """Return the keys, the one that signs first."""
        if self._now() - self._checked_at > RELOAD_SECONDS:
            self._reload_changed()
        return self._keys

    def get(self, kid: str) -> SigningKey:
        """Return the key of that name, or raise `KeyError`; a new one is looked for at once."""
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
            log.warning("signing keys not read, the old ones stay in use", fault=str(error))
        else:
            log.info("signing keys read", kids=[key.kid for key in self._keys])

    def _read_file_versions(self) -> list[tuple[int, int, int] | None]:
        return [_file_version(path) for path in self._files]


class HmacFingerprints:
    """HMAC-SHA256, so that a dump of the database is no help in guessing what was sent."""

    def __init__(self, key_ring: KeyRing) -> None:
        """Take the keys from which those of the HMAC are derived."""
        self._key_ring = key_ring

    def compute(self, data: bytes) -> tuple[bytes, ...]:
        """See the port."""
        return tuple(hmac.digest(key.hmac_key, data, "sha256") for key in self._key_ring.all())


def load_keys(pem: bytes) -> list[SigningKey]:
    """Read RSA keys of at least 2,048 bits; raises `ValueError` with what is wrong."""
    return [_load_key(block) for block in PEM_BLOCK.findall(pem) or [pem]]


def _load_files(files: Sequence[Path]) -> tuple[SigningKey, ...]:
    keys = {key.kid: key for path in files for key in load_keys(path.read_bytes())}
    if not keys:
        problem = "no file of signing keys is left"
        raise ValueError(problem)
    return tuple(keys.values())


def _load_key(pem: bytes) -> SigningKey:
    try:
        private_key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        problem = "is no unencrypted private key in PEM form"
        raise ValueError(problem) from error
    if not isinstance(private_key, RSAPrivateKey) or private_key.key_size < MIN_KEY_BITS:
        problem = f"is no RSA key of {MIN_KEY_BITS} bits or more"
        raise ValueError(problem)
    public_key = private_key.public_key()
    public_jwk: dict[str, str] = RSAAlgorithm.to_jwk(public_key, as_dict=True)
    thumbprint_members = {name: public_jwk[name] for name in ("e", "kty", "n")}
    digest = hashlib.sha256(json.dumps(thumbprint_members, separators=(",", ":")).encode()).digest()
    kid = urlsafe_b64encode(digest).rstrip(b"=").decode()
    jwk = {**thumbprint_members, "kid": kid, "use": "sig", "alg": "RS256"}
    return SigningKey(private_key, public_key, jwk, _derive_hmac_key(private_key))


def _derive_hmac_key(private_key: RSAPrivateKey) -> bytes:
    der = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return HKDF(SHA256(), 32, salt=None, info=b"referral fingerprints").derive(der)


def _find_key(keys: Sequence[SigningKey], kid: str) -> SigningKey | None:
    return next((key for key in keys if key.kid == kid), None)


def _file_version(path: Path) -> tuple[int, int, int] | None:
    with suppress(OSError):
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns
    return None


def make_key_file(path: Path) -> None:
    """Make a key where there is none yet; of two who try at once, one wins for both."""
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
