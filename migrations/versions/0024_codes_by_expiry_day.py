"""Index of codes by status and day of expiry, instead of those of enabled and exhausted codes."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

NAME = "ix_codes_expiry_day"
STATUS = (
    "(CASE WHEN uses >= max_uses THEN 'exhausted' WHEN enabled THEN 'active' ELSE 'inactive' END)"
)
DAY = "((expires_at AT TIME ZONE 'UTC')::date)"
REPLACED = {
    "ix_codes_enabled_id": "enabled",
    "ix_codes_exhausted_id": "max_uses IS NOT NULL AND uses >= max_uses",
}


def upgrade() -> None:
    """Change the schema. Building the index reads all codes, and blocks no writes meanwhile."""

    with op.get_context().autocommit_block():
        # An upgrade that was interrupted leaves an invalid index behind.
        op.drop_index(NAME, table_name="codes", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            NAME,
            "codes",
            [sa.text(STATUS), sa.text(DAY), "id"],
            postgresql_where=sa.text("deleted_at IS NULL"),
            postgresql_concurrently=True,
        )
        # The planner needs the number of days.
        op.execute("ANALYZE codes")
        # Only the list of all codes read these, which no release has yet.
        for name in REPLACED:
            op.drop_index(name, table_name="codes", if_exists=True, postgresql_concurrently=True)
    # The transaction of `env.py` ended with the block, and its settings as well.
    op.execute("SET LOCAL lock_timeout = '5s'")


def downgrade() -> None:
    """Change it back."""

    for name, condition in REPLACED.items():
        op.create_index(name, "codes", ["id"], postgresql_where=sa.text(condition))
    op.drop_index(NAME, table_name="codes")
