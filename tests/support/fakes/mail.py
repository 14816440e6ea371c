"""Fakes of the mail ports and of the job queue."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from referral.core.entities.jobs import Job
from referral.core.entities.mail import Mail
from tests.support.fakes.tables import Tables


@dataclass(frozen=True)
class FakeMailQuota:
    """Slots of the mail quotas in a dict."""

    tables: Tables

    async def reserve_slot(
        self, mail_id: UUID, quota: str, now: datetime, *, slots: int, window: timedelta
    ) -> datetime | None:
        if mail_id in self.tables.mail_slots:
            return None
        own = (
            at for to, at in self.tables.mail_slots.values() if to == quota and at > now - window
        )
        newest = sorted(own, reverse=True)
        if len(newest) >= slots:
            return newest[slots - 1] + window
        self.tables.mail_slots[mail_id] = (quota, now)
        return None

    async def reset(self, quota: str) -> None:
        for mail_id in [
            mail_id for mail_id, (to, _) in self.tables.mail_slots.items() if to == quota
        ]:
            del self.tables.mail_slots[mail_id]

    async def prune(self, before: datetime) -> bool:
        for mail_id in [
            mail_id for mail_id, (_, at) in self.tables.mail_slots.items() if at < before
        ]:
            del self.tables.mail_slots[mail_id]
        return False


@dataclass(frozen=True)
class FakeJobQueue:
    """The job queue in a dict, without a log to prune."""

    tables: Tables

    async def enqueue(self, *jobs: Job) -> None:
        for job in jobs:
            self.tables.jobs[len(self.tables.jobs)] = job

    async def prune(self, before: datetime) -> bool:  # noqa: ARG002 - there is no log
        return False


@dataclass
class FakeMailer:
    """Records the mails, or raises `error`."""

    sent: list[Mail] = field(default_factory=list)
    error: Exception | None = None

    async def send(self, mail: Mail) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(mail)
