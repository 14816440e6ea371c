"""The port `ImportStore`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from referral.adapters.postgres.imports import PostgresImportStore
from referral.core.entities.codes import CodeStatus
from referral.core.entities.imports import (
    ImportConflict,
    ImportCounts,
    ImportedCode,
    ImportedReferral,
    ImportedRow,
    ImportedUser,
    ImportKind,
    ImportProgress,
    RejectedLine,
)
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import Locale, Role
from referral.core.errors import Conflict
from referral.core.ports.imports import ImportStore
from referral.core.ports.repositories import Database
from tests.contracts.rows import HOUR, ID_GENERATOR, NOW, make_code, store_user
from tests.support.fakes.database import FakeDatabase
from tests.support.fakes.imports import FakeImportStore

ZERO_TIME = bytes(6)
KINDS: dict[type, ImportKind] = {
    ImportedUser: ImportKind.USER,
    ImportedCode: ImportKind.CODE,
    ImportedReferral: ImportKind.REFERRAL,
}


@dataclass(frozen=True)
class Imports:
    """The store, over the database that the tests look into."""

    store: ImportStore
    database: Database

    async def add(self, *rows: ImportedRow) -> tuple[int, list[RejectedLine]]:
        """Import rows of one kind, as a file of their own."""
        async with self.store.open(uuid4().bytes * 2, NOW, dry_run=False) as session:
            async with session.transaction():
                result = await session.add(KINDS[type(rows[0])], rows)
            async with session.transaction():
                await session.finish()
        return result


@pytest.fixture
def imports(store: Database, request: pytest.FixtureRequest) -> Imports:
    """The fake store, then the real one."""
    if isinstance(store, FakeDatabase):
        return Imports(FakeImportStore(store), store)
    return Imports(PostgresImportStore(request.getfixturevalue("database_url")), store)


def make_user(line: int = 1, **changed: Any) -> ImportedUser:
    """Return a new user with an id made from the line."""
    user_id = ID_GENERATOR.new()
    user = ImportedUser(
        line=line,
        id=user_id,
        has_id=False,
        email=f"U{user_id}@example.com",
        email_key=f"u{user_id}@example.com",
        external_id=None,
        password_hash="a hash",  # noqa: S106 - of nothing
        password_cost=None,
        role=Role.MEMBER,
        locale=Locale.RU,
        email_verified=True,
        notify_on_referral=False,
        created_at=NOW - HOUR,
        blocked_at=None,
        erased_at=None,
    )
    return replace(user, **changed)


def make_code_row(owner: ImportedUser, line: int = 1, **changed: Any) -> ImportedCode:
    """Return a new active code with an id made from the line."""
    code_id = ID_GENERATOR.new()
    code = ImportedCode(
        line=line,
        id=code_id,
        has_id=False,
        user_id=None,
        user_key=owner.email_key,
        text=f"Code-{code_id.hex[-20:]}",
        created_at=NOW - HOUR,
        expires_at=NOW + HOUR,
        max_uses=3,
        uses=1,
        enabled=True,
        deleted_at=None,
    )
    return replace(code, **changed)


def make_referral_row(
    referred: ImportedUser, referrer: ImportedUser, line: int = 1, **changed: Any
) -> ImportedReferral:
    """Return a referral of two users, named by id."""
    referral = ImportedReferral(
        line=line,
        id=ID_GENERATOR.new(),
        user_id=referred.id,
        user_key=None,
        referrer_id=referrer.id,
        referrer_key=None,
        code=None,
        status=ReferralStatus.CONFIRMED,
        held=False,
        reason=None,
        joined_at=None,
    )
    return replace(referral, **changed)


def again(row: Any, **changed: Any) -> Any:
    """Return what the same line gives at another time: the first bytes of the id are a time."""
    return replace(row, id=UUID(bytes=ZERO_TIME + row.id.bytes[6:]), **changed)


async def add_users(imports: Imports, count: int) -> Sequence[ImportedUser]:
    """Import some users."""
    users = [make_user(line) for line in range(count)]
    assert await imports.add(*users) == (count, [])
    return users


async def test_imported_user_is_found(imports: Imports) -> None:
    """With all fields, and with no deadline for the confirmation of the address."""
    row = make_user(
        role=Role.ADMIN, external_id=uuid4().hex, blocked_at=NOW, password_cost=20, has_id=True
    )
    assert await imports.add(row) == (1, [])
    async with imports.database.begin() as repositories:
        user = await repositories.users.find(row.id)
        assert user is not None
        for name in ("email", "email_key", "external_id", "password_hash", "role", "locale"):
            assert getattr(user, name) == getattr(row, name)
        assert (user.email_verified, user.notify_on_referral) == (True, False)
        assert (user.created_at, user.blocked_at, user.confirm_by) == (NOW - HOUR, NOW, None)


async def test_costliest_hash_is_that_of_an_imported_user(imports: Imports) -> None:
    """Until the user has another hash, or is erased."""
    costly, cheap = (
        make_user(line, password_hash=text, password_cost=cost)
        for line, text, cost in ((1, "hash 1", 901), (2, "hash 2", 900))
    )
    await imports.add(costly, cheap, make_user(3))
    async with imports.database.begin() as repositories:
        assert await repositories.users.find_costliest_hash() == "hash 1"
        user = await repositories.users.lock(costly.id)
        assert user is not None
        await repositories.users.save(user)
        assert await repositories.users.find_costliest_hash() == "hash 1"
        await repositories.users.save(replace(user, password_hash=user.email))
        assert await repositories.users.find_costliest_hash() == "hash 2"
        await repositories.users.erase(cheap.id, NOW)
        assert await repositories.users.find_costliest_hash() not in {"hash 1", "hash 2"}


async def test_users_in_conflict_are_rejected(imports: Imports) -> None:
    """With an account of the service, or with an earlier line; the others are added."""
    member = await store_user(imports.database)
    erased = await store_user(imports.database)
    async with imports.database.begin() as repositories:
        await repositories.users.erase(erased.id, NOW)
    first = make_user(1, external_id=uuid4().hex)
    rows = [
        first,
        make_user(2, email_key=member.email_key),
        make_user(3, id=member.id, has_id=True),
        make_user(4, id=erased.id, has_id=True),
        make_user(5, email_key=first.email_key),
        make_user(6, email_key=first.email_key, has_id=True),
        make_user(7, external_id=first.external_id),
        make_user(8),
    ]
    expected = [
        (2, ImportConflict.EMAIL_TAKEN),
        (3, ImportConflict.ID_TAKEN),
        (4, ImportConflict.ID_TAKEN),
        (5, ImportConflict.EMAIL_TAKEN),
        (6, ImportConflict.EMAIL_TAKEN),
        (7, ImportConflict.EXTERNAL_ID_TAKEN),
    ]
    added, rejected = await imports.add(*rows)
    assert (added, sorted((each.line, each.reason) for each in rejected)) == (2, expected)
    async with imports.database.read() as repositories:
        assert await repositories.users.find(member.id) == member
    added, rejected = await imports.add(*map(again, rows[:2]), *rows[2:4], *map(again, rows[4:]))
    assert (added, sorted((each.line, each.reason) for each in rejected)) == (0, expected)


async def test_users_that_are_there_are_unchanged(imports: Imports) -> None:
    """The same line, id or external id names the same user; each of them twice in a file too."""
    by_line, by_id = make_user(1), make_user(2, has_id=True)
    by_external_id = make_user(3, external_id=uuid4().hex)
    rows = [by_line, by_id, by_external_id]
    assert await imports.add(*rows, *rows) == (3, [])
    changed: dict[str, Any] = {"locale": Locale.EN, "password_hash": "another"}
    repeated = [
        again(by_line, **changed),
        replace(by_id, **changed),
        make_user(4, email_key=by_external_id.email_key, external_id=by_external_id.external_id),
    ]
    assert await imports.add(*repeated) == (0, [])
    async with imports.database.read() as repositories:
        for row in rows:
            user = await repositories.users.find(row.id)
            assert user is not None
            assert (user.locale, user.password_hash) == (Locale.RU, "a hash")


async def test_erased_user_is_kept_as_such(imports: Imports) -> None:
    """For its referrals and deleted codes; it is not found, and twice is once."""
    referrer, bob = await add_users(imports, 2)
    erased = make_user(has_id=True, erased_at=NOW, email=None, email_key=None, password_hash=None)
    assert await imports.add(erased, erased) == (1, [])
    deleted = make_code_row(erased, user_id=erased.id, enabled=False, deleted_at=NOW)
    assert await imports.add(deleted, replace(deleted, line=2)) == (1, [])
    live = make_code_row(erased, 7, user_id=erased.id)
    assert await imports.add(live) == (0, [RejectedLine(7, ImportConflict.UNKNOWN_USER)])
    taken = make_code_row(bob, 8, text=deleted.text.upper())
    assert await imports.add(taken) == (0, [RejectedLine(8, ImportConflict.CODE_TAKEN)])
    assert await imports.add(make_referral_row(erased, referrer)) == (1, [])
    async with imports.database.read() as repositories:
        assert await repositories.users.find(erased.id) is None
        assert await repositories.codes.list_all(erased.id) == []
        [referral] = await repositories.referrals.list_page(
            referrer.id, status=None, after=None, limit=9
        )
    assert referral.id == erased.id


async def test_imported_code_is_found(imports: Imports) -> None:
    """With all fields; its owner is named by address or id."""
    ann, bob = await add_users(imports, 2)
    rows = [make_code_row(ann, 1), make_code_row(bob, 2, user_id=bob.id, user_key=None)]
    assert await imports.add(*rows) == (2, [])
    async with imports.database.read() as repositories:
        for owner, row in zip((ann, bob), rows, strict=True):
            code = await repositories.codes.find_active(owner.id, NOW)
            assert code is not None
            for name in ("id", "text", "created_at", "expires_at", "max_uses", "uses", "enabled"):
                assert getattr(code, name) == getattr(row, name)


async def test_codes_in_conflict_are_rejected(imports: Imports) -> None:
    """Texts ever given out stay taken, also those of deleted codes and in other cases."""
    ann, bob = await add_users(imports, 2)
    member = await store_user(imports.database)
    given = make_code(member)
    async with imports.database.begin() as repositories:
        await repositories.codes.add(given)
        await repositories.codes.lock(member.id, given.id)
        await repositories.codes.delete(given.id, NOW)
    first, inactive = make_code_row(ann, 1), {"enabled": False}
    rows = [
        first,
        make_code_row(bob, 2, text=given.text.swapcase(), **inactive),
        make_code_row(bob, 3, text=first.text.upper(), **inactive),
        make_code_row(bob, 4, id=given.id, has_id=True, **inactive),
        make_code_row(bob, 5, user_key="nobody@example.com"),
        make_code_row(bob, 6, user_id=ID_GENERATOR.new(), user_key=None),
        make_code_row(ann, 7),
        make_code_row(ann, 8, text=first.text, has_id=True, **inactive),
        make_code_row(ann, 9, **inactive),
    ]
    expected = [
        (2, ImportConflict.CODE_TAKEN),
        (3, ImportConflict.CODE_TAKEN),
        (4, ImportConflict.ID_TAKEN),
        (5, ImportConflict.UNKNOWN_USER),
        (6, ImportConflict.UNKNOWN_USER),
        (7, ImportConflict.ACTIVE_CODE_EXISTS),
        (8, ImportConflict.CODE_TAKEN),
    ]
    added, rejected = await imports.add(*rows)
    assert (added, sorted((each.line, each.reason) for each in rejected)) == (2, expected)
    added, rejected = await imports.add(*map(again, rows[:3]), rows[3], *map(again, rows[4:]))
    assert (added, sorted((each.line, each.reason) for each in rejected)) == (0, expected)


SPENT = [{"expires_at": NOW}, {"expires_at": NOW - HOUR}, {"uses": 3}, {"uses": 4, "max_uses": 2}]


@pytest.mark.parametrize("spent", SPENT)
async def test_spent_code_does_not_prevent_an_active_one(
    imports: Imports, spent: dict[str, Any]
) -> None:
    """Whichever comes first, in one batch or in two; the spent one is taken as it is."""
    for is_one_batch in (True, False):
        for spent_first in (True, False):
            [ann] = await add_users(imports, 1)
            rows = [make_code_row(ann, 1, **spent), make_code_row(ann, 2)]
            ordered = rows if spent_first else rows[::-1]
            if is_one_batch:
                assert await imports.add(*ordered) == (2, [])
            else:
                assert [await imports.add(row) for row in ordered] == [(1, []), (1, [])]
            async with imports.database.read() as repositories:
                codes = await repositories.codes.list_all(ann.id)
                active = await repositories.codes.find_active(ann.id, NOW)
            assert active is not None
            assert active.id == rows[1].id
            [old] = [code for code in codes if code.id == rows[0].id]
            assert old.status(NOW) in {CodeStatus.EXPIRED, CodeStatus.EXHAUSTED}
            assert not old.enabled


@pytest.mark.parametrize("spent", SPENT)
async def test_lone_spent_code_stays_enabled(imports: Imports, spent: dict[str, Any]) -> None:
    """Renewed, it is active again."""
    [ann] = await add_users(imports, 1)
    row = make_code_row(ann, **spent)
    assert await imports.add(row) == (1, [])
    async with imports.database.read() as repositories:
        code = await repositories.codes.find(ann.id, row.id)
    assert code is not None
    assert code.enabled


async def test_imported_referral_is_found(imports: Imports) -> None:
    """It is told to nobody and does not expire; without a time it has that of the user."""
    ann, bob, cem = await add_users(imports, 3)
    code = make_code_row(ann, uses=0)
    await imports.add(code)
    rows = [
        make_referral_row(bob, ann, 1, code=code.text.lower(), joined_at=NOW),
        make_referral_row(
            cem,
            ann,
            2,
            user_id=None,
            user_key=cem.email_key,
            status=ReferralStatus.PENDING,
            held=True,
            reason="a copy",
        ),
    ]
    assert await imports.add(*rows) == (2, [])
    async with imports.database.begin() as repositories:
        by_bob = await repositories.referrals.find_by_referred(bob.id)
        by_cem = await repositories.referrals.lock_pending(cem.id)
        assert by_bob is not None
        assert by_cem is not None
        assert (by_bob.code_id, by_bob.code, by_bob.joined_at) == (code.id, rows[0].code, NOW)
        assert (by_cem.held, by_cem.reason) == (True, "a copy")
        assert (by_cem.code_id, by_cem.code, by_cem.joined_at) == (None, None, NOW - HOUR)
        assert not by_bob.expires
        assert not by_cem.expires
        mail_id = ID_GENERATOR.new()
        assert await repositories.referrals.assign_to_mail(
            by_cem.id, mail_id, include_unassigned=True
        )
        told = await repositories.referrals.list_by_mail(ann.id, mail_id)
        assert [each.id for each in told] == [cem.id]
        counted = await repositories.codes.find(ann.id, code.id)
        assert counted is not None
        assert counted.uses == 1


async def test_referrals_in_conflict_are_rejected(imports: Imports) -> None:
    """A user has one referrer, never oneself; the code is one of the referrer."""
    ann, bob, cem = await add_users(imports, 3)
    code = make_code_row(ann)
    await imports.add(code)
    unknown = {"user_id": None, "user_key": "nobody@example.com"}
    rows = [
        make_referral_row(bob, ann, 1, code=code.text),
        make_referral_row(bob, cem, 2),
        make_referral_row(ann, ann, 3),
        make_referral_row(ann, bob, 4, **unknown),
        make_referral_row(ann, bob, 5, referrer_id=ID_GENERATOR.new()),
        make_referral_row(ann, bob, 6, code="UNKNOWN"),
        make_referral_row(cem, bob, 7, code=code.text),
        make_referral_row(bob, ann, 8, code=code.text),
    ]
    expected = [
        (2, ImportConflict.ALREADY_REFERRED),
        (3, ImportConflict.SELF_REFERRAL),
        (4, ImportConflict.UNKNOWN_USER),
        (5, ImportConflict.UNKNOWN_REFERRER),
        (6, ImportConflict.UNKNOWN_CODE),
        (7, ImportConflict.UNKNOWN_CODE),
    ]
    for added in (1, 0):
        count, rejected = await imports.add(*rows)
        assert sorted((each.line, each.reason) for each in rejected) == expected
        assert count == added


async def test_progress_is_committed_with_the_rows(imports: Imports) -> None:
    """A failed transaction leaves neither; the next session continues."""
    digest, user = uuid4().bytes * 2, make_user()
    progress = ImportProgress(
        ImportKind.CODE, 7, 8, {ImportKind.USER: 9}, {ImportKind.USER: ImportCounts(1, 2, 3)}
    )

    async def fail() -> None:
        async with (
            imports.store.open(digest, NOW, dry_run=False) as session,
            session.transaction(),
        ):
            await session.add(ImportKind.USER, [user])
            await session.save(progress)
            raise TimeoutError

    with pytest.raises(TimeoutError):
        await fail()
    async with imports.store.open(digest, NOW + HOUR, dry_run=False) as session:
        assert session.progress == ImportProgress()
        assert session.started_at == NOW
        async with session.transaction():
            assert await session.add(ImportKind.USER, [user]) == (1, [])
            await session.save(progress)
    async with imports.store.open(digest, NOW + HOUR, dry_run=False) as session:
        assert session.progress == progress
        async with session.transaction():
            await session.finish()
    async with imports.store.open(digest, NOW + HOUR, dry_run=False) as session:
        assert session.progress == ImportProgress()
        assert session.started_at == NOW + HOUR


async def test_two_imports_of_a_file_exclude_each_other(imports: Imports) -> None:
    """The second to save its progress adds nothing."""
    digest, user = uuid4().bytes * 2, make_user()

    async def add_late() -> None:
        async with imports.store.open(digest, NOW, dry_run=False) as late:
            async with (
                imports.store.open(digest, NOW, dry_run=False) as early,
                early.transaction(),
            ):
                await early.save(ImportProgress(offset=1))
            async with late.transaction():
                await late.add(ImportKind.USER, [user])
                await late.save(ImportProgress(offset=2))

    with pytest.raises(Conflict, match="Another process"):
        await add_late()
    async with imports.database.read() as repositories:
        assert await repositories.users.find(user.id) is None


async def test_dry_run_changes_nothing(imports: Imports) -> None:
    """It sees its own additions, and what the database has."""
    ann, bob = await add_users(imports, 2)
    cem, digest = make_user(), uuid4().bytes * 2
    later = timedelta(minutes=1)
    async with imports.store.open(digest, NOW, dry_run=True) as session:
        for kind, rows, expected in (
            (ImportKind.USER, [cem, again(ann)], (1, [])),
            (ImportKind.CODE, [make_code_row(cem, 1), make_code_row(ann, 2)], (2, [])),
            (ImportKind.REFERRAL, [make_referral_row(cem, bob)], (1, [])),
        ):
            async with session.transaction():
                assert await session.add(kind, rows) == expected
                await session.save(replace(session.progress, line=session.progress.line + 1))
        async with session.transaction():
            await session.finish()
    async with imports.database.read() as repositories:
        assert await repositories.users.find(cem.id) is None
        assert await repositories.codes.list_all(ann.id) == []
    async with imports.store.open(digest, NOW + later, dry_run=False) as session:
        assert session.started_at == NOW + later
