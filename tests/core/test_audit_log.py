"""The audit log: every use case that must add a record adds one, with its change or not at all."""

import inspect
from collections.abc import Iterator
from copy import deepcopy
from datetime import timedelta
from uuid import UUID

import pytest

from referral.container.use_cases import UseCases
from referral.core.entities.audit import (
    OPERATOR,
    Actor,
    ActorType,
    AuditAction,
    AuditRecord,
    audit_record_id,
    validated_reason,
)
from referral.core.entities.clients import Caller, Scope
from referral.core.errors import InvalidGrant, InvalidRequest, Unavailable
from referral.core.use_cases.accounts import BlockAccount
from referral.core.use_cases.retention import Prune
from tests.core.audit_scenarios import AUDITED, IN_BATCHES, JOBS, READS, SELF_SERVICE, Prepare
from tests.core.service import InMemoryService, client_caller
from tests.support.fakes.audit import FakeAuditLog

SCENARIOS = [prepare for prepares in AUDITED.values() for prepare in prepares]
ACTORS = (
    Actor.user(UUID(int=7)),
    Actor(ActorType.CLIENT, "a client"),
    OPERATOR,
)


def registered_use_cases() -> Iterator[type]:
    """Yield every use case of the container."""
    for factory in UseCases().factories:
        use_case = factory.provides.type_hint
        if use_case.__module__.startswith("referral.core.use_cases") and inspect.isclass(use_case):
            yield use_case


def records(service: InMemoryService) -> list[AuditRecord]:
    """Return all records."""
    return list(service.database._tables.audit.values())  # noqa: SLF001 - no transaction runs


def test_every_use_case_states_whether_it_is_audited() -> None:
    """A new use case is in one of the lists, so that its author has thought of the audit log."""
    kinds = (set(AUDITED), SELF_SERVICE, IN_BATCHES, JOBS, set(READS))
    assert set(registered_use_cases()) == set[type]().union(*kinds)
    assert sum(map(len, kinds)) == len(set[type]().union(*kinds))


@pytest.mark.parametrize("use_case", READS)
def test_use_case_that_reads_begins_no_transaction(use_case: type) -> None:
    """Otherwise it could change something."""
    assert ".begin()" not in inspect.getsource(use_case)


@pytest.mark.parametrize("actor", ACTORS, ids=lambda actor: actor.type)
@pytest.mark.parametrize("prepare", SCENARIOS)
async def test_change_adds_one_record(
    service: InMemoryService, prepare: Prepare, actor: Actor
) -> None:
    """It names who did what to which subject, when and why, and no e-mail address."""
    prepared = await prepare(service, actor)
    before = len(records(service))
    try:
        result = await prepared.call()
    except InvalidGrant:
        result = None  # the reuse of a refresh token
    [record] = records(service)[before:]
    assert (record.actor_type, record.actor) == (prepared.actor.type, prepared.actor.id)
    assert (record.action, record.reason) == (prepared.action, prepared.reason)
    assert record.at == service.clock.now()
    assert "@" not in repr(record)
    if prepared.subject is not None:
        assert record.subject == str(prepared.subject)
        return
    assert UUID(record.subject)
    if prepared.action is not AuditAction.SESSION_STARTED:
        created = result[0] if isinstance(result, tuple) else result
        assert record.subject == str(getattr(created, "id", None))


@pytest.mark.parametrize("prepare", SCENARIOS)
async def test_change_without_its_record_is_undone(
    service: InMemoryService, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are in one transaction."""
    prepared = await prepare(service, OPERATOR)

    async def fail(*_: object) -> None:
        raise Unavailable

    monkeypatch.setattr(FakeAuditLog, "add", fail)
    tables = service.database._tables  # noqa: SLF001 - no transaction runs
    before = deepcopy(tables)
    with pytest.raises(Unavailable):
        await prepared.call()
    # The reservation of a link is a transaction of its own.
    assert tables == before


@pytest.mark.parametrize("undo", [False, True])
async def test_change_that_changes_nothing_adds_no_record(
    service: InMemoryService, *, undo: bool
) -> None:
    """A second block of a user leaves the first one as it was, its time included."""
    ann = await service.create_account("ann@example.com")
    block = service.get(BlockAccount)
    if not undo:
        first = await block(ann.id, OPERATOR, "spam")
        service.clock.advance(minutes=1)
    else:
        first = ann
    before = records(service)
    assert await block(ann.id, OPERATOR, "again", undo=undo) == first
    assert records(service) == before


def test_actor_of_a_caller_is_the_user_or_the_client() -> None:
    """A client that acts for a user is the actor itself."""
    user_id, session_id = UUID(int=1), UUID(int=2)
    caller = Caller("shop", frozenset({Scope.ACCOUNT}), user_id, session_id)
    assert caller.actor == Actor(ActorType.USER, str(user_id))
    acting = Caller("shop", frozenset({Scope.ACCOUNT}), user_id, acting_client="shop")
    assert acting.actor == Actor(ActorType.CLIENT, "shop")
    assert client_caller(Scope.ADMIN).actor == Actor(ActorType.CLIENT, "a client")


@pytest.mark.parametrize(
    "reason",
    [
        "",
        "  ",
        "x" * 501,
        "ann@example.com",
        "see ann\uff20example.com",
        "a\x00b",
        "a\x1b[1m",
        "a\nb",
        "a\rb",
        "a\u0085b",
        "a\u2028b",
        "a\u2029b",
        "\u202eevil",
        "a\u2066b",
        "a\u200bb",
    ],
)
def test_reason_is_a_short_text_without_addresses(reason: str) -> None:
    """It stays after the erasure of the user whom it is about."""
    with pytest.raises(InvalidRequest) as raised:
        validated_reason(reason)
    assert raised.value.field == "reason"


@pytest.mark.parametrize("reason", ["x", "x" * 500, "Жулик и спам", "詐欺", "a\u00a0b"])
def test_reason_may_have_any_language(reason: str) -> None:
    """In one line; blanks around it are dropped."""
    assert validated_reason(f" {reason}\n") == reason


def test_ids_of_records_sort_by_time(service: InMemoryService) -> None:
    """To the microsecond, whatever their random bits are; they are UUIDs of version 7."""
    now = service.clock.now().replace(microsecond=0)
    times = [now + timedelta(microseconds=n) for n in (*range(3), 998, 999, 1000, 999_999)]
    bits = (0, 2**62 - 1)
    ids = [audit_record_id(at, random_bits) for at in times for random_bits in bits]
    assert ids == sorted(set(ids))
    assert {(each.version, each.variant) for each in ids} == {(7, "specified in RFC 4122")}


async def test_records_are_pruned_after_their_days(service: InMemoryService) -> None:
    """`REFERRAL_AUDIT_DAYS`, a year by default."""
    service.configure(audit_days=2)
    await service.create_account("ann@example.com")
    await service.block_account("ann@example.com")
    service.clock.advance(days=2)
    await service.get(Prune)()
    assert len(records(service)) == 1
    service.clock.advance(seconds=1)
    await service.get(Prune)()
    assert records(service) == []
