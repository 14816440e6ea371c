"""Public look-ups of codes."""

from dataclasses import replace

import pytest

from referral.core.entities.codes import Code
from referral.core.entities.users import User
from referral.core.errors import InvalidRequest, NoActiveCode
from tests.core.service import InMemoryService


@pytest.fixture
async def ann(service: InMemoryService) -> User:
    """A user."""
    return await service.create_account("Ann@example.com")


@pytest.fixture
async def code(service: InMemoryService, ann: User) -> Code:
    """A code of Ann's, active for an hour, with one use."""
    return await service.create_code(ann, text="Ann-2026", max_uses=1)


async def assert_unusable(service: InMemoryService) -> None:
    """Assert that neither look-up finds the code."""
    assert await service.check_code("Ann-2026") is None
    with pytest.raises(NoActiveCode) as raised:
        await service.look_up_code("ann@example.com")
    assert raised.value.detail == NoActiveCode.default_detail


@pytest.mark.parametrize("email", ["Ann@example.com", "ann@example.com", "ANN@EXAMPLE.COM"])
async def test_lookup_finds_a_code_by_its_owners_email(
    service: InMemoryService, code: Code, email: str
) -> None:
    """In any case."""
    assert await service.look_up_code(email) == code


@pytest.mark.parametrize("text", ["Ann-2026", "ANN-2026", "ann-2026"])
async def test_code_is_found_in_any_case(service: InMemoryService, code: Code, text: str) -> None:
    """Codes are case-insensitive."""
    assert await service.check_code(text) == code


@pytest.mark.parametrize("text", ["", "An", "Ann 2026", "Ann-2026\n", "x" * 33, "\0", "Änn-2026"])
async def test_invalid_code_text_is_not_queried(
    service: InMemoryService, code: Code, text: str
) -> None:
    """A malformed text is invalid without a database query."""
    assert code.text == "Ann-2026"
    assert await service.check_code(text) is None


async def test_unknown_email_has_no_code(service: InMemoryService, code: Code) -> None:
    """The error is that of an account without a code."""
    with pytest.raises(NoActiveCode) as raised:
        await service.look_up_code("bob@example.com")
    assert raised.value.detail == NoActiveCode.default_detail
    assert await service.check_code("BOB-2026") is None
    assert await service.check_code(code.text) == code


async def test_lookup_rejects_an_invalid_email(service: InMemoryService) -> None:
    """A look-up needs a valid e-mail address."""
    with pytest.raises(InvalidRequest):
        await service.look_up_code("ann")


async def test_expired_code_is_not_found(service: InMemoryService, code: Code) -> None:
    """From the instant of its expiry."""
    service.clock.advance(minutes=60, seconds=-1)
    assert await service.check_code(code.text) == code
    service.clock.advance(seconds=1)
    await assert_unusable(service)


async def test_exhausted_code_is_not_found(service: InMemoryService, code: Code) -> None:
    """A code without uses left is not found."""
    await service.create_account("bob@example.com", referral_code=code.text)
    await assert_unusable(service)


async def test_deactivated_code_is_not_found(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """A deactivated code is not found."""
    await service.deactivate_code(ann.id, code.id)
    await assert_unusable(service)


async def test_deleted_code_is_not_found(service: InMemoryService, ann: User, code: Code) -> None:
    """A deleted code is not found."""
    await service.delete_code(ann.id, code.id)
    await assert_unusable(service)


async def test_lookup_is_answered_from_the_cache_of_the_process(
    service: InMemoryService, code: Code
) -> None:
    """Once it was loaded, and until the code changes or expires."""
    is_cached = service.look_up_code.is_cached
    assert not is_cached("ann@example.com", code)
    await service.look_up_code("ann@example.com")
    assert is_cached("ANN@EXAMPLE.com", code)
    assert not is_cached("ann@example.com", replace(code, text="Other"))
    assert not is_cached("bob@example.com", code)
    service.clock.advance(minutes=60)
    assert not is_cached("ann@example.com", code)
