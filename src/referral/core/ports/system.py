"""Clock, generators, security log, metrics, health probes, links and job handler."""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from referral.core.entities.jobs import Job, JobContext


class Clock(Protocol):
    """The current time, in UTC."""

    def now(self) -> datetime: ...


class IdGenerator(Protocol):
    """Generates UUIDv7 ids, which sort by time of creation."""

    def new(self) -> UUID: ...


class CodeGenerator(Protocol):
    """Generates texts of referral codes, with a CSPRNG."""

    def new(self) -> str: ...


class SecurityLog(Protocol):
    """The log of security events. Secrets and e-mail addresses must not be logged."""

    def warn(self, event: str, **facts: str) -> None: ...


class Metrics(Protocol):
    """Metrics for a monitoring system; `render` never raises."""

    @property
    def content_type(self) -> str: ...

    async def render(self) -> bytes: ...


class HealthProbe(Protocol):
    """The health check of one component."""

    @property
    def name(self) -> str: ...

    async def check(self) -> str:
        """Return the component's status in a word, or raise `Unavailable`."""
        ...


class LinkBuilder(Protocol):
    """Builds URLs of this service and its pages."""

    def docs(self) -> str: ...

    def share(self, code: str) -> str: ...

    def unsubscribe(self, token: str) -> str: ...

    def confirm(self, token: str) -> str: ...

    def reset(self, token: str) -> str: ...


class QrCodeRenderer(Protocol):
    """Renders links as QR codes."""

    def svg(self, link: str) -> bytes: ...

    def png(self, link: str) -> bytes: ...


class JobHandler(Protocol):
    """Runs jobs. `RescheduleJob` delays a job, `MailRefused` ends it; other errors are retried."""

    async def __call__(self, job: Job, context: JobContext, /) -> None: ...
