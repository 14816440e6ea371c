"""The audit log in PostgreSQL. Its ids contain the time, so one index finds a filter and a time."""

from dataclasses import astuple, dataclass, fields, replace
from datetime import datetime
from functools import cache
from uuid import UUID

from sqlalchemy import ColumnElement, Text, bindparam, literal_column, select

from referral.adapters.observability.logs import current_request_id
from referral.adapters.postgres.connection import (
    PRUNE_BATCH_SIZE,
    DatabaseConnection,
    Statement,
    values_of,
)
from referral.adapters.postgres.deferred_inserts import DeferredTable
from referral.adapters.postgres.tables import audit_log
from referral.core.entities.audit import (
    AuditFilter,
    AuditRecord,
    audit_record_id,
    contains_address_sign,
)

TABLE = DeferredTable("audit_log", tuple(field.name for field in fields(AuditRecord)))
CONDITIONS = {
    "actor": audit_log.c.actor == bindparam("actor"),
    "subject": audit_log.c.subject == bindparam("subject"),
    "action": audit_log.c.action == bindparam("action"),
    "since": audit_log.c.id >= bindparam("since"),
    "until": audit_log.c.id < bindparam("until"),
    "after": audit_log.c.id < bindparam("after"),
}
PAIRS = (("subject", "actor"), ("subject", "action"), ("actor", "action"))
"""The filters that have an index together, on the expression of `_pair`."""


def _pair(first: str, second: str) -> ColumnElement[bool]:
    """Return the condition that the index of two filters finds."""
    both = bindparam(first, type_=Text) + literal_column("' '") + bindparam(second, type_=Text)
    return literal_column(f"({first} || ' ' || {second})", Text) == both


@cache
def _list_page(*names: str) -> Statement:
    pair = next((pair for pair in PAIRS if set(pair) <= set(names)), ())
    query = select(audit_log).where(*(CONDITIONS[name] for name in names if name not in pair))
    if pair:
        # Instead of their own conditions, which the planner would take for independent ones.
        query = query.where(_pair(*pair))
    return Statement(query.order_by(audit_log.c.id.desc()).limit(bindparam("limit")))


@dataclass(frozen=True, slots=True)
class PostgresAuditLog:
    """The table of the audit log, whose triggers reject changes."""

    connection: DatabaseConnection

    async def add(self, record: AuditRecord) -> None:
        request_id = current_request_id()
        if request_id is not None and contains_address_sign(request_id):
            request_id = None  # a client may send an e-mail address as request id
        await self.connection.defer(TABLE, astuple(replace(record, request_id=request_id)))

    async def list_page(
        self, wanted: AuditFilter, *, after: UUID | None, limit: int
    ) -> list[AuditRecord]:
        values: dict[str, object] = values_of(wanted) | {"after": after}
        for name, time in (("since", wanted.since), ("until", wanted.until)):
            values[name] = time and audit_record_id(time)
        named = {name: value for name, value in values.items() if value is not None}
        return await self.connection.fetch_entities(
            AuditRecord, _list_page(*named), **named, limit=limit
        )

    async def prepare_storage(self, now: datetime) -> None:
        await self.connection.fetch_sql("SELECT prepare_audit_log($1)", now)

    async def prune(self, before: datetime) -> bool:
        [row] = await self.connection.fetch_sql(
            "SELECT prune_audit_log($1, $2)", before, PRUNE_BATCH_SIZE
        )
        return bool(row[0] == PRUNE_BATCH_SIZE)
