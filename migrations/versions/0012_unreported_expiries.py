"""Index of the codes whose expiry is not reported yet."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

NAME = "ix_codes_unreported_expiry"


def upgrade() -> None:
    """Change the schema. Building the index reads all codes, and blocks no writes meanwhile."""

    with op.get_context().autocommit_block():
        # An upgrade that was interrupted leaves an invalid index behind.
        op.drop_index(NAME, table_name="codes", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            NAME,
            "codes",
            ["expires_at"],
            postgresql_where=sa.text("enabled AND expires_at > expiry_reported_until"),
            postgresql_concurrently=True,
        )
    # The transaction of `env.py` ended with the block, and its settings as well.
    op.execute("SET LOCAL lock_timeout = '5s'")


def downgrade() -> None:
    """Change it back."""

    op.drop_index(NAME, table_name="codes")
