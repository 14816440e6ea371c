"""The port `PasswordHasher`."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher as Argon2Hasher
from argon2 import Type, extract_parameters

from referral.adapters.security import passwords as module
from referral.adapters.security.passwords import (
    DECOY_HASH,
    ArgonPasswordHasher,
    load_common_passwords,
)
from referral.core.entities.passwords import MIN_PASSWORD_CHARACTERS
from referral.core.errors import Unavailable
from referral.core.ports.security import PasswordHasher
from tests.support.fakes.security import FakePasswordHasher
from tests.support.waiting import wait_until

PASSWORD = "correct horse battery"


@pytest.fixture
def argon() -> Iterator[ArgonPasswordHasher]:
    """The real hasher; its threads end with the test."""
    password_hasher = ArgonPasswordHasher()
    yield password_hasher
    password_hasher.close()


@pytest.fixture(params=["fake", "argon"])
def password_hasher(request: pytest.FixtureRequest) -> PasswordHasher:
    """The fake hasher, then the real one."""
    if request.param == "fake":
        return FakePasswordHasher()
    real: ArgonPasswordHasher = request.getfixturevalue("argon")
    return real


@pytest.mark.parametrize(
    "password",
    [PASSWORD, "пароль и ещё", "\U0001f40e" * 256, "nul\0nul\0", " " * 8],
    ids=["usual", "cyrillic", "longest", "nul", "spaces"],
)
async def test_password_matches_its_hash(password_hasher: PasswordHasher, password: str) -> None:
    """A character more or less, or another case, does not match."""
    hashed = await password_hasher.hash(password)
    assert await password_hasher.verify(password, hashed)
    for other in (f"{password}x", password[:-1], f"X{password[1:]}", ""):
        assert not await password_hasher.verify(other, hashed)


async def test_every_byte_of_a_password_counts(password_hasher: PasswordHasher) -> None:
    """Passwords that differ only at byte 73, or at the last of 1,024, are different."""
    for length in (73, 1024):
        same = "x" * (length - 1)
        hashed = await password_hasher.hash(f"{same}a")
        assert await password_hasher.verify(f"{same}a", hashed)
        assert not await password_hasher.verify(f"{same}b", hashed)


async def test_bytes_after_a_nul_count(password_hasher: PasswordHasher) -> None:
    """A NUL does not end a password."""
    assert not await password_hasher.verify("secret\0b", await password_hasher.hash("secret\0a"))


async def test_nothing_matches_without_a_hash(password_hasher: PasswordHasher) -> None:
    """Not even the text of the decoy hash, which is verified to take the same time."""
    for password in (PASSWORD, "", "the hash that an unknown address is compared with"):
        assert not await password_hasher.verify(password, None)


async def test_hashes_are_salted(password_hasher: PasswordHasher) -> None:
    """Equal passwords have different hashes."""
    assert await password_hasher.hash(PASSWORD) != await password_hasher.hash(PASSWORD)


async def test_hash_is_argon2id_with_owasp_parameters(argon: ArgonPasswordHasher) -> None:
    """At least 19 MiB, two passes and one lane; the decoy for unknown addresses is as slow."""
    real, decoy = (extract_parameters(text) for text in (await argon.hash(PASSWORD), DECOY_HASH))
    assert real == decoy
    assert real.type is Type.ID
    assert real.memory_cost >= 19 * 1024
    assert real.time_cost >= 2


async def test_full_queue_rejects(
    argon: ArgonPasswordHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Excess requests fail at once, waiting ones are served, and then there is capacity again."""
    monkeypatch.setattr(module, "MAX_QUEUED_HASHES", 3)
    waiting = [argon.verify(PASSWORD, None) for _ in range(4)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert results[:3] == [False] * 3
    assert isinstance(results[3], Unavailable)
    assert await argon.verify(PASSWORD, await argon.hash(PASSWORD))


async def test_burst_of_logins_is_queued(argon: ArgonPasswordHasher) -> None:
    """Two hundred concurrent logins wait for their turn."""
    tasks = [asyncio.create_task(argon.verify(PASSWORD, None)) for _ in range(200)]
    await wait_until(lambda: any(task.done() for task in tasks))
    assert not [task for task in tasks if task.done() and task.exception()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(("passes", "memory"), [(2, 9728), (1, 19456), (2, 64), (1, 8)])
async def test_verifying_an_outdated_hash_takes_as_long_as_a_current_one(
    argon: ArgonPasswordHasher, monkeypatch: pytest.MonkeyPatch, passes: int, memory: int
) -> None:
    """The missing work is added for right and wrong passwords alike."""
    older = Argon2Hasher(time_cost=passes, memory_cost=memory, parallelism=1).hash(PASSWORD)
    work: list[int] = []

    def record_work(_: bytes, __: bytes, time_cost: int, memory_cost: int, *___: object) -> bytes:
        work.append(time_cost * memory_cost)
        return b""

    monkeypatch.setattr(module, "hash_secret_raw", record_work)
    assert await argon.verify(PASSWORD, older)
    assert not await argon.verify("another", older)
    assert [passes * memory + added for added in work] == [module.VERIFY_COST_KIB] * 2
    work.clear()
    assert not await argon.verify(PASSWORD, None)
    assert not await argon.verify("another", await argon.hash(PASSWORD))
    assert work == []


async def test_verifying_an_invalid_hash_takes_as_long_as_a_valid_one(
    argon: ArgonPasswordHasher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time does not reveal an account either."""
    work: list[int] = []
    monkeypatch.setattr(module, "hash_secret_raw", lambda *of: work.append(of[2] * of[3]))
    assert not await argon.verify(PASSWORD, "!")
    assert work == [module.VERIFY_COST_KIB]


async def test_hash_with_other_parameters_needs_a_rehash(argon: ArgonPasswordHasher) -> None:
    """Be they lower or higher."""
    assert not argon.needs_rehash(await argon.hash(PASSWORD))
    for passes, memory in ((1, 19456), (2, 9728), (3, 19456)):
        other = Argon2Hasher(time_cost=passes, memory_cost=memory, parallelism=1)
        assert argon.needs_rehash(other.hash(PASSWORD))


def test_common_passwords() -> None:
    """Lower-case, of eight characters or more, and more than 3,000 (ASVS 5.0, 6.2.4)."""
    common = load_common_passwords()
    assert {"password", "12345678", "qwertyuiop", "password123", "iloveyou"} <= common
    assert len(common) > 3_000
    assert all(password == password.lower() for password in common)
    assert min(map(len, common)) == MIN_PASSWORD_CHARACTERS


LIST_OPENED_FILES = """
import sys
from pathlib import Path
import referral
from referral.adapters.security.passwords import load_common_passwords

opened = []
sys.addaudithook(lambda event, about: event == "open" and opened.append(Path(about[0])))
assert load_common_passwords()
print([Path(referral.__file__).parent in path.parents for path in opened])
"""


def test_common_passwords_are_part_of_the_package() -> None:
    """They are read from one file of this package, not from a dependency."""
    completed = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", LIST_OPENED_FILES], capture_output=True, text=True, check=False
    )
    assert (completed.stdout, completed.stderr) == ("[True]\n", "")
