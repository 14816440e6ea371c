"""Risk signals of referrals, and the networks of users as keyed digests."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the schema."""

    op.add_column(
        "referrals",
        sa.Column("risk_signals", ARRAY(sa.Text()), server_default="{}", nullable=False),
    )
    op.create_table(
        "user_networks",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("digest", sa.LargeBinary(length=32), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("registered_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_user_networks_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "digest", name=op.f("pk_user_networks")),
    )
    op.create_index("ix_user_networks_seen_at", "user_networks", ["seen_at"])
    op.create_index(
        "ix_user_networks_digest_registered_at",
        "user_networks",
        ["digest", "registered_at"],
        postgresql_where=sa.text("registered_at IS NOT NULL"),
    )


def downgrade() -> None:
    """Change it back."""

    op.drop_table("user_networks")
    op.drop_column("referrals", "risk_signals")
