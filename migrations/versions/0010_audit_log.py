"""The audit log: partitioned by month, and closed to changes."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

INDEXES = (
    ("actor",),
    ("subject",),
    ("action",),
    ("actor", "action"),
    ("subject", "actor"),
    ("subject", "action"),
)

FUNCTIONS = (
    # The least id of a time, as `audit_record_id` in the service.
    """
CREATE FUNCTION audit_log_id(at timestamptz) RETURNS uuid IMMUTABLE LANGUAGE sql AS $$
    SELECT (lpad(to_hex(us / 1000), 12, '0') || '7'
            || lpad(to_hex((us % 1000 * 4096 + 999) / 1000), 3, '0') || '8000000000000000')::uuid
    FROM (SELECT greatest(0, (extract(epoch FROM at) * 1000000)::bigint) AS us) AS time
$$
""",
    # Only prune_audit_log sets referral.audit_pruning.
    """
CREATE FUNCTION reject_audit_log_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('referral.audit_pruning', true) = 'on' THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'The audit log cannot be changed: % is rejected.', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END
$$
""",
    # Creates the partitions of this month and the next two, and drops those of past months that
    # are empty. Records of other months go to the default partition, so an insert never fails.
    # Both take a lock on the table, and give up instead of waiting.
    """
CREATE FUNCTION prepare_audit_log(now timestamptz) RETURNS void LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '1s' AS $$
DECLARE
    this_month timestamp := date_trunc('month', now AT TIME ZONE 'UTC');
    month timestamp;
    partition text;
    lower_id uuid;
    upper_id uuid;
    is_empty boolean;
BEGIN
    FOR ahead IN 0..2 LOOP
        month := this_month + make_interval(months => ahead);
        partition := 'audit_log_' || to_char(month, 'YYYY_MM');
        lower_id := audit_log_id(month AT TIME ZONE 'UTC');
        upper_id := audit_log_id((month + interval '1 month') AT TIME ZONE 'UTC');
        CONTINUE WHEN to_regclass(partition) IS NOT NULL
            OR EXISTS (SELECT FROM audit_log_default WHERE id >= lower_id AND id < upper_id);
        EXECUTE format('CREATE TABLE %I PARTITION OF audit_log FOR VALUES FROM (%L) TO (%L)',
            partition, lower_id, upper_id);
        EXECUTE format('CREATE TRIGGER reject_truncate BEFORE TRUNCATE ON %I
            FOR EACH STATEMENT EXECUTE FUNCTION reject_audit_log_change()', partition);
    END LOOP;
    FOR partition IN
        SELECT relname FROM pg_class JOIN pg_inherits ON inhrelid = pg_class.oid
        WHERE inhparent = 'audit_log'::regclass AND relname ~ '^audit_log_[0-9]{4}_[0-9]{2}$'
        AND relname < 'audit_log_' || to_char(this_month, 'YYYY_MM')
    LOOP
        EXECUTE format('SELECT NOT EXISTS (SELECT FROM %I)', partition) INTO is_empty;
        IF is_empty THEN
            EXECUTE format('DROP TABLE %I', partition);
        END IF;
    END LOOP;
EXCEPTION WHEN lock_not_available THEN
    NULL;
END
$$
""",
    """
CREATE FUNCTION prune_audit_log(before timestamptz, batch integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET referral.audit_pruning = 'on'
AS $$
DECLARE
    deleted integer;
BEGIN
    DELETE FROM audit_log WHERE id = ANY (ARRAY(
        SELECT id FROM audit_log WHERE id < audit_log_id(before) ORDER BY id LIMIT batch));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$
""",
)

TRIGGERS = (
    """
CREATE TRIGGER reject_change BEFORE UPDATE OR DELETE ON audit_log
    FOR EACH ROW EXECUTE FUNCTION reject_audit_log_change()
""",
    """
CREATE TRIGGER reject_truncate BEFORE TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION reject_audit_log_change()
""",
    """
CREATE TRIGGER reject_truncate BEFORE TRUNCATE ON audit_log_default
    FOR EACH STATEMENT EXECUTE FUNCTION reject_audit_log_change()
""",
)

CALLED = "prepare_audit_log(timestamptz), prune_audit_log(timestamptz, integer)"
DROPPED = f"{CALLED}, reject_audit_log_change(), audit_log_id(timestamptz)"


def upgrade() -> None:
    """Change the schema."""

    op.create_table(
        "audit_log",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor_type", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
        postgresql_partition_by="RANGE (id)",
    )
    for names in INDEXES:
        op.create_index(f"ix_audit_log_{'_'.join(names)}_id", "audit_log", [*names, "id"])
    op.execute("CREATE TABLE audit_log_default PARTITION OF audit_log DEFAULT")
    for statement in (*FUNCTIONS, *TRIGGERS):
        op.execute(statement)
    op.execute(f"REVOKE EXECUTE ON FUNCTION {CALLED} FROM PUBLIC")
    op.execute("SELECT prepare_audit_log(now())")


def downgrade() -> None:
    """Change it back."""

    op.drop_table("audit_log")
    op.execute(f"DROP FUNCTION {DROPPED}")
