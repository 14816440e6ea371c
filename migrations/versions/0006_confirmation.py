"""Confirmation deadlines, and referred e-mail addresses."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema."""

    op.add_column("users", sa.Column("confirm_by", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_users_confirm_by",
        "users",
        ["confirm_by"],
        postgresql_where=sa.text("confirm_by IS NOT NULL"),
    )
    op.create_index(
        "ix_referrals_pending",
        "referrals",
        ["joined_at"],
        postgresql_where=sa.text("status = 'pending'"),
    )
    op.create_table(
        "referred_emails",
        sa.Column("fingerprint", sa.LargeBinary(length=32), nullable=False),
        sa.Column("referred_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_referred_emails")),
    )
    op.create_index("ix_referred_emails_referred_at", "referred_emails", ["referred_at"])


def downgrade() -> None:
    """Change it back."""

    op.drop_index("ix_referred_emails_referred_at", table_name="referred_emails")
    op.drop_table("referred_emails")
    op.drop_index("ix_referrals_pending", table_name="referrals")
    op.drop_index("ix_users_confirm_by", table_name="users")
    op.drop_column("users", "confirm_by")
