"""Counts of attempts at deliveries, by webhook."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

COLUMNS = ("succeeded_attempts", "failed_attempts")


def upgrade() -> None:
    """Change the schema."""

    for name in COLUMNS:
        op.add_column(
            "webhooks", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
        )


def downgrade() -> None:
    """Change it back."""

    for name in COLUMNS:
        op.drop_column("webhooks", name)
