"""Lineage of refresh tokens, and links in use."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema."""

    op.add_column("refresh_tokens", sa.Column("parent", sa.LargeBinary(length=32), nullable=True))
    op.add_column("refresh_tokens", sa.Column("heir", sa.LargeBinary(length=32), nullable=True))
    op.add_column(
        "one_time_tokens", sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True)
    )


def downgrade() -> None:
    """Change it back."""

    op.drop_column("one_time_tokens", "claimed_until")
    op.drop_column("refresh_tokens", "heir")
    op.drop_column("refresh_tokens", "parent")
