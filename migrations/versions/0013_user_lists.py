"""Indexes for the list of users."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

INDEXES = {
    "ix_users_listed": (["id"], "erased_at IS NULL"),
    "ix_users_admins": (["id"], "role = 'admin' AND erased_at IS NULL"),
    "ix_users_blocked": (["id"], "blocked_at IS NOT NULL AND erased_at IS NULL"),
    "ix_users_email_verified_id": (["email_verified", "id"], "erased_at IS NULL"),
}


def upgrade() -> None:
    """Change the schema. Building the indexes reads all rows, and blocks no writes meanwhile."""

    with op.get_context().autocommit_block():
        for name, (columns, condition) in INDEXES.items():
            # An upgrade that was interrupted leaves an invalid index behind.
            op.drop_index(name, table_name="users", if_exists=True, postgresql_concurrently=True)
            op.create_index(
                name,
                "users",
                columns,
                postgresql_where=sa.text(condition),
                postgresql_concurrently=True,
            )
    # The transaction of `env.py` ended with the block, and its settings as well.
    op.execute("SET LOCAL lock_timeout = '5s'")


def downgrade() -> None:
    """Change it back."""

    for name in INDEXES:
        op.drop_index(name, table_name="users")
