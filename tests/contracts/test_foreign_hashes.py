"""Password hashes of other services: forms, limits, verification and its time."""

import time
from collections.abc import Iterator

import pytest

from referral.adapters.security import equal_time
from referral.adapters.security.equal_time import EqualTime
from referral.adapters.security.foreign_hashes import ForeignHash, parse_foreign_hash
from referral.adapters.security.passwords import DECOY_HASH, ArgonPasswordHasher
from referral.core.errors import InvalidRequest

PASSWORD = "correct horse battery"
ARGON2_DIGEST = "XosxZqyVEsJYy9m7l9L6Xw$6HWRnwbU0AhtIN4ZX2ZUlXznpL/JvZiBmBtlkxc/KnQ"
BCRYPT_DIGEST = "8nCPE1qGB2fds7KWTHMPP.lUtAeyk/9QgMTjqbE3SInr7ujHpN2ke"
PASSLIB_DIGEST = "35szhjCG8B5jDOEc47xXqg$LrbJ2nfB1ez2MVhYy1EKARrr4FWnxIUgPpYdFTGymhI"
SCRYPT_DIGEST = "OWcM4dybM0aotTbmnBNirA$4jh3pLnjdumOxYCix9v/QI6514mPuwyLBV8dnwFK7RM"
DJANGO_DIGEST = "GacV8oEzUl3KM0Mwey9yrMcTPKpkL4jXrFpbKB8oOnI="

# Made by passlib 1.7.4 with bcrypt 4.0, and by Django 5.2.
HASHES = {
    "argon2id": f"$argon2id$v=19$m=64,t=2,p=2${ARGON2_DIGEST}",
    "argon2i": "$argon2i$v=19$m=64,t=2,p=1$/99bq1VKaQ0hJISQ0jpHqA"
    "$c6KH/vVyFXHdA4ImAuN74j1XqLJPnNjx68JbBqzEpKM",
    "bcrypt 2a": "$2a$04$cZg0k.o1zX8E0xLkLm0TEu3Q73ZhiIOiiStAIhMvwDI/LlNateK/K",
    "bcrypt 2b": f"$2b$04${BCRYPT_DIGEST}",
    "bcrypt 2y": "$2y$04$NtuC8yedL5teaBjZ3nl4JetQjHRyd9601IUedh.IYhfyvdJVz76F6",
    "passlib pbkdf2": f"$pbkdf2-sha256$1000${PASSLIB_DIGEST}",
    "passlib scrypt": f"$scrypt$ln=4,r=8,p=1${SCRYPT_DIGEST}",
    "django pbkdf2": f"pbkdf2_sha256$1000$saltsaltsalt${DJANGO_DIGEST}",
    "django bcrypt": "bcrypt_sha256$$2b$04$dzF3qmzsK1E26ar4.I5jKu7gsf.gSSWHmYLTxtVqSlEiqNk5/DLlG",
}


@pytest.fixture
def argon() -> Iterator[ArgonPasswordHasher]:
    """The real hasher; its threads end with the test."""
    password_hasher = ArgonPasswordHasher()
    yield password_hasher
    password_hasher.close()


@pytest.mark.parametrize("text", HASHES.values(), ids=HASHES)
async def test_foreign_hash_matches_its_password(argon: ArgonPasswordHasher, text: str) -> None:
    """And no other password, with and without another hash whose time is waited for."""
    for costliest in (None, HASHES["bcrypt 2b"]):
        assert await argon.verify(PASSWORD, text, costliest)
        for other in (f"{PASSWORD}x", PASSWORD[:-1], PASSWORD.upper(), ""):
            assert not await argon.verify(other, text, costliest)
    assert argon.needs_rehash(text)
    assert argon.cost(text) is not None


async def test_own_hash_has_no_cost(argon: ArgonPasswordHasher) -> None:
    """It is what other hashes are replaced by."""
    assert argon.cost(await argon.hash(PASSWORD)) is None
    assert not argon.needs_rehash(DECOY_HASH)


def test_bcrypt_ignores_what_follows_72_bytes() -> None:
    """As the services did that made the hashes; a longer password is no error."""
    hundred = parse_foreign_hash("$2b$04$2FsakJYaHXDIOSrTuDyxIuoZjn2NhtyUsDrllIt9QJ2X9/WPoPk1m")
    assert hundred.matches(b"x" * 100)
    assert hundred.matches(b"x" * 72)
    assert not hundred.matches(b"x" * 71)
    django = parse_foreign_hash(HASHES["django bcrypt"])
    assert not django.matches(b"x" * 1024)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("$2b$15$" + BCRYPT_DIGEST, "1.6 s"),
        ("$2b$31$" + BCRYPT_DIGEST, "maximum is 1 s"),
        ("$2b$32$" + BCRYPT_DIGEST, "forbids"),
        ("$2b$03$" + BCRYPT_DIGEST, "forbids"),
        (f"pbkdf2_sha256$9999999$salt${DJANGO_DIGEST}", "maximum is 1 s"),
        (f"$pbkdf2-sha256$9999999${PASSLIB_DIGEST}", "maximum is 1 s"),
        (f"$argon2id$v=19$m=262145,t=1,p=1${ARGON2_DIGEST}", "256 MiB"),
        (f"$argon2id$v=19$m=262144,t=9,p=1${ARGON2_DIGEST}", "maximum is 1 s"),
        (f"$argon2id$v=19$m=1024,t=1,p=17${ARGON2_DIGEST}", "lanes"),
        (f"$argon2id$v=19$m=8,t=1,p=2${ARGON2_DIGEST}", "forbids"),
        (f"$argon2id$v=19$m=8,t=0,p=1${ARGON2_DIGEST}", "forbids"),
        (f"$scrypt$ln=20,r=8,p=1${SCRYPT_DIGEST}", "maximum is 1 s"),
        (f"$scrypt$ln=19,r=8,p=1${SCRYPT_DIGEST}", "maximum is 1 s"),
        (f"$scrypt$ln=99,r=9999,p=9999${SCRYPT_DIGEST}", "maximum is 1 s"),
    ],
)
def test_absurd_cost_is_refused(text: str, reason: str) -> None:
    """Nobody can make a login take long, or much memory, by an imported hash."""
    with pytest.raises(ValueError, match=reason):
        parse_foreign_hash(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!",
        "plain text",
        "5f4dcc3b5aa765d61d8327deb882cf99",
        "$2x$04$" + BCRYPT_DIGEST,
        "$2b$04$" + BCRYPT_DIGEST[:-1],
        "$2b$04$" + BCRYPT_DIGEST + "\n",
        "$2b$٠٤$" + BCRYPT_DIGEST,
        "$2b$04$" + BCRYPT_DIGEST[:21] + "A" + BCRYPT_DIGEST[22:],
        f"$argon2d$v=19$m=64,t=2,p=2${ARGON2_DIGEST}",
        f"$argon2id$v=19$m=64,t=2,p=2${ARGON2_DIGEST}=",
        f"$argon2id$v=18$m=64,t=2,p=2${ARGON2_DIGEST}",
        "$argon2id$v=19$m=64,t=2,p=2$c2FsdA$" + "A" * 43,
        "$argon2id$v=19$m=64,t=2,p=2$c29tZXNhbHQ$AAAA",
        f"pbkdf2_sha256$1000$saltsaltsalt${DJANGO_DIGEST[:-4]}",
        f"pbkdf2_sha1$1000$saltsaltsalt${DJANGO_DIGEST}",
        f"pbkdf2_sha256$0$saltsaltsalt${DJANGO_DIGEST}",
        f"pbkdf2_sha256$1000$saltsaltsalt$_{DJANGO_DIGEST[1:]}",
        "$pbkdf2-sha256$1000$a$" + "A" * 43,
        "$2b$04$" + BCRYPT_DIGEST + " " * 1_000,
        "$pbkdf2-sha256$1000$" + "A" * 1_000 + "$" + "A" * 43,
    ],
)
async def test_other_text_is_refused(argon: ArgonPasswordHasher, text: str) -> None:
    """It is an error of the line, and no password matches it should it be stored."""
    with pytest.raises(ValueError, match=r"^(is not|has)"):
        parse_foreign_hash(text)
    with pytest.raises(InvalidRequest) as raised:
        argon.cost(text)
    assert raised.value.field == "password_hash"
    assert not await argon.verify(PASSWORD, text)
    assert not await argon.verify(text, text, HASHES["bcrypt 2b"])


class FakeProcessor:
    """A clock that hashing advances; `speed` distorts the loop whose length is computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
        self.now = 0.0
        self.speed = 1.0
        self._seconds = seconds
        monkeypatch.setattr(time, "thread_time", lambda: self.now)
        monkeypatch.setattr(equal_time, "_iterate", self._iterate)
        monkeypatch.setattr(equal_time, "parse_foreign_hash", self._parse)

    def _iterate(self, iterations: int) -> None:
        self.now += iterations * 0.2e-6 * self.speed

    def _parse(self, text: str) -> ForeignHash:
        kind, _, password = text.partition(":")
        if kind not in self._seconds:
            raise ValueError(text)

        def matches(tried: bytes) -> bool:
            self.now += self._seconds[kind]
            return tried.decode() == password

        return ForeignHash(kind, 0, matches)


def test_each_failure_takes_as_long_as_the_costliest_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right passwords take what their hash takes; the load may change the speed meanwhile."""
    processor = FakeProcessor(monkeypatch, own=0.02, old=0.001, new=0.2)
    passwords = EqualTime("own:x")

    def measure(tried: bytes, text: str, costliest: str) -> float:
        started = processor.now
        assert passwords.verify(tried, text, costliest) is (tried == b"right")
        return processor.now - started

    for costliest in ("old:x", "new:x"):  # the first call also measures the hashes
        measure(b"wrong", "own:x", costliest)
    for speed in (1.0, 0.6, 1.2):
        processor.speed = speed
        times = [measure(b"wrong", text, "new:x") for text in ("own:x", "old:x", "new:x", "none")]
        assert times == pytest.approx([0.22] * 4, rel=0.21 if speed > 1 else 0.002)
    processor.speed = 1.0
    assert measure(b"wrong", "own:x", "old:x") == pytest.approx(0.022, rel=0.02)
    assert measure(b"right", "own:right", "new:x") == pytest.approx(0.02)
    assert measure(b"right", "new:right", "new:x") == pytest.approx(0.2)
