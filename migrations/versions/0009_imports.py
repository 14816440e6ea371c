"""Imports: costs of foreign password hashes, referrals without a code, and progress."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema."""

    op.add_column("users", sa.Column("password_cost", sa.Integer(), nullable=True))
    op.create_index(
        "ix_users_password_cost",
        "users",
        ["password_cost"],
        postgresql_where=sa.text("password_cost IS NOT NULL"),
    )
    op.alter_column("referrals", "code_id", nullable=True)
    op.alter_column("referrals", "code", nullable=True)
    op.create_table(
        "imports",
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("progress", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_imports")),
    )


def downgrade() -> None:
    """Change it back. Imported referrals without a code are lost: they cannot be stored."""

    op.drop_table("imports")
    op.execute("DELETE FROM referrals WHERE code_id IS NULL")
    op.alter_column("referrals", "code", nullable=False)
    op.alter_column("referrals", "code_id", nullable=False)
    op.drop_index("ix_users_password_cost", table_name="users")
    op.drop_column("users", "password_cost")
