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
def test_clock_is_monotonic_and_in_utc(clock: Clock) -> None:
    """Its times are aware, and a later one is not earlier."""
    times = [clock.now() for _ in range(SAMPLE_SIZE)]
    assert {time.utcoffset() for time in times} == {timedelta(0)}
    assert times == sorted(times)


@pytest.mark.parametrize("ids", [FakeIdGenerator(), SystemIdGenerator()], ids=NAMES)
def test_ids_are_sortable_uuid7(ids: IdGenerator) -> None:
    """A later id sorts after an earlier one, as number, as bytes and as text."""
    made = [ids.new() for _ in range(SAMPLE_SIZE)]
    assert {(each.version, each.variant) for each in made} == {(7, RFC_4122)}
    assert len(set(made)) == SAMPLE_SIZE
    assert made == sorted(made)
    assert [str(each) for each in made] == sorted(map(str, made))


@pytest.mark.parametrize("code_texts", [FakeCodeGenerator(), RandomCodeGenerator()], ids=NAMES)
def test_generated_codes_are_valid_and_unique(code_texts: CodeGenerator) -> None:
    """They have eight characters."""
    made = [code_texts.new() for _ in range(SAMPLE_SIZE)]
    assert all(CODE_PATTERN.fullmatch(text) and len(text) == 8 for text in made)
    assert len(set(made)) == SAMPLE_SIZE


def test_generated_codes_have_no_look_alikes() -> None:
    """All 31 characters occur, and 0, 1, I, L and O do not."""
    made = "".join(RandomCodeGenerator().new() for _ in range(SAMPLE_SIZE))
    assert set(made) == set(CODE_ALPHABET)
    assert len(CODE_ALPHABET) == 31
    assert not set(CODE_ALPHABET) & set("01ILO")
    assert CODE_ALPHABET.upper() == CODE_ALPHABET


@pytest.mark.parametrize("secrets", [FakeTokenGenerator(), RandomTokenGenerator()], ids=NAMES)
def test_token_digest_is_sha256(secrets: TokenGenerator) -> None:
    """Tokens are unique, and the digest is a plain SHA-256 of the text."""
    made = [secrets.new() for _ in range(SAMPLE_SIZE)]
    assert len(set(made)) == SAMPLE_SIZE
    for secret in made[:10]:
        assert secrets.digest(secret) == hashlib.sha256(secret.encode()).digest()


@pytest.mark.parametrize("secrets", [FakeTokenGenerator(), RandomTokenGenerator()], ids=NAMES)
@pytest.mark.parametrize("text", ["", "\0", "ж", "\ud800"], ids=ascii)
def test_every_text_has_a_digest(secrets: TokenGenerator, text: str) -> None:
    """Clients may send any text as a token."""
    assert len(secrets.digest(text)) == 32


def test_token_has_256_bits() -> None:
    """In characters that need no quoting in a URL or a form."""
    made = {urlsafe_b64decode(RandomTokenGenerator().new() + "=") for _ in range(SAMPLE_SIZE)}
    assert {len(each) for each in made} == {32}
