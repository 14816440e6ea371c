"""Events, their outbox, and which expiries of codes were reported."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# Codes that have expired by now are never reported. Both statements change the catalog only.
ADD_EXPIRY_REPORTED_UNTIL = """
ALTER TABLE codes ADD COLUMN expiry_reported_until timestamptz NOT NULL DEFAULT now()
"""
SET_DEFAULT_FOR_NEW_CODES = """
ALTER TABLE codes ALTER COLUMN expiry_reported_until SET DEFAULT '-infinity'
"""
INDEX_EXTERNAL_USER_ID = {
    "columns": ["external_user_id"],
    "postgresql_where": sa.text("external_user_id IS NOT NULL"),
}


def upgrade() -> None:
    """Change the schema."""

    op.create_table(
        "event_outbox",
        sa.Column("seq", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("external_user_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_event_outbox")),
    )
    op.create_index("ix_event_outbox_external_user_id", "event_outbox", **INDEX_EXTERNAL_USER_ID)
    op.execute("CREATE SEQUENCE event_positions")
    op.create_table(
        "events",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("external_user_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sa.UniqueConstraint("position", name="uq_events_position"),
    )
    op.create_index("ix_events_type_position", "events", ["type", "position"])
    op.create_index("ix_events_type_occurred_at_id", "events", ["type", "occurred_at", "id"])
    op.create_index("ix_events_external_user_id", "events", **INDEX_EXTERNAL_USER_ID)
    op.execute(ADD_EXPIRY_REPORTED_UNTIL)
    op.execute(SET_DEFAULT_FOR_NEW_CODES)


def downgrade() -> None:
    """Change it back."""

    op.drop_column("codes", "expiry_reported_until")
    op.drop_table("events")
    op.execute("DROP SEQUENCE event_positions")
    op.drop_table("event_outbox")
