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


def upgrade() -> None:
    """Change the schema."""

    op.add_column(
        "referrals",
        sa.Column("held", sa.Boolean(), server_default=sa.text("false"), nullable=False),
    )
    op.add_column("referrals", sa.Column("reason", sa.Text(), nullable=True))
    op.add_column("referrals", sa.Column("decided_at", sa.DateTime(timezone=True), nullable=True))
    for name, columns in REFERRAL_INDEXES.items():
        op.create_index(name, "referrals", columns)
    op.drop_index("ix_referrals_code_id", table_name="referrals")
    op.create_index(
        "ix_referrals_without_code",
        "referrals",
        ["referrer_id"],
        postgresql_where=sa.text("code_id IS NULL"),
    )
    op.create_index(
        "ix_referrals_held", "referrals", ["joined_at", "id"], postgresql_where=sa.text("held")
    )
    op.create_index("ix_codes_enabled_id", "codes", ["id"], postgresql_where=sa.text("enabled"))
    op.create_index(
        "ix_codes_exhausted_id",
        "codes",
        ["id"],
        postgresql_where=sa.text("max_uses IS NOT NULL AND uses >= max_uses"),
    )


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
