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

MIN_BITS = 2048
PEM = re.compile(rb"-----BEGIN [A-Z ]+-----.*?-----END [A-Z ]+-----", re.DOTALL)

RECHECK = 30.0
"""After how many seconds the files are looked at again."""

URGENT = 1.0
"""How often that may be sooner, when a token names a key that is not known."""


@dataclass(frozen=True)
class SigningKey:
    """A private key, its public half as a JWK, and the thumbprint that names it (RFC 7638)."""

    private: RSAPrivateKey
    public: RSAPublicKey
    jwk: dict[str, str]
    seal: bytes

    @property
    def kid(self) -> str:
        """The key's name."""
        return self.jwk["kid"]


class KeyRing:
    """The keys in some files, the first of which signs; a file may hold several.

    A file that is gone takes its keys along, and one that cannot be read changes nothing: the
    service goes on with the keys it has, and says so in the log.
    """

    def __init__(
        self, files: Sequence[Path], elapsed: Callable[[], float] = time.monotonic
    ) -> None:
        """Read the files; raises `ValueError` or `OSError` for what is no key."""
        self._files = files
        self._elapsed = elapsed
        self._looked = elapsed()
        self._stamps = self._read_stamps()
        self._keys = _load(files)

    def all(self) -> tuple[SigningKey, ...]:
        """Return the keys, the one that signs first."""
        if self._elapsed() - self._looked > RECHECK:
            self._look()
        return self._keys

    def find(self, kid: str) -> SigningKey:
        """Return the key of that name, or raise `KeyError`; a new one is looked for at once."""
        found = _named(self.all(), kid)
        if found is None and self._elapsed() - self._looked > URGENT:
            self._look()
            found = _named(self._keys, kid)
        if found is None:
            raise KeyError(kid)
        return found

    def _look(self) -> None:
        self._looked = self._elapsed()
        stamps = self._read_stamps()
        if stamps == self._stamps:
            return
        self._stamps = stamps
        log = structlog.get_logger()
        try:
            self._keys = _load([path for path in self._files if path.exists()])
        except (OSError, ValueError) as error:
            log.warning("signing keys not read, the old ones stay in use", fault=str(error))
        else:
            log.info("signing keys read", kids=[key.kid for key in self._keys])

    def _read_stamps(self) -> list[tuple[int, int, int] | None]:
        return [_stamp(path) for path in self._files]


class KeyedFingerprints:
    """HMAC-SHA256, so that a dump of the database is no help in guessing what was sent."""

    def __init__(self, ring: KeyRing) -> None:
        """Take the keys from which those of the HMAC are derived."""
        self._ring = ring

    def of(self, data: bytes) -> tuple[bytes, ...]:
        """See the port."""
        return tuple(hmac.digest(key.seal, data, "sha256") for key in self._ring.all())


def load_keys(pem: bytes) -> list[SigningKey]:
    """Read RSA keys of at least 2,048 bits; raises `ValueError` with what is wrong."""
    return [_load_key(block) for block in PEM.findall(pem) or [pem]]


def _load(files: Sequence[Path]) -> tuple[SigningKey, ...]:
    keys = {key.kid: key for path in files for key in load_keys(path.read_bytes())}
    if not keys:
        fault = "no file of signing keys is left"
        raise ValueError(fault)
    return tuple(keys.values())


def _load_key(pem: bytes) -> SigningKey:
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        fault = "is no unencrypted private key in PEM form"
        raise ValueError(fault) from error
    if not isinstance(private, RSAPrivateKey) or private.key_size < MIN_BITS:
        fault = f"is no RSA key of {MIN_BITS} bits or more"
        raise ValueError(fault)
    public = private.public_key()
    numbers: dict[str, str] = RSAAlgorithm.to_jwk(public, as_dict=True)
    named = {name: numbers[name] for name in ("e", "kty", "n")}
    digest = hashlib.sha256(json.dumps(named, separators=(",", ":")).encode()).digest()
    kid = urlsafe_b64encode(digest).rstrip(b"=").decode()
    jwk = {**named, "kid": kid, "use": "sig", "alg": "RS256"}
    return SigningKey(private, public, jwk, _derive_seal(private))


def _derive_seal(private: RSAPrivateKey) -> bytes:
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return HKDF(SHA256(), 32, salt=None, info=b"referral fingerprints").derive(der)


def _named(keys: Sequence[SigningKey], kid: str) -> SigningKey | None:
    return next((key for key in keys if key.kid == kid), None)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    with suppress(OSError):
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    return None


def make_key_file(path: Path) -> None:
    """Make a key where there is none yet; of two who try at once, one wins for both."""
    make_private_folder(path.parent)
    if path.exists():
        return
    key = generate_private_key(public_exponent=65537, key_size=MIN_BITS)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    draft = path.with_suffix(f".{os.getpid()}")
    draft.unlink(missing_ok=True)
    opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(opened, "wb") as file:
        file.write(pem)
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()
