"""The ports `Clock`, `IdGenerator`, `CodeGenerator` and `TokenGenerator`."""

import hashlib
from base64 import urlsafe_b64decode
from datetime import timedelta
from uuid import RFC_4122

import pytest

from referral.adapters.system import (
    CODE_ALPHABET,
    RandomCodeGenerator,
    RandomTokenGenerator,
    SystemClock,
    SystemIdGenerator,
)
from referral.core.entities.codes import CODE_PATTERN
from referral.core.ports.security import TokenGenerator
from referral.core.ports.system import Clock, CodeGenerator, IdGenerator
from tests.support.fakes.ports import (
    FakeClock,
    FakeCodeGenerator,
    FakeIdGenerator,
    FakeTokenGenerator,
)

SAMPLE_SIZE = 1000
NAMES = ["fake", "real"]


@pytest.mark.parametrize("clock", [FakeClock(), SystemClock()], ids=NAMES)
def test_the_clock_is_in_utc_and_goes_forward(clock: Clock) -> None:
    """Its times are aware, and a later one is not earlier."""
    times = [clock.now() for _ in range(SAMPLE_SIZE)]
    assert {time.utcoffset() for time in times} == {timedelta(0)}
    assert times == sorted(times)


@pytest.mark.parametrize("ids", [FakeIdGenerator(), SystemIdGenerator()], ids=NAMES)
def test_ids_are_of_version_7_and_grow(ids: IdGenerator) -> None:
    """A later one sorts after an earlier one, as number, as bytes and as text."""
    made = [ids.new() for _ in range(SAMPLE_SIZE)]
    assert {(each.version, each.variant) for each in made} == {(7, RFC_4122)}
    assert len(set(made)) == SAMPLE_SIZE
    assert made == sorted(made)
    assert [str(each) for each in made] == sorted(map(str, made))


@pytest.mark.parametrize("code_texts", [FakeCodeGenerator(), RandomCodeGenerator()], ids=NAMES)
def test_made_up_texts_are_eight_characters_of_a_code(code_texts: CodeGenerator) -> None:
    """Each is one that a code may have, and another than the ones before."""
    made = [code_texts.new() for _ in range(SAMPLE_SIZE)]
    assert all(CODE_PATTERN.fullmatch(text) and len(text) == 8 for text in made)
    assert len(set(made)) == SAMPLE_SIZE


def test_made_up_texts_have_no_look_alikes() -> None:
    """All 31 characters come up, and those that are misread do not."""
    made = "".join(RandomCodeGenerator().new() for _ in range(SAMPLE_SIZE))
    assert set(made) == set(CODE_ALPHABET)
    assert len(CODE_ALPHABET) == 31
    assert not set(CODE_ALPHABET) & set("01ILO")
    assert CODE_ALPHABET.upper() == CODE_ALPHABET


@pytest.mark.parametrize("secrets", [FakeTokenGenerator(), RandomTokenGenerator()], ids=NAMES)
def test_a_secret_is_stored_as_its_sha_256(secrets: TokenGenerator) -> None:
    """No two are the same, and the digest is a plain SHA-256 of the text."""
    made = [secrets.new() for _ in range(SAMPLE_SIZE)]
    assert len(set(made)) == SAMPLE_SIZE
    for secret in made[:10]:
        assert secrets.digest(secret) == hashlib.sha256(secret.encode()).digest()


@pytest.mark.parametrize("secrets", [FakeTokenGenerator(), RandomTokenGenerator()], ids=NAMES)
@pytest.mark.parametrize("text", ["", "\0", "ж", "\ud800"], ids=ascii)
def test_anything_has_a_digest(secrets: TokenGenerator, text: str) -> None:
    """Whatever is played as a token is looked for under 32 bytes."""
    assert len(secrets.digest(text)) == 32


def test_a_secret_has_256_bits() -> None:
    """In characters that need no quoting in a URL or a form."""
    made = {urlsafe_b64decode(RandomTokenGenerator().new() + "=") for _ in range(SAMPLE_SIZE)}
    assert {len(each) for each in made} == {32}
