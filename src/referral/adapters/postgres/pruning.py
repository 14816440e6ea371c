"""Deleting old rows, some at a time, so that no statement runs into the limit of its time."""

from sqlalchemy import ColumnElement, Table, delete, select

from referral.adapters.postgres.connection import DatabaseSession

PRUNE_BATCH_SIZE = 2000


async def prune(session: DatabaseSession, table: Table, condition: ColumnElement[bool]) -> bool:
    """Delete a batch of what is old; tell whether there may be more."""
    key = table.primary_key.columns[0]
    batch = select(key).where(condition).limit(PRUNE_BATCH_SIZE).with_for_update(skip_locked=True)
    deleted = await session.execute(delete(table).where(key.in_(batch)).returning(key))
    return len(deleted.all()) == PRUNE_BATCH_SIZE
