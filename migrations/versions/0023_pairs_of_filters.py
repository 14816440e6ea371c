"""Indexes for pairs of filters in the lists of all referrals and users."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

REFERRAL_INDEXES = {
    "ix_referrals_referrer_status": ("((referrer_id::text || ' ' || status))", None),
    "ix_referrals_code_id_status_joined_at_id": ("code_id, status", None),
    "ix_referrals_held_status": ("(status || ' ')", "held"),
    "ix_referrals_held_referrer": ("(referrer_id::text)", "held"),
    "ix_referrals_held_code_id": ("code_id", "held"),
    "ix_referrals_pending_not_held": ("(status || ' ')", "status = 'pending' AND NOT held"),
}
USER_INDEXES = {
    "ix_users_admins_email_verified": (
        ["(email_verified::text)", "id"],
        "role = 'admin' AND erased_at IS NULL",
    ),
    "ix_users_admins_blocked": (
        ["id"],
        "role = 'admin' AND blocked_at IS NOT NULL AND erased_at IS NULL",
    ),
    "ix_users_blocked_email_verified": (
        ["(email_verified::text)", "id"],
        "blocked_at IS NOT NULL AND erased_at IS NULL",
    ),
}


def upgrade() -> None:
    """Change the schema. Building the indexes reads all rows, and blocks no writes meanwhile."""

    with op.get_context().autocommit_block():
        for name, (first, condition) in REFERRAL_INDEXES.items():
            _create_index(name, "referrals", [first, "joined_at", "id"], condition)
        for name, (columns, condition) in USER_INDEXES.items():
            _create_index(name, "users", columns, condition)
    # The transaction of `env.py` ended with the block, and its settings as well.
    op.execute("SET LOCAL lock_timeout = '5s'")


def _create_index(name: str, table: str, columns: list[str], condition: str | None) -> None:
    # An upgrade that was interrupted leaves an invalid index behind.
    op.drop_index(name, table_name=table, if_exists=True, postgresql_concurrently=True)
    op.create_index(
        name,
        table,
        [sa.text(column) for column in columns],
        postgresql_where=sa.text(condition) if condition else None,
        postgresql_concurrently=True,
    )


def downgrade() -> None:
    """Change it back."""

    for name in USER_INDEXES:
        op.drop_index(name, table_name="users")
    for name in REFERRAL_INDEXES:
        op.drop_index(name, table_name="referrals")
