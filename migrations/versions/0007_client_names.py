"""Unique names of clients."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

RENAME_REPEATED_NAMES = """
UPDATE clients SET name = left(clients.name, 100) || ' (' || clients.id || ')'
FROM (
    SELECT id, row_number() OVER (PARTITION BY left(name, 100) ORDER BY created_at, id) AS number
    FROM clients
) AS numbered
WHERE clients.id = numbered.id AND (numbered.number > 1 OR length(clients.name) > 100)
"""
"""The oldest client keeps a repeated name. Long names would not fit into an index."""


def upgrade() -> None:
    """Change the schema."""

    op.execute(RENAME_REPEATED_NAMES)
    op.create_unique_constraint(op.f("uq_clients_name"), "clients", ["name"])


def downgrade() -> None:
    """Change it back."""

    op.drop_constraint(op.f("uq_clients_name"), "clients", type_="unique")
