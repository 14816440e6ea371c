"""The ports `Clock`, `IdGenerator`, `CodeGenerator` and `TokenGenerator`."""

import hashlib
from base64 import urlsafe_b64decode
from datetime import timedelta
from uuid import RFC_4122

import pytest

from referral.adapters.system import (
    RandomCodeGenerator,
    RandomTokenGenerator,
    SystemClock,
    SystemIdGenerator,
)
from referral.core.entities.codes import CODE_PATTERN, GENERATED_CODE_ALPHABET
from referral.core.ports.security import TokenGenerator
from referral.core.ports.system import Clock, CodeGenerator, IdGenerator
from tests.support.fakes.security import FakeTokenGenerator
from tests.support.fakes.system import FakeClock, FakeCodeGenerator, FakeIdGenerator

SAMPLE_SIZE = 1000
NAMES = ["fake", "real"]


@pytest.mark.parametrize("clock", [FakeClock(), SystemClock()], ids=NAMES)
def test_clock_is_monotonic_and_in_utc(clock: Clock) -> None:
    """Its times are aware, and a later one is not earlier."""
    times = [clock.now() for _ in range(SAMPLE_SIZE)]
    assert {time.utcoffset() for time in times} == {timedelta(0)}
    assert times == sorted(times)


@pytest.mark.parametrize("id_generator", [FakeIdGenerator(), SystemIdGenerator()], ids=NAMES)
def test_ids_are_sortable_uuid7(id_generator: IdGenerator) -> None:
    """A later id sorts after an earlier one, as number, as bytes and as text."""
    generated = [id_generator.new() for _ in range(SAMPLE_SIZE)]
    assert {(each.version, each.variant) for each in generated} == {(7, RFC_4122)}
    assert len(set(generated)) == SAMPLE_SIZE
    assert generated == sorted(generated)
    assert [str(each) for each in generated] == sorted(map(str, generated))


@pytest.mark.parametrize("code_generator", [FakeCodeGenerator(), RandomCodeGenerator()], ids=NAMES)
def test_generated_codes_are_valid_and_unique(code_generator: CodeGenerator) -> None:
    """They have eight characters."""
    generated = [code_generator.new() for _ in range(SAMPLE_SIZE)]
    assert all(CODE_PATTERN.fullmatch(text) and len(text) == 8 for text in generated)
    assert len(set(generated)) == SAMPLE_SIZE


def test_generated_codes_have_no_look_alikes() -> None:
    """All 31 characters occur, and 0, 1, I, L and O do not."""
    generated = "".join(RandomCodeGenerator().new() for _ in range(SAMPLE_SIZE))
    assert set(generated) == set(GENERATED_CODE_ALPHABET)
    assert len(GENERATED_CODE_ALPHABET) == 31
    assert not set(GENERATED_CODE_ALPHABET) & set("01ILO")
    assert GENERATED_CODE_ALPHABET.upper() == GENERATED_CODE_ALPHABET


@pytest.mark.parametrize(
    "token_generator", [FakeTokenGenerator(), RandomTokenGenerator()], ids=NAMES
)
def test_token_digest_is_sha256(token_generator: TokenGenerator) -> None:
    """Tokens are unique, and the digest is a plain SHA-256 of the text."""
    generated = [token_generator.new() for _ in range(SAMPLE_SIZE)]
    assert len(set(generated)) == SAMPLE_SIZE
    for secret in generated[:10]:
        assert token_generator.digest(secret) == hashlib.sha256(secret.encode()).digest()


@pytest.mark.parametrize(
    "token_generator", [FakeTokenGenerator(), RandomTokenGenerator()], ids=NAMES
)
@pytest.mark.parametrize("text", ["", "\0", "ж", "\ud800"], ids=ascii)
def test_every_text_has_a_digest(token_generator: TokenGenerator, text: str) -> None:
    """Clients may send any text as a token."""
    assert len(token_generator.digest(text)) == 32


def test_token_has_256_bits() -> None:
    """In characters that need no quoting in a URL or a form."""
    generated = {urlsafe_b64decode(RandomTokenGenerator().new() + "=") for _ in range(SAMPLE_SIZE)}
    assert {len(each) for each in generated} == {32}
