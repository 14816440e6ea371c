"""Idempotency keys: a repeated request has one effect and gets the stored response."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from referral.core.entities.codes import Expiry
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.users import User
from referral.core.errors import EmailTaken, IdempotencyKeyReused
from referral.core.policies.idempotency import FindStoredResponse, IdempotentReplay
from referral.core.use_cases.accounts import NewAccount
from referral.core.use_cases.codes import NewCode
from referral.core.use_cases.email_links import RequestConfirmationMail, RequestPasswordReset
from referral.core.use_cases.notifications import RequestCodeMail
from tests.core.service import PASSWORD, InMemoryService

Request = IdempotentRequest[Any]
Send = Callable[[InMemoryService, User, Request], Awaitable[object]]

KEY = b"key"
NEW_CODE = NewCode(Expiry(lifetime_minutes=10_000))


def make_request(*digests: bytes) -> Request:
    """Return a request; its response holds the type of the result."""
    return IdempotentRequest(KEY, digests, lambda result: {"body": type(result).__name__})


REQUEST = make_request(b"body", b"body under an older key")


async def register(service: InMemoryService, _: User, request: Request) -> None:
    """Register."""
    await service.register(NewAccount("bob@example.com", PASSWORD), request)


async def issue_code(service: InMemoryService, ann: User, request: Request) -> None:
    """Issue a second code, which is not activated."""
    await service.issue_code(ann.id, NewCode(NEW_CODE.expiry, activate=False), request)


async def request_confirmation(service: InMemoryService, ann: User, request: Request) -> None:
    """Request a confirmation mail."""
    await service.get(RequestConfirmationMail)(ann.id, request)


async def request_code_mail(service: InMemoryService, ann: User, request: Request) -> None:
    """Request the active code by mail."""
    await service.get(RequestCodeMail)(ann.id, request)


async def request_reset(service: InMemoryService, ann: User, request: Request) -> None:
    """Request a password reset mail."""
    await service.get(RequestPasswordReset)(ann.email, request)


SENDS: list[tuple[Send, str]] = [
    (register, "User"),
    (issue_code, "Code"),
    (request_confirmation, "NoneType"),
    (request_code_mail, "NoneType"),
    (request_reset, "NoneType"),
]


@pytest.fixture
async def ann(service: InMemoryService) -> User:
    """A user with an active code."""
    ann = await service.create_account("ann@example.com")
    await service.issue_code(ann.id, NEW_CODE)
    return ann


async def count_effects(service: InMemoryService) -> tuple[int, int, int]:
    """Return the number of accounts, codes and jobs."""
    async with service.database.read() as repositories:
        tables = repositories.tables
        return len(tables.users), len(tables.codes), len(tables.jobs)


@pytest.mark.parametrize(("send", "result"), SENDS)
async def test_repeated_request_gets_the_stored_response(
    service: InMemoryService, ann: User, send: Send, result: str
) -> None:
    """For 24 hours, also under a newer signing key; nothing is done twice."""
    await send(service, ann, REQUEST)
    effects = await count_effects(service)
    service.clock.advance(hours=24)
    for request in (REQUEST, make_request(b"body under a newer key", b"body")):
        with pytest.raises(IdempotentReplay) as replay:
            await send(service, ann, request)
        assert replay.value.response == {"body": result}
        with pytest.raises(IdempotentReplay) as found:
            await service.get(FindStoredResponse)(KEY, request.request_digests)
        assert found.value.response == {"body": result}
    assert await count_effects(service) == effects


@pytest.mark.parametrize(("send", "result"), SENDS)
async def test_key_is_forgotten_after_24_hours(
    service: InMemoryService, ann: User, send: Send, result: str
) -> None:
    """The request is processed again; a second registration fails for its own reason."""
    await send(service, ann, REQUEST)
    service.clock.advance(hours=24, microseconds=1)
    await service.get(FindStoredResponse)(KEY, REQUEST.request_digests)
    if result == "User":
        with pytest.raises(EmailTaken):
            await send(service, ann, REQUEST)
    else:
        await send(service, ann, REQUEST)


@pytest.mark.parametrize(("send", "_result"), SENDS)
async def test_key_cannot_be_used_for_another_body(
    service: InMemoryService, ann: User, send: Send, _result: str
) -> None:
    """The error tells the client to use a new key, and nothing is done."""
    await send(service, ann, REQUEST)
    effects = await count_effects(service)
    for other in (make_request(b"other body"), make_request(b"body under an older key")):
        with pytest.raises(IdempotencyKeyReused):
            await send(service, ann, other)
        with pytest.raises(IdempotencyKeyReused):
            await service.get(FindStoredResponse)(KEY, other.request_digests)
    assert await count_effects(service) == effects


async def test_failed_request_stores_no_response(service: InMemoryService, ann: User) -> None:
    """It changed nothing, so it is processed again."""
    with pytest.raises(EmailTaken):
        await service.register(NewAccount(ann.email, PASSWORD), REQUEST)
    await service.get(FindStoredResponse)(KEY, REQUEST.request_digests)
    await service.register(NewAccount("bob@example.com", PASSWORD), REQUEST)


@pytest.mark.parametrize(("send", "result"), SENDS)
async def test_erasure_deletes_the_stored_responses(
    service: InMemoryService, ann: User, send: Send, result: str
) -> None:
    """They may contain data of the user; those of other users stay."""
    await send(service, ann, REQUEST)
    owner, other = "bob@example.com", ann
    if result != "User":
        owner, other = ann.email, await service.create_account("cid@example.com")
    await service.erase_account(other.id, PASSWORD)
    with pytest.raises(IdempotentReplay):
        await service.get(FindStoredResponse)(KEY, REQUEST.request_digests)
    async with service.database.read() as repositories:
        user = await repositories.users.find_by_email(owner)
    assert user is not None
    await service.erase_account(user.id, PASSWORD)
    await service.get(FindStoredResponse)(KEY, REQUEST.request_digests)
