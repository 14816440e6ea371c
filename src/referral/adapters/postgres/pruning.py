"""Deleting old rows, some at a time, so that no statement runs into the limit of its time."""

from sqlalchemy import ColumnElement, Table, delete, select

from referral.adapters.postgres.connection import DatabaseSession

BATCH_SIZE = 2000


async def prune(session: DatabaseSession, table: Table, old: ColumnElement[bool]) -> bool:
    """Delete a batch of what is old; tell whether there may be more."""
    key = table.primary_key.columns[0]
    batch = select(key).where(old).limit(BATCH_SIZE).with_for_update(skip_locked=True)
    gone = await session.execute(delete(table).where(key.in_(batch)).returning(key))
    return len(gone.all()) == BATCH_SIZE
