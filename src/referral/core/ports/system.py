"""The time, ids, codes, the log, links and what watches over the service."""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from referral.core.entities.jobs import Job, JobContext


class Clock(Protocol):
    """The time, in UTC."""

    def now(self) -> datetime: ...


class IdGenerator(Protocol):
    """New UUIDv7 ids: a later one sorts after an earlier one."""

    def new(self) -> UUID: ...


class CodeGenerator(Protocol):
    """Made-up texts of referral codes, from a CSPRNG."""

    def new(self) -> str: ...


class SecurityLog(Protocol):
    """The log, for what an operator has to hear of; no secret and no address goes into it."""

    def warn(self, event: str, **facts: str) -> None: ...


class Metrics(Protocol):
    """How the service does, as figures for whoever watches over it; telling them never fails."""

    @property
    def content_type(self) -> str: ...

    async def render(self) -> bytes: ...


class HealthProbe(Protocol):
    """A part of the service that can be asked whether it answers."""

    @property
    def name(self) -> str: ...

    async def check(self) -> str:
        """Tell in a word how the part is, or raise `Unavailable`."""
        ...


class LinkBuilder(Protocol):
    """Addresses within this service."""

    def docs(self) -> str: ...

    def share(self, code: str) -> str: ...

    def unsubscribe(self, token: str) -> str: ...

    def confirm(self, token: str) -> str: ...

    def reset(self, token: str) -> str: ...


class QrCodeRenderer(Protocol):
    """QR codes of links."""

    def svg(self, link: str) -> bytes: ...

    def png(self, link: str) -> bytes: ...


class JobHandler(Protocol):
    """Does a job of any kind; raises `Later` or `MailRefused`, anything else is tried again."""

    async def __call__(self, job: Job, context: JobContext, /) -> None: ...
