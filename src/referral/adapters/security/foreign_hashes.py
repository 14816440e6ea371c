"""Password hashes of other services: their forms, their costs, and their verification."""

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass

import bcrypt
from argon2 import Type
from argon2.exceptions import VerificationError
from argon2.low_level import verify_secret

MAX_HASH_CHARACTERS = 512

MAX_VERIFY_MILLISECONDS = 1_000
"""OWASP's Password Storage Cheat Sheet: computing a hash should take less than one second."""

MAX_MEMORY_KIB = 256 * 1024
"""The memory of libsodium's `MODERATE`, which is 13 times OWASP's first choice for argon2id."""

MAX_LANES = 16
"""Each lane of argon2 is computed in a thread of its own. passlib and Django use 8 at most."""

# Measured on a core of 2.5 GHz. Only the order of the costs and the limit above depend on them.
MICROSECONDS_PER_ARGON2_KIB = 0.6
MICROSECONDS_PER_BCRYPT_ROUND = 50
MICROSECONDS_PER_PBKDF2_ITERATION = 0.2
MICROSECONDS_PER_SCRYPT_BLOCK = 0.3

BCRYPT_MAX_PASSWORD_BYTES = 72
"""bcrypt ignores all bytes after these, as the services did that made the hashes."""

MIN_SALT_BYTES = 8
MIN_DIGEST_BYTES = 16
MAX_DIGEST_BYTES = 64
SHA256_BYTES = 32

BCRYPT_TEXT = r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}"
ARGON2 = re.compile(
    r"\$argon2(id?)(?:\$v=(?:16|19))?\$m=(\d{1,7}),t=(\d{1,7}),p=(\d{1,3})\$([\w+/]+)\$([\w+/]+)",
    re.ASCII,
)
BCRYPT = re.compile(BCRYPT_TEXT, re.ASCII)
DJANGO_BCRYPT = re.compile(rf"bcrypt_sha256\$({BCRYPT_TEXT})", re.ASCII)
DJANGO_PBKDF2 = re.compile(
    r"pbkdf2_sha256\$([1-9]\d{0,7})\$([!-#%-~]{1,128})\$([\w+/=]+)", re.ASCII
)
PASSLIB_PBKDF2 = re.compile(r"\$pbkdf2-sha256\$([1-9]\d{0,7})\$([\w./]*)\$([\w./]+)", re.ASCII)
SCRYPT = re.compile(
    r"\$scrypt\$ln=([1-9]\d?),r=([1-9]\d{0,3}),p=([1-9]\d{0,3})\$([\w+/]*)\$([\w+/]+)", re.ASCII
)


@dataclass(frozen=True, slots=True)
class ForeignHash:
    """A hash that this service can verify, though it makes others.

    `parameters` is equal for hashes that cost the same. `milliseconds` is an estimate. `lanes` are
    the threads that compute the hash at a time.
    """

    parameters: str
    milliseconds: int
    matches: Callable[[bytes], bool]
    memory_kib: int = 0
    lanes: int = 1


def parse_foreign_hash(text: str) -> ForeignHash:
    """Return the hash with its costs, or raise `ValueError` with the reason for an operator."""
    if len(text) > MAX_HASH_CHARACTERS:
        raise ValueError(f"has more than {MAX_HASH_CHARACTERS} characters")
    for pattern, parse in PARSERS:
        if match := pattern.fullmatch(text):
            parsed = parse(match)
            _check_costs(parsed)
            return parsed
    raise ValueError("is not a hash of a supported form; docs/migrating.md lists them")


def _check_costs(parsed: ForeignHash) -> None:
    if parsed.milliseconds > MAX_VERIFY_MILLISECONDS:
        seconds = parsed.milliseconds / 1000
        raise ValueError(f"would take about {seconds:.1f} s for each login; the maximum is 1 s")
    if parsed.memory_kib > MAX_MEMORY_KIB:
        raise ValueError(f"needs more than {MAX_MEMORY_KIB // 1024} MiB of memory for each login")


def _parse_argon2(match: re.Match[str]) -> ForeignHash:
    kind, *numbers, salt, digest = match.groups()
    memory_kib, passes, lanes = map(int, numbers)
    _check_size(_decode(salt), MIN_SALT_BYTES, MAX_HASH_CHARACTERS)
    _check_size(_decode(digest), MIN_DIGEST_BYTES, MAX_DIGEST_BYTES)
    if not (1 <= lanes <= MAX_LANES and passes >= 1 and memory_kib >= 8 * lanes):
        raise ValueError(f"has parameters that argon2 forbids, or more than {MAX_LANES} lanes")
    text, type_ = match[0].encode(), Type.ID if kind == "id" else Type.I

    def matches(password: bytes) -> bool:
        try:
            return verify_secret(text, password, type_)
        except VerificationError:
            return False

    parameters = f"argon2{kind} m={memory_kib},t={passes},p={lanes}"
    milliseconds = int(memory_kib * passes * MICROSECONDS_PER_ARGON2_KIB / 1000)
    return ForeignHash(parameters, milliseconds, matches, memory_kib, lanes)


def _parse_bcrypt(match: re.Match[str]) -> ForeignHash:
    text = match[0].encode()
    return _bcrypt(
        "bcrypt", match[1], lambda word: bcrypt.checkpw(word[:BCRYPT_MAX_PASSWORD_BYTES], text)
    )


def _parse_django_bcrypt(match: re.Match[str]) -> ForeignHash:
    text = match[1].encode()

    def matches(password: bytes) -> bool:
        return bcrypt.checkpw(hashlib.sha256(password).hexdigest().encode(), text)

    return _bcrypt("bcrypt", match[2], matches)


def _bcrypt(name: str, cost: str, matches: Callable[[bytes], bool]) -> ForeignHash:
    if not 4 <= int(cost) <= 31:  # noqa: PLR2004 - the limits of bcrypt
        raise ValueError("has a cost that bcrypt forbids")
    milliseconds = 2 ** int(cost) * MICROSECONDS_PER_BCRYPT_ROUND // 1000
    return ForeignHash(f"{name} {cost}", milliseconds, matches)


def _parse_django_pbkdf2(match: re.Match[str]) -> ForeignHash:
    return _pbkdf2(match[1], match[2].encode(), match[3])


def _parse_passlib_pbkdf2(match: re.Match[str]) -> ForeignHash:
    return _pbkdf2(match[1], _decode(match[2].replace(".", "+")), match[3].replace(".", "+"))


def _pbkdf2(iterations: str, salt: bytes, digest_text: str) -> ForeignHash:
    rounds, digest = int(iterations), _decode(digest_text)
    _check_size(digest, SHA256_BYTES, SHA256_BYTES)

    def matches(password: bytes) -> bool:
        computed = hashlib.pbkdf2_hmac("sha256", password, salt, rounds)
        return hmac.compare_digest(computed, digest)

    milliseconds = int(rounds * MICROSECONDS_PER_PBKDF2_ITERATION / 1000)
    return ForeignHash(f"pbkdf2 {rounds}", milliseconds, matches)


def _parse_scrypt(match: re.Match[str]) -> ForeignHash:
    log_n, r, p = (int(number) for number in match.groups()[:3])
    salt, digest = _decode(match[4]), _decode(match[5])
    _check_size(digest, MIN_DIGEST_BYTES, MAX_DIGEST_BYTES)
    memory_kib = 2**log_n * r // 8 + p * r // 8 + 1

    def matches(password: bytes) -> bool:
        computed = hashlib.scrypt(
            password,
            salt=salt,
            n=2**log_n,
            r=r,
            p=p,
            dklen=len(digest),
            maxmem=2 * MAX_MEMORY_KIB << 10,
        )
        return hmac.compare_digest(computed, digest)

    milliseconds = int(2**log_n * r * p * MICROSECONDS_PER_SCRYPT_BLOCK / 1000)
    return ForeignHash(f"scrypt ln={log_n},r={r},p={p}", milliseconds, matches, memory_kib)


def _decode(text: str) -> bytes:
    """Decode Base64 with or without padding, in the one spelling that encoders produce."""
    bare = text.rstrip("=")
    try:
        decoded = b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except ValueError as error:
        raise ValueError("has a part that is not Base64") from error
    if b64encode(decoded).decode().rstrip("=") != bare:
        raise ValueError("has a part that is not Base64")
    return decoded


def _check_size(value: bytes, least: int, most: int) -> None:
    if not least <= len(value) <= most:
        raise ValueError("has a salt or digest of the wrong length")


PARSERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], ForeignHash]], ...] = (
    (ARGON2, _parse_argon2),
    (BCRYPT, _parse_bcrypt),
    (DJANGO_PBKDF2, _parse_django_pbkdf2),
    (DJANGO_BCRYPT, _parse_django_bcrypt),
    (PASSLIB_PBKDF2, _parse_passlib_pbkdf2),
    (SCRYPT, _parse_scrypt),
)
