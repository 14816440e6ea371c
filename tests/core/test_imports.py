"""Imports of users, codes and referrals."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from referral.core.entities.imports import (
    ImportCounts,
    ImportKind,
    ImportProgress,
    RejectedLine,
)
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import NO_PASSWORD, Locale, Role, User
from referral.core.ports.imports import Batch, InvalidLine, SourceLine
from referral.core.use_cases.imports import ImportLines
from tests.core.service import InMemoryService
from tests.support.waiting import WAIT_SECONDS

ANN_ID = UUID("01900000-0000-7000-8000-000000000001")
MOSCOW = timezone(timedelta(hours=3))
COUNTS = {
    ImportKind.USER: ImportCounts(2, 0, 1),
    ImportKind.CODE: ImportCounts(1, 0, 0),
    ImportKind.REFERRAL: ImportCounts(1, 0, 0),
}


@dataclass
class UserFields:
    """A line of the type `user`."""

    email: str | None = None
    id: UUID | None = None
    external_id: str | None = None
    email_verified: bool = False
    password_hash: str | None = None
    locale: Locale = Locale.EN
    role: Role = Role.MEMBER
    created_at: datetime | None = None
    blocked: bool = False
    notify_on_referral: bool = True
    erased: bool = False


@dataclass
class CodeFields:
    """A line of the type `code`."""

    user: str = "ann@example.com"
    code: str = "ANN-2026"
    expires_at: datetime = datetime(2027, 1, 1, tzinfo=MOSCOW)
    id: UUID | None = None
    max_uses: int | None = None
    uses: int = 0
    active: bool = True
    created_at: datetime | None = None
    deleted: bool = False


@dataclass
class ReferralFields:
    """A line of the type `referral`."""

    user: str = "bob@example.com"
    referrer: str = "ann@example.com"
    code: str | None = None
    status: ReferralStatus = ReferralStatus.CONFIRMED
    held: bool = False
    reason: str | None = None
    joined_at: datetime | None = None


KINDS: dict[type, ImportKind] = {
    UserFields: ImportKind.USER,
    CodeFields: ImportKind.CODE,
    ReferralFields: ImportKind.REFERRAL,
}


class FakeImportFile:
    """Lines in batches of two; a line that is a string is invalid. Reading may fail once."""

    def __init__(self, *lines: Any, digest: bytes = b"digest") -> None:
        self.lines = lines
        self.digest = digest
        self.size = len(lines)
        self.reads: list[tuple[ImportKind, int]] = []
        self.fails_at: int | None = None

    def read(self, kind: ImportKind, offset: int, line: int) -> Batch:
        assert line == offset + 1
        self.reads.append((kind, line))
        if len(self.reads) == self.fails_at:
            raise TimeoutError
        lines, invalid = [], []
        for number, value in list(enumerate(self.lines, 1))[offset : offset + 2]:
            text = repr(value).encode()
            if isinstance(value, str) and kind is ImportKind.USER:
                invalid.append(InvalidLine(number, text, value))
            elif KINDS.get(type(value)) is kind:
                lines.append(SourceLine(number, text, value))
        return Batch(lines, invalid, offset + 2, line + 2, is_last=offset + 2 >= len(self.lines))


@dataclass
class FakeRejectedLines:
    """Rejected lines in memory; `is_missing` drops them before the next `open`."""

    lines: dict[ImportKind, list[tuple[RejectedLine, bytes]]] = field(default_factory=dict)
    published: list[tuple[int, str]] | None = None
    is_missing: bool = False

    @contextmanager
    def open(self, sizes: dict[ImportKind, int]) -> Iterator[bool]:
        if self.is_missing:
            self.lines = {}
        is_complete = all(len(self.lines.get(kind, ())) >= size for kind, size in sizes.items())
        self.lines = {
            kind: self.lines.get(kind, [])[: sizes.get(kind, 0)] if is_complete else []
            for kind in ImportKind
        }
        yield is_complete

    def write(self, kind: ImportKind, lines: Sequence[tuple[RejectedLine, bytes]]) -> int:
        self.lines[kind] += lines
        return len(self.lines[kind])

    def publish(self) -> None:
        every = [each for lines in self.lines.values() for each, _ in lines]
        self.published = sorted((each.line, each.reason) for each in every)


async def run_import(
    service: InMemoryService, *lines: Any, dry_run: bool = False
) -> list[tuple[int, str]]:
    """Import lines; return the rejected ones."""
    rejected = FakeRejectedLines()
    await service.get(ImportLines)(
        FakeImportFile(*lines), rejected, lambda _: None, dry_run=dry_run
    )
    assert rejected.published is not None
    return rejected.published


async def find(service: InMemoryService, email_key: str) -> User:
    """Return the user with an address."""
    async with service.database.read() as repositories:
        user = await repositories.users.find_by_email(email_key)
    assert user is not None
    return user


async def test_lines_are_imported_in_any_order(service: InMemoryService) -> None:
    """Referrals and codes may precede their users; the progress and the counts are reported."""
    lines = [
        ReferralFields(code="ann-2026"),
        CodeFields(),
        "no JSON",
        UserFields("Bob@example.com"),
        UserFields("ANN@example.com"),
    ]
    reports: list[ImportProgress] = []
    rejected = FakeRejectedLines()
    counts = await service.get(ImportLines)(FakeImportFile(*lines), rejected, reports.append)
    assert counts == COUNTS
    assert rejected.published == [(3, "no JSON")]
    assert rejected.lines[ImportKind.USER] == [(RejectedLine(3, "no JSON"), b"'no JSON'")]
    kinds = [progress.kind for progress in reports]
    first, second, third = ImportKind
    assert kinds == [first, first, second, second, second, third, third, third, None]
    ann, bob = await find(service, "ann@example.com"), await find(service, "bob@example.com")
    async with service.database.read() as repositories:
        referral = await repositories.referrals.find_by_referred(bob.id)
        code = await repositories.codes.find_active(ann.id, service.clock.now())
        assert not repositories.tables.jobs
        audit = sorted(repositories.tables.audit.values(), key=lambda record: record.id)
    assert [record.action for record in audit] == ["import.started", "import.finished"]
    assert {(record.actor, record.subject) for record in audit} == {("operator", b"digest".hex())}
    assert referral is not None
    assert code is not None
    assert (referral.referrer_id, referral.code_id) == (ann.id, code.id)
    assert code.uses == 1


async def test_defaults_of_a_user(service: InMemoryService) -> None:
    """No password, no deadline; the id follows from the line and the service's key."""
    assert await run_import(service, UserFields("Ann@example.com")) == []
    ann = await find(service, "ann@example.com")
    assert (ann.email, ann.password_hash, ann.role) == ("Ann@example.com", NO_PASSWORD, Role.MEMBER)
    assert (ann.email_verified, ann.notify_on_referral, ann.confirm_by) == (False, True, None)
    assert ann.created_at == service.clock.now()
    assert ann.id.version == 7
    assert ann.id.variant == "specified in RFC 4122"
    assert ann.id.int >> 80 == int(ann.created_at.timestamp() * 1000)
    line = repr(UserFields("Ann@example.com")).encode()
    [digest] = service.fingerprints.compute(line)
    assert ann.id.bytes[-6:] == digest[4:10]


async def test_fields_of_a_user(service: InMemoryService) -> None:
    """Are taken as they are; an imported hash has a cost."""
    line = UserFields(
        "ann@example.com",
        id=ANN_ID,
        external_id="ext|1",
        email_verified=True,
        password_hash="imported:25",  # noqa: S106 - of nothing
        locale=Locale.RU,
        role=Role.ADMIN,
        created_at=datetime(1969, 1, 1, tzinfo=MOSCOW),
        blocked=True,
        notify_on_referral=False,
    )
    assert await run_import(service, line) == []
    ann = await find(service, "ann@example.com")
    assert (ann.id, ann.external_id, ann.locale, ann.role) == (ANN_ID, "ext|1", "ru", "admin")
    assert (ann.email_verified, ann.notify_on_referral) == (True, False)
    assert ann.created_at == datetime(1968, 12, 31, 21, tzinfo=UTC)
    assert ann.blocked_at == service.clock.now()
    async with service.database.read() as repositories:
        assert repositories.tables.password_costs == {ANN_ID: 25}


async def test_id_of_a_time_before_1970(service: InMemoryService) -> None:
    """Begins with zeros."""
    line = UserFields("ann@example.com", created_at=datetime(1960, 1, 1, tzinfo=UTC))
    assert await run_import(service, line) == []
    assert (await find(service, "ann@example.com")).id.int >> 80 == 0


LATEST = datetime(9999, 12, 31, 23, 59, tzinfo=timezone(-timedelta(hours=1)))


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (UserFields(), "email"),
        (UserFields("ann"), "email"),
        (UserFields("ann@example.com", external_id=""), "external_id"),
        (UserFields("ann@example.com", external_id="a b"), "external_id"),
        (UserFields("ann@example.com", external_id="a\u200bb"), "external_id"),
        (UserFields("ann@example.com", external_id="a" * 256), "external_id"),
        (UserFields("ann@example.com", password_hash=""), "password_hash"),
        (UserFields("ann@example.com", password_hash="!"), "password_hash"),  # noqa: S106
        (UserFields("ann@example.com", created_at=LATEST), "created_at"),
        (UserFields(erased=True), "id"),
        (UserFields("ann@example.com", erased=True, id=ANN_ID), "erased"),
        (UserFields(erased=True, id=ANN_ID, external_id="1"), "erased"),
        (UserFields(erased=True, id=ANN_ID, password_hash="x:y"), "erased"),  # noqa: S106
        (CodeFields(user="ann"), "user"),
        (CodeFields(user=str(ANN_ID)[:-1] + "x"), "user"),
        (CodeFields(user=ANN_ID.urn), "user"),
        (CodeFields(code="AN"), "code"),
        (CodeFields(code="ANN_2026"), "code"),
        (CodeFields(code="A" * 33), "code"),
        (CodeFields(max_uses=0), "max_uses"),
        (CodeFields(max_uses=2**31), "max_uses"),
        (CodeFields(uses=-1), "uses"),
        (CodeFields(uses=2**31), "uses"),
        (CodeFields(expires_at=LATEST), "expires_at"),
        (CodeFields(deleted=True), "active"),
        (ReferralFields(user=""), "user"),
        (ReferralFields(referrer="ann"), "referrer"),
        (ReferralFields(code="!"), "code"),
        (ReferralFields(joined_at=LATEST), "joined_at"),
        (ReferralFields(held=True), "held"),
        (ReferralFields(reason="asked ann@example.com"), "reason"),
    ],
)
async def test_invalid_line_is_rejected(service: InMemoryService, line: Any, field: str) -> None:
    """The reason names the field; the other lines are imported."""
    users = [UserFields("bob@example.com"), UserFields("cem@example.com")]
    [(number, reason)] = await run_import(service, users[0], line, users[1])
    assert number == 2
    assert reason.startswith(f"{field}: ")
    assert await find(service, "cem@example.com")


async def test_times_in_the_future_are_rejected(service: InMemoryService) -> None:
    """But for the difference of two clocks."""
    soon = service.clock.now() + timedelta(minutes=5)
    assert await run_import(service, UserFields("ann@example.com", created_at=soon)) == []
    late = soon + timedelta(microseconds=1)
    [(_, reason)] = await run_import(service, UserFields("bob@example.com", created_at=late))
    assert reason == "created_at: The time is in the future."


async def test_interrupted_import_continues() -> None:
    """With the first batch that was not committed; the result is the same."""
    lines = [
        UserFields("bob@example.com"),
        "no JSON",
        CodeFields(),
        ReferralFields(),
        UserFields("ann@example.com"),
    ]
    for fails_at in range(1, 10):
        service = InMemoryService()
        rejected, file = FakeRejectedLines(), FakeImportFile(*lines)
        file.fails_at = fails_at
        for _ in range(2):
            try:
                counts = await service.get(ImportLines)(file, rejected, lambda _: None)
            except TimeoutError:
                rejected.lines[ImportKind.USER].append((RejectedLine(0, "not committed"), b""))
        assert counts == COUNTS
        assert rejected.published == [(2, "no JSON")]
        assert len(file.reads) == 10
        assert len(set(file.reads)) == 9


async def test_import_begins_anew_without_its_rejected_lines(service: InMemoryService) -> None:
    """They are found again, and nothing is added twice."""
    file = FakeImportFile("no JSON", UserFields("ann@example.com"), CodeFields())
    rejected = FakeRejectedLines()
    file.fails_at = 3
    with pytest.raises(TimeoutError):
        await service.get(ImportLines)(file, rejected, lambda _: None)
    rejected.is_missing = True
    counts = await service.get(ImportLines)(file, rejected, lambda _: None)
    assert rejected.published == [(1, "no JSON")]
    assert counts[ImportKind.USER] == ImportCounts(0, 1, 1)
    assert counts[ImportKind.CODE] == ImportCounts(1, 0, 0)


async def test_dry_run_rejects_what_an_import_would(service: InMemoryService) -> None:
    """And changes nothing."""
    lines = [UserFields("ann@example.com"), UserFields("ANN@example.com"), CodeFields()]
    expected = [(2, "email-taken")]
    assert await run_import(service, *lines, dry_run=True) == expected
    async with service.database.read() as repositories:
        assert not repositories.tables.users
        assert not repositories.tables.audit
    assert await run_import(service, *lines) == expected
    assert await run_import(service, *lines) == expected
    assert replace(await find(service, "ann@example.com")).email == "ann@example.com"


async def test_next_batch_is_read_while_one_is_stored(service: InMemoryService) -> None:
    """Otherwise the database and the import would wait for each other in turns."""
    is_ahead = threading.Event()

    class File(FakeImportFile):
        def read(self, kind: ImportKind, offset: int, line: int) -> Batch:
            batch = super().read(kind, offset, line)
            if len(self.reads) == 2:
                is_ahead.set()
            return batch

    class Rejected(FakeRejectedLines):
        def write(self, kind: ImportKind, lines: Sequence[tuple[RejectedLine, bytes]]) -> int:
            assert is_ahead.wait(WAIT_SECONDS)
            return super().write(kind, lines)

    file = File(*(UserFields(f"u{number}@example.com") for number in range(4)))
    await service.get(ImportLines)(file, Rejected(), lambda _: None)
    assert [line for _, line in file.reads] == [1, 3, 1, 3, 1, 3]
