"""Users of other services: external ids, and referrals that do not expire."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema."""

    op.add_column("users", sa.Column("external_id", sa.Text(), nullable=True))
    op.create_index(
        "uq_users_external_id",
        "users",
        ["external_id"],
        unique=True,
        postgresql_where=sa.text("external_id IS NOT NULL AND erased_at IS NULL"),
    )
    op.add_column(
        "referrals",
        sa.Column("expires", sa.Boolean(), server_default=sa.text("true"), nullable=False),
    )
    op.create_index(
        "ix_referrals_expiring",
        "referrals",
        ["joined_at"],
        postgresql_where=sa.text("status = 'pending' AND expires"),
    )


def downgrade() -> None:
    """Change it back."""

    op.drop_index("ix_referrals_expiring", table_name="referrals")
    op.drop_column("referrals", "expires")
    op.drop_index("uq_users_external_id", table_name="users")
    op.drop_column("users", "external_id")
