"""Indexes of the audit log for pairs of filters, whose frequency PostgreSQL knows."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

PAIRS = (("actor", "action"), ("subject", "actor"), ("subject", "action"))


def upgrade() -> None:
    """Change the schema."""

    for first, second in PAIRS:
        op.create_index(
            f"ix_audit_log_{first}_{second}",
            "audit_log",
            [sa.text(f"({first} || ' ' || {second})"), "id"],
        )
        op.drop_index(f"ix_audit_log_{first}_{second}_id", table_name="audit_log")


def downgrade() -> None:
    """Change it back."""

    for first, second in PAIRS:
        op.create_index(f"ix_audit_log_{first}_{second}_id", "audit_log", [first, second, "id"])
        op.drop_index(f"ix_audit_log_{first}_{second}", table_name="audit_log")
