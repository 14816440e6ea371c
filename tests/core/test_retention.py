"""Pruning of old rows, in bounded transactions."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from referral.core.entities.deliverability import Deliverability
from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.entities.idempotency import IdempotentRequest
from referral.core.entities.jobs import JobContext, PruneJob
from referral.core.errors import Unauthenticated
from referral.core.use_cases.job_dispatch import DispatchJob
from tests.core.service import CLIENT_IP, PASSWORD, InMemoryService
from tests.support.fakes.mail import FakeJobQueue
from tests.support.fakes.repositories import FakeUserRepository

MICROSECOND = timedelta(microseconds=1)


async def prune(service: InMemoryService) -> None:
    """Run the job that prunes."""
    await service.get(DispatchJob)(PruneJob(), JobContext(UUID(int=7), 0))


async def store_rows(service: InMemoryService) -> None:
    """Store one row of each kind that is pruned; the link expires after an hour."""
    ann = await service.create_account("ann@example.com")
    await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    now, hour = service.clock.now(), timedelta(hours=1)
    request: IdempotentRequest[Any] = IdempotentRequest(b"key", (b"body",), lambda _: {})
    async with service.database.begin() as repositories:
        await repositories.one_time_tokens.add(
            OneTimeToken(b"digest", ann.id, TokenPurpose.RESET, now + hour)
        )
        await repositories.idempotency.save(request, {}, ann.id, now)
        await repositories.mail_quota.reserve_slot(
            UUID(int=1), ann.email_key, now, slots=1, window=hour
        )
        await repositories.verification_results.save(b"ann", Deliverability.VALID, now)
        await repositories.referred_emails.add(b"ann", now)
        await repositories.events.publish(1, wait=False)


@pytest.mark.parametrize(
    ("table", "longest"),
    [
        ("sessions", timedelta(days=30) - MICROSECOND),
        ("one_time_tokens", timedelta(hours=1) - MICROSECOND),
        ("idempotent_responses", timedelta(hours=24)),
        ("mail_slots", timedelta(days=1)),
        ("verification_results", timedelta(days=30)),
        ("referred_emails", timedelta(days=365)),
        ("user_networks", timedelta(days=30)),
        ("events", timedelta(days=30)),
    ],
)
async def test_rows_are_pruned_after_their_retention(
    service: InMemoryService, table: str, longest: timedelta
) -> None:
    """Neither earlier, while they have an effect, nor later, since some are personal data."""
    await store_rows(service)
    for age, count in ((longest, 1), (MICROSECOND, 0)):
        service.clock.advance(seconds=age.total_seconds())
        await prune(service)
        async with service.database.read() as repositories:
            assert len(getattr(repositories.tables, table)) == count


async def test_job_log_is_pruned_after_a_week(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It serves to investigate failed jobs."""
    pruned: list[datetime] = []

    async def record(_: FakeJobQueue, before: datetime) -> bool:
        pruned.append(before)
        return False

    monkeypatch.setattr(FakeJobQueue, "prune", record)
    await prune(service)
    assert pruned == [service.clock.now() - timedelta(days=7)]


def answers_of_three_calls(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> Iterator[bool]:
    """Make a method report twice that rows are left, and then that none is."""
    answers = iter([True, True, False])

    async def answer(*_: object) -> bool:
        return next(answers)

    monkeypatch.setattr(owner, name, answer)
    return answers


async def test_pruning_continues_until_no_row_is_left(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction deletes a bounded number of rows, so that it does not lock many for long."""
    answers = answers_of_three_calls(monkeypatch, FakeJobQueue, "prune")
    await prune(service)
    assert list(answers) == []


async def test_deadlines_are_cleared_until_none_is_left(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in bounded transactions."""
    answers = answers_of_three_calls(
        monkeypatch, FakeUserRepository, "clear_confirmation_deadlines"
    )
    await prune(service)
    assert list(answers) == []


async def test_the_same_job_erases_unconfirmed_accounts(service: InMemoryService) -> None:
    """All that are overdue, and no confirmed one."""
    service.configure(email_verification="on")
    users = [await service.create_account(f"u{number}@example.com") for number in range(3)]
    token = await service.create_mail_token(users[0])
    await service.confirm_email(token, caller_id=users[0].id, password=None, client_ip=CLIENT_IP)
    service.clock.advance(days=30)
    await prune(service)
    assert (await service.show_account(users[0].id)).user.email_verified
    for user in users[1:]:
        with pytest.raises(Unauthenticated):
            await service.show_account(user.id)
