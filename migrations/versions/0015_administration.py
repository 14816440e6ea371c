"""Decisions of admins on referrals, and indexes for the lists of all referrals and codes."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

REFERRAL_INDEXES = {
    "ix_referrals_joined_at_id": ["joined_at", "id"],
    "ix_referrals_status_joined_at_id": ["status", "joined_at", "id"],
    "ix_referrals_referrer_id_joined_at_id": ["referrer_id", "joined_at", "id"],
    "ix_referrals_code_id_joined_at_id": ["code_id", "joined_at", "id"],
}
PARTIAL_INDEXES = {
    "ix_referrals_without_code": ("referrals", ["referrer_id"], "code_id IS NULL"),
    "ix_referrals_held": ("referrals", ["joined_at", "id"], "held"),
    "ix_codes_enabled_id": ("codes", ["id"], "enabled"),
    "ix_codes_exhausted_id": ("codes", ["id"], "max_uses IS NOT NULL AND uses >= max_uses"),
}
INDEXES = {
    name: ("referrals", columns, None) for name, columns in REFERRAL_INDEXES.items()
} | PARTIAL_INDEXES

# An upgrade that was interrupted is repeated, and may have added them.
ADD_COLUMNS = """
ALTER TABLE referrals ADD COLUMN IF NOT EXISTS held boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS reason text,
    ADD COLUMN IF NOT EXISTS decided_at timestamptz
"""


def upgrade() -> None:
    """Change the schema. Building the indexes reads all rows, and blocks no writes meanwhile."""

    op.execute(ADD_COLUMNS)
    with op.get_context().autocommit_block():
        for name, (table, columns, condition) in INDEXES.items():
            # An upgrade that was interrupted leaves an invalid index behind.
            op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)
            op.create_index(
                name,
                table,
                columns,
                postgresql_where=sa.text(condition) if condition else None,
                postgresql_concurrently=True,
            )
        op.drop_index(
            "ix_referrals_code_id",
            table_name="referrals",
            if_exists=True,
            postgresql_concurrently=True,
        )
    # The transaction of `env.py` ended with the block, and its settings as well.
    op.execute("SET LOCAL lock_timeout = '5s'")


def downgrade() -> None:
    """Change it back."""

    op.drop_index("ix_codes_exhausted_id", table_name="codes")
    op.drop_index("ix_codes_enabled_id", table_name="codes")
    op.drop_index("ix_referrals_without_code", table_name="referrals")
    op.drop_index("ix_referrals_held", table_name="referrals")
    op.create_index("ix_referrals_code_id", "referrals", ["code_id"])
    for name in REFERRAL_INDEXES:
        op.drop_index(name, table_name="referrals")
    op.drop_column("referrals", "decided_at")
    op.drop_column("referrals", "reason")
    op.drop_column("referrals", "held")
